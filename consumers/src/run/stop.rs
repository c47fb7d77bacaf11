//! Stopping one topic: it drains, commits what is durable, leaves the group and says why, while the other topics of the
//! process go on. Nothing here restarts it: a person decides, and starts the process again.

use std::{any::Any, fmt};

/// Why a topic does not go on.
#[derive(Debug)]
pub struct Stop {
    /// Which of the known reasons.
    pub reason: StopReason,
    /// What has happened, where, and what to do.
    pub error: anyhow::Error,
}

/// The closed list of reasons for which a topic stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It could not start: a table or column is missing, a schema does not fit.
    Start,
    /// The committed offset cannot be used, and `on_lost_position` is `"stop"`.
    PositionLost,
    /// A partition is held by another shard than the configuration gives it to.
    ShardsChanged,
    /// Suddenly too many of its events cannot be read: `dead_letters.max_share`.
    DeadLetters,
    /// Its table was altered and does not take its rows any more.
    TableAltered,
    /// Kafka has ended its consumer for good, or a defect of Millrace.
    Failed,
}

impl StopReason {
    /// Every reason, for gauges that start at 0.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::PositionLost, Self::ShardsChanged, Self::DeadLetters, Self::TableAltered, Self::Failed];

    /// Whether starting again is no help until somebody has decided something.
    pub(super) const fn waits_for_a_person(self) -> bool {
        match self {
            Self::PositionLost | Self::ShardsChanged | Self::DeadLetters | Self::TableAltered => true,
            Self::Start | Self::Failed => false,
        }
    }

    /// Value of the `reason` label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::PositionLost => "position_lost",
            Self::ShardsChanged => "shards_changed",
            Self::DeadLetters => "dead_letters",
            Self::TableAltered => "table_altered",
            Self::Failed => "failed",
        }
    }
}

impl Stop {
    /// A stop for this reason; the error names partition and offset where there are any, and what to do.
    pub fn new(reason: StopReason, error: impl Into<anyhow::Error>) -> Self {
        Self { reason, error: error.into() }
    }

    /// What a panic of the topic's thread comes to.
    pub(super) fn of_panic(panic: &(dyn Any + Send)) -> Self {
        let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("without a message");
        Self::new(StopReason::Failed, anyhow::anyhow!("its thread panicked: {said}"))
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stopped ({}): {:#}", self.reason.code(), self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_failure_that_tells_its_message() {
        for panic in [std::panic::catch_unwind(|| panic!("of {}", 3)), std::panic::catch_unwind(|| panic!("of 3"))] {
            let stop = Stop::of_panic(panic.unwrap_err().as_ref());
            assert_eq!(stop.to_string(), "stopped (failed): its thread panicked: of 3");
        }
    }
}
