//! What an audit came to: text for people or JSON for machines.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    findings::{Findings, Kind, Sample},
    ledger::Totals,
    marks::Place,
    range::Range,
};

/// What was asked for, topic by topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// In the order of the configuration.
    pub topics: Vec<TopicReport>,
}

/// What became of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicReport {
    /// Kafka topic.
    pub topic: String,
    /// What text calls it: the topic, and the table where several sections share it.
    pub label: String,
    /// ClickHouse table.
    pub table: String,
    /// Topic of its dead letters.
    pub dead_letter_topic: String,
    /// By partition.
    pub partitions: Vec<PartitionReport>,
    /// Dead letters of a record that has an earlier one; at-least-once by contract.
    pub dead_letters_repeated: u64,
    /// What was found.
    pub findings: Findings,
    /// What a person should know of how it was found.
    pub notes: Vec<String>,
    /// How often the range was read from Kafka.
    pub passes: u64,
    /// How long it took.
    pub took_ms: u64,
}

/// What became of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    /// What was looked at.
    #[serde(flatten)]
    pub range: Range,
    /// What became of its records.
    #[serde(flatten)]
    pub totals: Totals,
}

impl Report {
    /// How much breaks the guarantee or what it rests on; with none, every event is accounted for.
    pub fn violations(&self) -> u64 {
        self.topics.iter().map(|topic| topic.findings.violations()).sum()
    }

    /// One object in one line:
    ///
    /// ```text
    /// {"ok":bool, "violations":n, "topics":[{"topic","table","dead_letter_topic","ok":bool,
    ///   "partitions":[{"partition","from","to","committed":n|null,"low","high","pending","deleted_unread",
    ///                  "records","rows","duplicates","dead_letters","lost"}],
    ///   "dead_letters_repeated":n,
    ///   "findings":{"lost":{"violation":bool,"count":n,"samples":[{"records":[{"partition","offset"}],
    ///               "rows":[{"partition","offset","ingested_at_ms"}],"id":uuid|null,"detail"?}]}, …},
    ///   "notes":[text], "passes":n, "took_ms":n}]}
    /// ```
    ///
    /// `from` to `to` (not included) is what had to be settled, `pending` counts offsets beyond it. Every finding is
    /// there, also those with count 0.
    pub fn to_json(&self) -> String {
        let topics: Vec<Value> = self.topics.iter().map(TopicReport::to_json).collect();
        json!({ "ok": self.violations() == 0, "violations": self.violations(), "topics": topics }).to_string()
    }
}

impl TopicReport {
    /// Whether there was no offset that had to be settled.
    fn is_empty(&self) -> bool {
        self.partitions.iter().all(|partition| partition.range.offsets() == 0)
    }

    fn to_json(&self) -> Value {
        let findings: Map<String, Value> = self
            .findings
            .all()
            .iter()
            .map(|(kind, found)| {
                let value = json!({
                    "violation": kind.is_violation(), "count": found.count, "samples": found.samples,
                });
                (kind.name().to_owned(), value)
            })
            .collect();
        json!({
            "topic": self.topic,
            "table": self.table,
            "dead_letter_topic": self.dead_letter_topic,
            "ok": self.findings.violations() == 0,
            "partitions": self.partitions,
            "dead_letters_repeated": self.dead_letters_repeated,
            "findings": findings,
            "notes": self.notes,
            "passes": self.passes,
            "took_ms": self.took_ms,
        })
    }
}

impl fmt::Display for Report {
    /// A line for each partition, one for each kind of finding with its samples below, and the sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for topic in &self.topics {
            write!(f, "{topic}")?;
        }
        match self.violations() {
            0 if self.topics.iter().all(TopicReport::is_empty) => {
                writeln!(f, "No committed offset lies in the range: there was nothing to account for.")
            }
            0 => writeln!(f, "All accounted for."),
            1 => writeln!(f, "1 violation."),
            violations => writeln!(f, "{violations} violations."),
        }
    }
}

impl fmt::Display for TopicReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.label;
        for PartitionReport { range, totals } in &self.partitions {
            let Totals { records, rows, duplicates, dead_letters, lost } = totals;
            let mark = if *lost > 0 { '✗' } else { '✓' };
            writeln!(
                f,
                "{mark} {name}[{}] offsets {} to {}: {records} records = {rows} rows + {duplicates} duplicates + {dead_letters} dead letters + {lost} lost; {} offsets pending",
                range.partition, range.from, range.to, range.pending
            )?;
        }
        for note in &self.notes {
            writeln!(f, "– {name} {note}")?;
        }
        for (kind, found) in self.findings.all().iter().filter(|(_, found)| found.count > 0) {
            let mark = if kind.is_violation() { '✗' } else { '–' };
            writeln!(f, "{mark} {name} {}: {} {}", kind.name(), found.count, meaning(*kind))?;
            for sample in &found.samples {
                writeln!(f, "    {}", line(&self.topic, sample))?;
            }
            let more = found.count.saturating_sub(found.samples.len() as u64);
            if more > 0 && *kind != Kind::DeletedUnread {
                writeln!(f, "    … and {more} more")?;
            }
        }
        Ok(())
    }
}

fn line(topic: &str, sample: &Sample) -> String {
    let place = |place: &Place| format!("{topic}[{}]@{}", place.partition, place.offset);
    let mut parts: Vec<String> = vec![sample.records.iter().map(place).collect::<Vec<_>>().join(", ")];
    if let Some(id) = sample.id {
        parts.push(format!("id {}", uuid::Uuid::from_u128(id)));
    }
    if sample.rows.len() > 1 {
        let rows: Vec<String> = sample.rows.iter().map(|row| place(&row.place)).collect();
        parts.push(format!("rows of {}", rows.join(", ")));
    }
    parts.extend(sample.detail.clone());
    parts.retain(|part| !part.is_empty());
    parts.join(": ")
}

/// What it is, and what to do.
fn meaning(kind: Kind) -> &'static str {
    match kind {
        Kind::Lost => {
            "events are neither a row nor a dead letter, though the committed offset is past them: to have them read again, stop the group, set its offset back to the first of them (`kafka-consumer-groups.sh --reset-offsets --to-offset N --execute`) and start it; what is in the table is dropped"
        }
        Kind::DeadLettersMissing => {
            "records cannot be read and have no dead letter, though the committed offset is past them: to have them read again, set the group's offset back as for lost events; if the dead-letter topic has let old ones go, that is why"
        }
        Kind::DeletedUnread => {
            "offsets were deleted by Kafka's retention before the group had read them: those events are gone; raise retention.ms and retention.bytes above the longest outage"
        }
        Kind::Doubled => {
            "ids have more than one row though they came within dedup.window: look in the logs for `ids were forgotten before the end of the window` (dedup.max_ids), run `millrace check` for the table's deduplication window, and look for another writer; remove the later row with DELETE"
        }
        Kind::InTwoPartitions => {
            "ids are in two Kafka partitions, where each counts as new: give events of one id one key, and do not add partitions while events come again"
        }
        Kind::RowsUnexplained => {
            "rows have coordinates at which Kafka has another record or none: the topic was recreated, the section was for another type of event before, or somebody else writes the table"
        }
        Kind::BeyondWindow => {
            "ids came again after dedup.window and have another row, as documented: raise dedup.window if that is too many"
        }
        Kind::DeadLetteredAndLanded => {
            "records are a dead letter and a row: read again after a crash, when schema or lookup were there; the row counts, and the dead letter needs nothing"
        }
        Kind::UnreadableAndLanded => {
            "records have a row but cannot be read any more: is their schema gone from the registry? Their ids were not compared"
        }
    }
}
