//! What runs now: for `stack status`.

use anyhow::Result;
use serde::Serialize;

use super::layout::DataDir;
use super::part::Part;
use super::ports::Ports;
use super::process::Record;
use super::start::probe;
use super::{proc_table, tools};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Up,
    /// Its process lives, but it gives no answer (yet).
    NotAnswering,
    Down,
    /// Not on this machine; the stack does without it.
    NotInstalled,
}

/// One line of `stack status`.
#[derive(Debug, Serialize)]
pub(crate) struct PartStatus {
    pub(crate) part: Part,
    pub(crate) state: State,
    pub(crate) pid: Option<u32>,
    pub(crate) port: Option<u16>,
    pub(crate) uptime_seconds: Option<u64>,
    /// Resident, with that of its child processes.
    pub(crate) memory_bytes: Option<u64>,
    /// Why it is not up.
    pub(crate) problem: Option<String>,
}

/// # Errors
/// If the data folder cannot be read.
pub(crate) fn of(dir: &DataDir) -> Result<Vec<PartStatus>> {
    let ports = Ports::load(dir)?;
    Part::ALL.into_iter().map(|part| of_part(dir, ports, part)).collect()
}

fn of_part(dir: &DataDir, ports: Option<Ports>, part: Part) -> Result<PartStatus> {
    let record = Record::load(dir, part)?;
    let alive = record.as_ref().filter(|record| record.identity.alive());
    let (state, problem) = match (alive, ports) {
        (Some(_), Some(ports)) => match probe(dir, &ports, part) {
            Ok(()) => (State::Up, None),
            Err(problem) => (State::NotAnswering, Some(format!("{problem:#}"))),
        },
        _ if part == Part::Prometheus && tools::find("prometheus").is_none() => (State::NotInstalled, None),
        _ => {
            let died = record.as_ref().map(|record| format!("process {} is gone", record.identity.pid));
            (State::Down, died)
        }
    };
    Ok(PartStatus {
        part,
        state,
        pid: alive.map(|record| record.identity.pid),
        port: alive.and(ports).map(|ports| ports.of(part)[0]),
        uptime_seconds: alive.map(|record| record.uptime().as_secs()),
        memory_bytes: alive.and_then(|record| proc_table::memory_bytes(record.identity.pid)),
        problem,
    })
}

/// Whether nothing is missing.
pub(crate) fn complete(parts: &[PartStatus]) -> bool {
    parts.iter().all(|part| matches!(part.state, State::Up | State::NotInstalled))
}

/// As a table for people.
pub(crate) fn table(parts: &[PartStatus]) -> String {
    let mut text = format!("{:<12}{:<15}{:>9}{:>7}{:>14}{:>9}\n", "part", "state", "pid", "port", "uptime", "memory");
    let dash = || "-".to_owned();
    for part in parts {
        let state = match part.state {
            State::Up => "up",
            State::NotAnswering => "not answering",
            State::Down => "down",
            State::NotInstalled => "not installed",
        };
        text += &format!(
            "{:<12}{state:<15}{:>9}{:>7}{:>14}{:>9}",
            part.part.name(),
            part.pid.map_or_else(dash, |pid| pid.to_string()),
            part.port.map_or_else(dash, |port| port.to_string()),
            part.uptime_seconds.map_or_else(dash, uptime),
            part.memory_bytes.map_or_else(dash, |bytes| format!("{} MB", bytes / 1_000_000)),
        );
        if let Some(problem) = &part.problem {
            text += &format!("  {problem}");
        }
        text += "\n";
    }
    text
}

fn uptime(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 if minutes == 0 => format!("{seconds} s"),
        0 => format!("{minutes} min {seconds} s"),
        _ => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(state: State) -> PartStatus {
        PartStatus {
            part: Part::Prometheus,
            state,
            pid: None,
            port: None,
            uptime_seconds: None,
            memory_bytes: None,
            problem: None,
        }
    }

    #[test]
    fn a_stack_without_prometheus_installed_is_complete() {
        assert!(complete(&[part(State::Up), part(State::NotInstalled)]));
    }

    #[test]
    fn a_part_that_is_down_or_silent_makes_it_incomplete() {
        assert!(!complete(&[part(State::Up), part(State::Down)]));
        assert!(!complete(&[part(State::Up), part(State::NotAnswering)]));
    }

    #[test]
    fn uptime_is_told_in_two_units() {
        assert_eq!(uptime(9), "9 s");
        assert_eq!(uptime(75), "1 min 15 s");
        assert_eq!(uptime(7380), "2 h 3 min");
    }
}
