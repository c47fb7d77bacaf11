//! What a topic's pipeline is told: which fields become which columns, what is looked up where, and the limits.
//!
//! These are validated values, made by the configuration and never read from a file here.

use std::{fmt, str::FromStr, time::Duration};

/// One topic's way into one ClickHouse table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Kafka topic the events are read from.
    pub topic: String,
    /// Event field that identifies an event; an Avro `uuid`, `FixedSizeBinary(16)` once decoded.
    pub id: FieldPath,
    /// ClickHouse columns in the order in which they are sent.
    pub columns: Vec<ColumnSpec>,
    /// Lookups into reference topics.
    pub lookups: Vec<LookupSpec>,
    /// Bounds of the deduplication index.
    pub dedup: DedupLimits,
    /// When a batch is closed and sent.
    pub batch: BatchLimits,
    /// Which of the topic's records these are, where it carries several types of event.
    pub route: Option<RouteSpec>,
}

/// Which records of a topic with several types of event go into one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteSpec {
    /// Full name of the Avro record that this table is for.
    pub record: String,
    /// Full names of those that other tables are for.
    pub elsewhere: Vec<String>,
    /// What happens to all other records.
    pub others: Others,
}

/// What happens to records that no table is for, and to those whose type cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// They become dead letters.
    DeadLetter,
    /// Those of other types are passed over; those whose type cannot be told become dead letters.
    Ignore,
    /// Whoever fills another table of the topic sees to them.
    Elsewhere,
}

/// One ClickHouse column and where its values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSpec {
    /// Column name in ClickHouse; `items.sku` for a column of a `Nested`.
    pub column: String,
    /// Where the values come from.
    pub source: Source,
}

/// Where a column's values come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field of the event.
    Event(FieldPath),
    /// A field of the reference record that a lookup found.
    Lookup {
        /// Position in [`TopicSpec::lookups`].
        lookup: usize,
        /// Field of the reference record.
        field: FieldPath,
    },
}

/// A lookup of event values in a compacted reference topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupSpec {
    /// Name by which columns refer to it, as in `customer:segment`.
    pub name: String,
    /// The compacted topic.
    pub topic: String,
    /// Field of the reference record that is its key; a string.
    pub key: FieldPath,
    /// Event field that holds the key to look for; a string, perhaps inside an array.
    pub on: FieldPath,
    /// What happens to an event whose key is not there.
    pub miss: MissPolicy,
}

/// What happens to an event whose lookup finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissPolicy {
    /// The enriched columns are null.
    Null,
    /// The event's partition waits for the reference record, then falls back to null.
    Wait {
        /// Longest wait for one event.
        timeout: Duration,
    },
    /// The event goes to the dead-letter topic with reason `lookup_missed`.
    DeadLetter,
}

/// Bounds of the deduplication index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupLimits {
    /// How long an id is remembered, by ingestion time.
    pub window: Duration,
    /// Most ids kept over all partitions of the process; past it the oldest are let go early, which is counted and logged.
    pub max_ids: usize,
}

/// When a batch is closed and sent; whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Rows in one insert; at most [`BatchLimits::MAX_ROWS`].
    pub max_rows: usize,
    /// Bytes of the values in one insert; at most [`BatchLimits::MAX_BYTES`].
    pub max_bytes: usize,
    /// Age of the oldest event in the batch, at most: while inserts are quick, batches are sent at a quarter of it.
    pub max_age: Duration,
}

impl BatchLimits {
    /// ClickHouse cuts an insert into blocks of 1,048,449 rows; a deduplication token holds for one block.
    pub const MAX_ROWS: usize = 1_000_000;
    /// ClickHouse cuts an insert into blocks of 268 MB.
    pub const MAX_BYTES: usize = 240 << 20;
}

/// Dot-separated path to a field: `data.shipping.country`. Arrays on the way are entered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// The names on the way, outermost first; never empty.
    pub fn segments(&self) -> &[String] {
        &self.0
    }
}

/// A field path with an empty segment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("field path {0:?} has an empty segment; expected names joined by dots, as in `data.customer_id`")]
pub struct BadFieldPath(String);

impl FromStr for FieldPath {
    type Err = BadFieldPath;

    fn from_str(text: &str) -> Result<Self, BadFieldPath> {
        let segments: Vec<String> = text.split('.').map(str::to_owned).collect();
        if segments.iter().any(|segment| segment.trim().is_empty()) {
            return Err(BadFieldPath(text.to_owned()));
        }
        Ok(Self(segments))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}
