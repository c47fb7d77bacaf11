//! Rate, errors and duration of each stage of a topic. Handles are made once, so that a chunk costs no look-up of a series.

use std::{sync::Arc, time::Duration};

use metrics::{Counter, Histogram, counter, histogram};

use super::metrics as names;

/// A stage, in the order in which data flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// A chunk of records out of librdkafka.
    Poll,
    /// Records into columns.
    Decode,
    /// Those that are new.
    Dedup,
    /// Lookups, projection and the open batch.
    Enrich,
    /// The chunks of a batch into one.
    Batch,
    /// Its rows as an Arrow IPC stream.
    Encode,
    /// One attempt to insert them.
    Insert,
    /// The dead letters of a batch, until all are acknowledged.
    DeadLetter,
    /// From the request to commit until the broker's answer, of one commit at a time.
    Commit,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Poll,
        Self::Decode,
        Self::Dedup,
        Self::Enrich,
        Self::Batch,
        Self::Encode,
        Self::Insert,
        Self::DeadLetter,
        Self::Commit,
    ];

    /// Value of the `stage` label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Poll => "poll",
            Self::Decode => "decode",
            Self::Dedup => "dedup",
            Self::Enrich => "enrich",
            Self::Batch => "batch",
            Self::Encode => "encode",
            Self::Insert => "insert",
            Self::DeadLetter => "dead_letter",
            Self::Commit => "commit",
        }
    }
}

/// The stages of one topic; cheap to clone.
#[derive(Clone)]
pub struct Stages {
    topic: Arc<str>,
    meters: Arc<[(Counter, Histogram); Stage::ALL.len()]>,
}

impl Stages {
    /// Those of a topic, by what metrics call it.
    pub fn new(topic: &str) -> Self {
        let meter = |stage: Stage| {
            let labels = [("topic", topic.to_owned()), ("stage", stage.code().to_owned())];
            (counter!(names::STAGE_EVENTS, &labels), histogram!(names::STAGE_DURATION, &labels))
        };
        Self { topic: topic.into(), meters: Arc::new(Stage::ALL.map(meter)) }
    }

    /// A chunk or batch has passed the stage, and so many events came out of it.
    pub fn passed(&self, stage: Stage, events: usize, took: Duration) {
        self.took(stage, took);
        self.came(stage, events as u64);
    }

    /// How long a stage took.
    pub fn took(&self, stage: Stage, took: Duration) {
        self.meters[stage as usize].1.record(took);
    }

    /// So many events came out of it.
    pub fn came(&self, stage: Stage, events: u64) {
        self.meters[stage as usize].0.increment(events);
    }

    /// Errors of a stage. `reason` is a word of a closed list or an error code, never a text.
    pub fn failed(&self, stage: Stage, reason: impl Into<String>, times: u64) {
        let labels = [("topic", self.topic.to_string()), ("stage", stage.code().to_owned()), ("reason", reason.into())];
        counter!(names::STAGE_ERRORS, &labels).increment(times);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_its_own_place() {
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, at, "{stage:?}");
        }
    }
}
