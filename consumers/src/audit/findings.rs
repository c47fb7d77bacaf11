//! What an audit may find, counted, with a few samples of each. Pure.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::marks::Place;

/// Places and rows shown of one sample.
const SHOWN: usize = 4;

/// What may be found, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A readable event that is neither a row nor a dead letter.
    Lost,
    /// A record that cannot be read, without a dead letter and without a row.
    DeadLettersMissing,
    /// Offsets that retention deleted before the group had read them.
    DeletedUnread,
    /// Rows of one id, from one Kafka partition, not further apart than the window; or two rows of one record.
    Doubled,
    /// One id in two Kafka partitions.
    InTwoPartitions,
    /// A row of coordinates at which Kafka has another record, or none.
    RowsUnexplained,
    /// Rows of one id, of different records of one partition, further apart than the window.
    BeyondWindow,
    /// A record that is a dead letter and a row.
    DeadLetteredAndLanded,
    /// A record that cannot be read now, of which there is a row.
    UnreadableAndLanded,
}

impl Kind {
    /// In the order in which they are told.
    pub const ALL: [Self; 9] = [
        Self::Lost,
        Self::DeadLettersMissing,
        Self::DeletedUnread,
        Self::Doubled,
        Self::InTwoPartitions,
        Self::RowsUnexplained,
        Self::BeyondWindow,
        Self::DeadLetteredAndLanded,
        Self::UnreadableAndLanded,
    ];

    /// Whether the guarantee, or what it rests on, is broken; the others are limits that are documented.
    pub fn is_violation(self) -> bool {
        self <= Self::RowsUnexplained
    }

    /// Its name in JSON and in text.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::DeadLettersMissing => "dead_letters_missing",
            Self::DeletedUnread => "deleted_unread",
            Self::Doubled => "doubled",
            Self::InTwoPartitions => "in_two_partitions",
            Self::RowsUnexplained => "rows_unexplained",
            Self::BeyondWindow => "beyond_window",
            Self::DeadLetteredAndLanded => "dead_lettered_and_landed",
            Self::UnreadableAndLanded => "unreadable_and_landed",
        }
    }
}

/// A row as ClickHouse has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Row {
    /// Where its event was read.
    #[serde(flatten)]
    pub place: Place,
    /// When it was inserted, in milliseconds since 1970.
    pub ingested_at_ms: i64,
}

/// One thing that was found, so that a person can look at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Sample {
    /// Coordinates in Kafka, the first few; of an unexplained row those that it claims.
    pub records: Vec<Place>,
    /// Rows in ClickHouse, the first few.
    pub rows: Vec<Row>,
    /// Id of the event, if it can be told.
    #[serde(serialize_with = "uuid")]
    pub id: Option<u128>,
    /// What is particular.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Sample {
    /// Of an id, with all its records and rows, of which the first few are kept.
    pub fn new(id: Option<u128>, records: impl IntoIterator<Item = Place>, rows: &[Row]) -> Self {
        let records = records.into_iter().take(SHOWN).collect();
        Self { records, rows: rows.iter().copied().take(SHOWN).collect(), id, detail: None }
    }

    /// With what is particular.
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

fn uuid<S: Serializer>(id: &Option<u128>, serializer: S) -> Result<S::Ok, S::Error> {
    id.map(|id| uuid::Uuid::from_u128(id).to_string()).serialize(serializer)
}

/// How many of one kind, and the samples with the least coordinates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    /// How many.
    pub count: u64,
    /// The first few, by coordinates.
    pub samples: Vec<Sample>,
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    max_samples: usize,
    found: BTreeMap<Kind, Found>,
}

impl Findings {
    /// Nothing yet; of each kind at most `max_samples` are kept.
    pub fn new(max_samples: usize) -> Self {
        Self { max_samples, found: Kind::ALL.into_iter().map(|kind| (kind, Found::default())).collect() }
    }

    /// Adds `count` of a kind, for which `sample` stands.
    pub fn add(&mut self, kind: Kind, count: u64, sample: Sample) {
        let found = self.found.entry(kind).or_default();
        found.count += count;
        let at = found.samples.partition_point(|other| *other < sample);
        if at < self.max_samples {
            found.samples.insert(at, sample);
            found.samples.truncate(self.max_samples);
        }
    }

    /// Of one kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.found.get(&kind).map_or(0, |found| found.count)
    }

    /// Of each kind, in order.
    pub fn all(&self) -> &BTreeMap<Kind, Found> {
        &self.found
    }

    /// How much breaks the guarantee or what it rests on.
    pub fn violations(&self) -> u64 {
        self.found.iter().filter(|(kind, _)| kind.is_violation()).map(|(_, found)| found.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_are_those_of_the_least_coordinates_in_whatever_order_they_come() {
        let sample = |offset| Sample::new(Some(7), [Place { partition: 0, offset }], &[]);
        let mut findings = Findings::new(3);
        for offset in [50, 10, 40, 20, 30] {
            findings.add(Kind::Lost, 1, sample(offset));
        }
        let lost = &findings.all()[&Kind::Lost];
        assert_eq!((lost.count, &lost.samples[..]), (5, &[10, 20, 30].map(sample)[..]));
    }

    #[test]
    fn a_limit_that_is_documented_is_no_violation() {
        let mut findings = Findings::new(0);
        findings.add(Kind::BeyondWindow, 3, Sample::new(None, [], &[]));
        findings.add(Kind::DeadLetteredAndLanded, 1, Sample::new(None, [], &[]));
        assert_eq!(findings.violations(), 0);
        findings.add(Kind::RowsUnexplained, 2, Sample::new(None, [], &[]));
        assert_eq!(findings.violations(), 2);
    }
}
