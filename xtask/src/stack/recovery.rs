//! What `up` does about a part that an earlier run may have left behind. Decides; looks at nothing itself.

use std::time::Duration;

use super::part::Launch;
use super::process::Record;

/// How long a part may take until it serves: Kafka after a kill -9 on a busy machine is the slowest.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(120);

/// What was found about one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No pid file, or one of a process that is gone (killed, or before a reboot).
    Gone,
    /// It runs, but from another version or other settings.
    Outdated,
    /// It does not answer, and was started so recently that it may just not be ready: the `up` that started it was killed.
    Starting,
    /// It runs as it should, but does not answer.
    Hung,
    Healthy,
}

impl Found {
    /// Asks `answers` only of a process that runs as it should, since that may take a while.
    pub(crate) fn new(record: Option<&Record>, launch: &Launch, answers: impl FnOnce() -> bool) -> Self {
        match record {
            Some(record) if record.identity.alive() => {
                if record.fingerprint != launch.fingerprint() {
                    Self::Outdated
                } else if answers() {
                    Self::Healthy
                } else if record.uptime() < READY_LIMIT {
                    Self::Starting
                } else {
                    Self::Hung
                }
            }
            _ => Self::Gone,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Keep,
    Start,
    /// Until it is ready, as if we had started it.
    Wait,
    /// Stop it first, for this reason, giving it so long to stop by itself.
    Replace(&'static str, Duration),
}

/// `grace` is what a healthy part gets to stop.
pub(crate) fn decide(found: &Found, grace: Duration) -> Decision {
    match found {
        Found::Gone => Decision::Start,
        Found::Starting => Decision::Wait,
        Found::Outdated => Decision::Replace("runs with other settings", grace),
        // It will hardly hear the request to stop either.
        Found::Hung => Decision::Replace("runs but does not answer", grace.min(Duration::from_secs(5))),
        Found::Healthy => Decision::Keep,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::part::Part;
    use super::*;

    fn launch(argument: &str) -> Launch {
        Launch {
            part: Part::Kafka,
            program: PathBuf::from("java"),
            args: vec![argument.into()],
            env: Default::default(),
            config: Vec::new(),
        }
    }

    fn record_of_this_process(launch: &Launch) -> Record {
        let start = super::super::process::Identity::of(std::process::id()).unwrap();
        Record { identity: start, fingerprint: launch.fingerprint(), started_unix_ms: 0 }
    }

    fn decision(record: Option<&Record>, answers: bool) -> Decision {
        decide(&Found::new(record, &launch("a"), || answers), Duration::from_secs(30))
    }

    #[test]
    fn without_a_pid_file_it_is_started() {
        assert_eq!(decision(None, true), Decision::Start);
    }

    #[test]
    fn a_pid_file_of_a_dead_process_is_as_good_as_none() {
        let mut stale = record_of_this_process(&launch("a"));
        stale.identity.pid = u32::MAX;
        assert_eq!(decision(Some(&stale), true), Decision::Start);
    }

    #[test]
    fn a_healthy_part_is_kept() {
        assert_eq!(decision(Some(&record_of_this_process(&launch("a"))), true), Decision::Keep);
    }

    #[test]
    fn a_part_that_does_not_answer_is_replaced() {
        let decision = decision(Some(&record_of_this_process(&launch("a"))), false);
        assert!(matches!(decision, Decision::Replace(..)));
    }

    #[test]
    fn a_part_that_has_only_just_been_started_is_waited_for() {
        let mut record = record_of_this_process(&launch("a"));
        record.started_unix_ms = u64::MAX;
        assert_eq!(decision(Some(&record), false), Decision::Wait);
    }

    #[test]
    fn a_part_with_other_settings_is_replaced_even_if_it_answers() {
        let decision = decision(Some(&record_of_this_process(&launch("b"))), true);
        assert!(matches!(decision, Decision::Replace(..)));
    }
}
