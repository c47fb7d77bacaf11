//! What the system knows of processes: processor time and resident memory, by process id.

use std::collections::BTreeMap;
use std::fs;

/// Ticks of /proc/PID/stat per second; fixed on Linux (proc_pid_stat(5), times(2)).
const TICKS_PER_SECOND: f64 = 100.0;

/// The fields of /proc/PID/stat that are used here (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    parent: u32,
    /// User and system time of all its threads, in ticks.
    ticks: u64,
}

impl Stat {
    /// `None` if there is no such process. One that has ended and was not waited for is there, in state `Z`.
    pub(crate) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Self> {
        // The program's name stands in parentheses and may itself hold spaces and parentheses.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let user: u64 = fields.nth(9)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        Some(Self { state, parent, ticks: user + system })
    }

    pub(crate) fn cpu_seconds(self) -> f64 {
        self.ticks as f64 / TICKS_PER_SECOND
    }
}

/// These processes and all their descendants.
pub(crate) fn families(roots: &[u32]) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten();
    for pid in entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()) {
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut family = roots.to_vec();
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        family.extend(children.remove(parent).into_iter().flatten());
        next += 1;
    }
    family
}

/// Resident memory now, in MiB; 0 if there is no such process.
pub(crate) fn resident_mib(pid: u32) -> f64 {
    status_mib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "VmRSS:")
}

fn status_mib(status: &str, key: &str) -> f64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix(" kB")?.parse().ok());
    value.map_or(0.0, |kib: f64| kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line = "42 (a) S 1) R 7 42 42 0 -1 4194304 1 2 3 4 150 25 7 8 20 0 9 0 123456 999 1 2";
        let stat = Stat::parse(line).unwrap();
        assert_eq!(stat, Stat { state: 'R', parent: 7, ticks: 175 });
        assert_eq!(stat.cpu_seconds(), 1.75);
        assert_eq!(Stat::parse("42 (a) R 7"), None);
    }

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(status_mib("Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n", "VmRSS:"), 2.0);
        assert_eq!(status_mib("Name:\tx\n", "VmRSS:"), 0.0);
    }

    #[test]
    fn this_process_is_in_the_family_of_its_parent() {
        let own = std::process::id();
        let parent = Stat::read(own).unwrap().parent;
        assert!(families(&[parent]).contains(&own));
        assert_eq!(families(&[own])[0], own);
    }
}
