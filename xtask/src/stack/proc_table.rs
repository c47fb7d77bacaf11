//! What the system knows about a process: since when it runs, and how much memory it and its children use.

/// When the process started, as text that no other process with this pid will ever have; `None` if it does not live.
#[cfg(target_os = "linux")]
pub(crate) fn start_time(pid: u32) -> Option<String> {
    let stat = Stat::read(pid)?;
    if matches!(stat.state, 'Z' | 'X') {
        return None;
    }
    // Ticks count from boot, so they say nothing without it.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Some(format!("{}:{}", boot.trim(), stat.start_ticks))
}

/// Resident memory of the process and all its descendants, in bytes.
#[cfg(target_os = "linux")]
pub(crate) fn memory_bytes(pid: u32) -> Option<u64> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?.parent)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&parent) = family.get(next) {
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    Some(family.into_iter().filter_map(resident_bytes).sum())
}

#[cfg(target_os = "linux")]
fn resident_bytes(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The fields of `/proc/PID/stat` that we use (proc_pid_stat(5)).
#[cfg(target_os = "linux")]
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: u32,
    start_ticks: u64,
}

#[cfg(target_os = "linux")]
impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The program's name stands in parentheses and may itself hold spaces and parentheses.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        Some(Self {
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            start_ticks: fields.nth(17)?.parse().ok()?,
        })
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn start_time(pid: u32) -> Option<String> {
    let line = ps(pid, "stat=,lstart=")?;
    let (state, start) = line.split_once(' ')?;
    (!state.starts_with('Z')).then(|| start.trim().to_owned())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn memory_bytes(pid: u32) -> Option<u64> {
    let kib: u64 = ps(pid, "rss=")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(not(target_os = "linux"))]
fn ps(pid: u32, format: &str) -> Option<String> {
    let output = std::process::Command::new("ps").args(["-o", format, "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "42 (a) S 1) R 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 9 0 123456 999 1 2";
        let expected = Stat { state: 'R', parent: 7, start_ticks: 123_456 };
        assert_eq!(Stat::parse(line), Some(expected));
    }

    #[test]
    fn our_own_memory_is_known() {
        assert!(memory_bytes(std::process::id()).unwrap() > 100_000);
    }

    #[test]
    fn a_pid_that_nobody_has_has_no_start_time() {
        assert_eq!(start_time(u32::MAX), None);
    }
}
