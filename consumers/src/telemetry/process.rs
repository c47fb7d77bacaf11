//! Memory and processor time of this process, from `/proc`; where there is none, nothing is reported.

use std::fs;

/// The kernel reports processor time in 1/100 s to user space on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Resident memory, in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Processor time of all threads since the start, user and system, in seconds.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The command name in parentheses may hold spaces and parentheses; what follows the last one does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // See proc_pid_stat(5): utime and stime are fields 14 and 15, and the state after the name is field 3.
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!((0.0..1e6).contains(&cpu_seconds().unwrap()));
    }
}
