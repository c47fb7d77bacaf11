//! What a running `millrace` says of itself: the answer of `GET /v1/status`. Fields that are not known here are passed over,
//! so that a newer server can be asked.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A whole process. Counters are totals since `started_at`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Answer {
    /// Of the package.
    pub version: String,
    /// In full.
    pub commit: String,
    /// RFC 3339.
    pub started_at: String,
    /// Whether it would process events if there were any.
    pub ready: bool,
    /// One for each section of the configuration.
    pub topics: Vec<Topic>,
}

/// One topic.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Topic {
    /// Its label, as in metrics.
    pub topic: String,
    /// Where its events come from.
    pub kafka_topic: String,
    /// Where they go.
    pub table: String,
    /// `starting`, `running`, `paused`, `draining` or `stopped`.
    pub state: String,
    /// Why it stopped, as a code.
    pub reason: Option<String>,
    /// Why it stopped, in words.
    pub why: Option<String>,
    /// Under which it claims partitions, once it does.
    pub owner: Option<String>,
    /// Why no events are processed.
    pub waiting_for: Option<String>,
    /// Records read.
    pub events: u64,
    /// Acknowledged by ClickHouse.
    pub rows: u64,
    /// Dropped, since their ids are in the table.
    pub duplicates: u64,
    /// By reason.
    pub dead_letters: BTreeMap<String, u64>,
    /// Records of other types.
    pub passed_over: u64,
    /// Ids that the index holds.
    pub dedup_ids: u64,
    /// Under way.
    pub inserts_in_flight: u64,
    /// Inserts that were sent again.
    pub insert_retries: u64,
    /// Inserts that were refused because a partition is another's.
    pub fence_refusals: u64,
    /// Of the consumer group.
    pub rebalances: u64,
    /// Circuit breakers on its way.
    pub breakers: Vec<Breaker>,
    /// Of the last minute or so.
    pub freshness_seconds: Freshness,
    /// Those assigned to this process.
    pub partitions: Vec<Partition>,
    /// Warnings and errors.
    pub recent_errors: Vec<Problem>,
}

/// A circuit breaker.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Breaker {
    /// What it guards, such as `clickhouse/orders`.
    pub target: String,
    /// `closed`, `half_open` or `open`.
    pub state: String,
    /// RFC 3339.
    pub since: String,
    /// What opened it.
    pub error: Option<String>,
}

/// Seconds from an event's time in Kafka until its row was acknowledged; `None` without events.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
pub struct Freshness {
    /// Median.
    pub p50: Option<f64>,
    /// All but one of a hundred.
    pub p99: Option<f64>,
}

/// A partition; what is not known yet is `None`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Partition {
    /// Its number in Kafka.
    pub partition: i32,
    /// `running`, `taking_over` and so on.
    pub state: String,
    /// Of its claim.
    pub epoch: Option<u64>,
    /// To be read next.
    pub next_offset: Option<i64>,
    /// To be read next after a restart.
    pub committed: Option<i64>,
    /// One past the last record of the partition.
    pub high_watermark: Option<i64>,
    /// Records behind the end of the partition.
    pub lag_events: Option<i64>,
    /// How old the oldest of them is, in seconds.
    pub lag_seconds: Option<f64>,
}

/// A warning or an error of the log.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Problem {
    /// RFC 3339; of the last time.
    pub at: String,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// As logged.
    pub message: String,
    /// How often it came besides.
    pub repeated: u64,
}

impl Answer {
    /// Whether it is ready, and every topic runs.
    pub fn is_well(&self) -> bool {
        self.ready && self.topics.iter().all(|topic| topic.state == "running")
    }
}

impl Topic {
    /// Of all reasons.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.values().sum()
    }

    /// The greatest of the partitions' lag, as far as it is known, in seconds.
    pub fn lag_seconds(&self) -> Option<f64> {
        self.partitions.iter().filter_map(|partition| partition.lag_seconds).max_by(f64::total_cmp)
    }
}
