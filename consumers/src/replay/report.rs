//! What a replay came to: text for people or JSON for machines.

use std::{collections::BTreeMap, fmt};

use millrace_pipeline::reason::{Reason, Rejection};
use serde::Serialize;
use serde_json::{Value, json};

use super::land::Landed;
use crate::audit::{Place, Range, note_of_passed_over};

/// What became of the records of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records of the section that were looked at.
    pub records: u64,
    /// Of them those whose id is in the table, perhaps as another record.
    pub present: u64,
    /// That were missing and are rows now; in a dry run those that would be.
    pub landed: u64,
    /// That cannot become rows. They are in the dead-letter topic since they were read first.
    pub unreadable: u64,
}

/// A record that cannot become a row, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// Code of the reason.
    pub reason: &'static str,
    /// What is wrong with it.
    pub detail: String,
}

/// What is counted on the way.
#[derive(Debug)]
pub(super) struct Tally {
    partitions: BTreeMap<i32, Totals>,
    reasons: BTreeMap<Reason, u64>,
    max_samples: usize,
    unreadable: Vec<Unreadable>,
    landed: Vec<Place>,
    /// Records that are none of the section's.
    pub(super) passed_over: u64,
    /// Before it, nothing of a partition is left to be landed.
    pub(super) next: BTreeMap<i32, i64>,
}

impl Tally {
    pub(super) fn new(max_samples: usize) -> Self {
        Self {
            partitions: BTreeMap::new(),
            reasons: BTreeMap::new(),
            max_samples,
            unreadable: Vec::new(),
            landed: Vec::new(),
            passed_over: 0,
            next: BTreeMap::new(),
        }
    }

    pub(super) fn of(&mut self, partition: i32) -> &mut Totals {
        self.partitions.entry(partition).or_default()
    }

    pub(super) fn unreadable(&mut self, place: Place, rejection: &Rejection) {
        self.of(place.partition).unreadable += 1;
        *self.reasons.entry(rejection.reason).or_default() += 1;
        if self.unreadable.len() < self.max_samples {
            let (reason, detail) = (rejection.reason.code(), rejection.detail.clone());
            self.unreadable.push(Unreadable { place, reason, detail });
        }
    }

    /// A batch is settled that brings partitions as far as `next`.
    pub(super) fn landed(&mut self, landed: Landed, next: BTreeMap<i32, i64>) {
        for place in &landed.rows {
            self.of(place.partition).landed += 1;
        }
        let room = self.max_samples - self.landed.len();
        self.landed.extend(landed.rows.into_iter().take(room));
        for (partition, rows) in landed.meanwhile {
            self.of(partition).present += rows;
        }
        self.next.extend(next);
    }
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Kafka topic of the events.
    pub topic: String,
    /// ClickHouse table, with its database.
    pub table: String,
    /// Topic whose letters were replayed, if it was letters.
    pub dead_letter_topic: Option<String>,
    /// Whether nothing was to be changed.
    pub dry_run: bool,
    /// What was to be looked at; empty for letters.
    pub ranges: Vec<Range>,
    /// By partition.
    pub totals: BTreeMap<i32, Totals>,
    /// Records that cannot become rows, by the code of their reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// The first of them.
    pub unreadable: Vec<Unreadable>,
    /// The first rows that landed, or would.
    pub landed: Vec<Place>,
    /// How often partitions were taken from their owner, who takes them back.
    pub hand_overs: u64,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Why it ended before its time.
    pub stopped: Option<String>,
    /// What is left, as (partition, first offset, the offset after the last).
    pub left: Vec<(i32, i64, i64)>,
    /// How long it took.
    pub took_ms: u64,
}

impl Report {
    pub(super) fn take(&mut self, tally: Tally, hand_overs: u64) {
        let Tally { partitions, reasons, unreadable, landed, passed_over, next, .. } = tally;
        (self.totals, self.unreadable, self.landed, self.hand_overs) = (partitions, unreadable, landed, hand_overs);
        self.notes.extend(note_of_passed_over(passed_over));
        self.reasons = reasons.into_iter().map(|(reason, count)| (reason.code(), count)).collect();
        let left = |range: &Range| {
            let from = next.get(&range.partition).map_or(range.from, |next| range.from.max(*next));
            (range.partition, from, range.to)
        };
        self.left = self.ranges.iter().map(left).filter(|(_, from, to)| from < to).collect();
    }

    /// Of all partitions together.
    pub fn total(&self) -> Totals {
        self.totals.values().fold(Totals::default(), |sum, one| Totals {
            records: sum.records + one.records,
            present: sum.present + one.present,
            landed: sum.landed + one.landed,
            unreadable: sum.unreadable + one.unreadable,
        })
    }

    /// One object in one line:
    ///
    /// ```text
    /// {"ok":bool, "topic":text, "table":text, "dead_letter_topic":text|null, "dry_run":bool, "records":n, "present":n,
    ///  "landed":n, "repeated":n, "unreadable":n,
    ///  "partitions":[{"partition":n,"records":n,"present":n,"landed":n,"repeated":n,"unreadable":n,"range":{…}|null}],
    ///  "reasons":{code:n}, "unreadable_samples":[{"partition","offset","reason","detail"}],
    ///  "landed_samples":[{"partition","offset"}], "hand_overs":n, "notes":[text], "stopped":text|null,
    ///  "left":[{"partition","from","to"}], "took_ms":n}
    /// ```
    ///
    /// In a dry run `landed` is what would land. `repeated` are further records of an id that has landed, and those that
    /// were not settled when it was stopped. `ok` says that it came to its end.
    pub fn to_json(&self) -> String {
        let range = |partition: i32| self.ranges.iter().find(|range| range.partition == partition);
        let partitions: Vec<Value> = self
            .totals
            .iter()
            .map(|(partition, totals)| {
                let Totals { records, present, landed, unreadable } = *totals;
                json!({
                    "partition": partition, "records": records, "present": present, "landed": landed,
                    "repeated": totals.repeated(), "unreadable": unreadable, "range": range(*partition),
                })
            })
            .collect();
        let left: Vec<Value> = (self.left.iter())
            .map(|(partition, from, to)| json!({ "partition": partition, "from": from, "to": to }))
            .collect();
        let total = self.total();
        json!({
            "ok": self.stopped.is_none(),
            "topic": self.topic,
            "table": self.table,
            "dead_letter_topic": self.dead_letter_topic,
            "dry_run": self.dry_run,
            "records": total.records,
            "present": total.present,
            "landed": total.landed,
            "repeated": total.repeated(),
            "unreadable": total.unreadable,
            "partitions": partitions,
            "reasons": self.reasons,
            "unreadable_samples": self.unreadable,
            "landed_samples": self.landed,
            "hand_overs": self.hand_overs,
            "notes": self.notes,
            "stopped": self.stopped,
            "left": left,
            "took_ms": self.took_ms,
        })
        .to_string()
    }
}

impl Totals {
    /// Records of an id of which another record has landed.
    fn repeated(&self) -> u64 {
        self.records.saturating_sub(self.present + self.landed + self.unreadable)
    }
}

impl fmt::Display for Report {
    /// The sum, a line for each partition, what cannot be read, notes, and what is left to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let source = self.dead_letter_topic.as_ref().unwrap_or(&self.topic);
        let seconds = self.took_ms as f64 / 1000.0;
        let rate = (total.records as f64 / seconds.max(0.001)) as u64;
        let landed = if self.dry_run { "would land" } else { "landed" };
        let dry = if self.dry_run { " (dry run: nothing was changed)" } else { "" };
        writeln!(
            f,
            "{source} → {}: {} rows {landed}{dry}, {} records in {seconds:.1} s, {rate}/s",
            self.table, total.landed, total.records
        )?;
        // Of a replay that was stopped, some are neither.
        let rest = if self.stopped.is_some() { "repeated or not settled" } else { "repeated" };
        for (partition, totals) in &self.totals {
            let Totals { records, present, landed, unreadable } = totals;
            let repeated = totals.repeated();
            let totals = format!(
                "{records} records: {present} there, {landed} missing, {repeated} {rest}, {unreadable} unreadable"
            );
            match self.ranges.iter().find(|range| range.partition == *partition) {
                Some(range) => {
                    writeln!(f, "  partition {partition}, offsets {} to {}: {totals}", range.from, range.to)?
                }
                None => writeln!(f, "  from partition {partition}: {totals}")?,
            }
        }
        if self.hand_overs > 0 {
            writeln!(
                f,
                "  claims made to land rows: {}; a live pipeline takes its partitions back by itself",
                self.hand_overs
            )?;
        }
        if total.unreadable > 0 {
            let reasons: Vec<String> = self.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
            writeln!(f, "  {} unreadable, and dead letters already: {}", total.unreadable, reasons.join(", "))?;
        }
        if self.dead_letter_topic.is_some() {
            for Unreadable { place, reason, detail } in &self.unreadable {
                writeln!(f, "  {reason}: {}[{}]@{}: {detail}", self.topic, place.partition, place.offset)?;
            }
            for place in &self.landed {
                writeln!(f, "  {landed}: {}[{}]@{}", self.topic, place.partition, place.offset)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        if self.stopped.is_some() {
            writeln!(f, "Not finished. The same command goes on: it skips what is in the table.")?;
        }
        if !self.left.is_empty() {
            writeln!(f, "To spare reading again, what is left:")?;
            for (partition, from, to) in &self.left {
                writeln!(f, "  --partition {partition} --from {from} --to {to}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut tally = Tally::new(2);
        *tally.of(0) = Totals { records: 100, present: 90, landed: 0, unreadable: 0 };
        tally.unreadable(Place { partition: 0, offset: 17 }, &Rejection::new(Reason::BadMagic, "byte 0x01"));
        let rows = (20..25).map(|offset| Place { partition: 0, offset }).collect();
        tally.landed(Landed { rows, meanwhile: [(0, 2)].into() }, [(0, 60)].into());
        let range = |partition| Range {
            partition,
            from: 10,
            to: 110,
            committed: Some(110),
            low: 0,
            high: 120,
            pending: 10,
            deleted_unread: 0,
        };
        let mut report = Report {
            topic: "orders".into(),
            table: "d.orders".into(),
            dead_letter_topic: None,
            dry_run: false,
            ranges: vec![range(0), range(1)],
            totals: BTreeMap::new(),
            reasons: BTreeMap::new(),
            unreadable: Vec::new(),
            landed: Vec::new(),
            hand_overs: 0,
            notes: Vec::new(),
            stopped: Some("interrupted".into()),
            left: Vec::new(),
            took_ms: 2_000,
        };
        tally.passed_over = 4;
        report.take(tally, 1);
        report
    }

    #[test]
    fn what_is_left_begins_where_nothing_is_open_any_more() {
        let report = report();
        assert_eq!(report.left, [(0, 60, 110), (1, 10, 110)]);
        let text = report.to_string();
        for words in [
            "orders → d.orders: 5 rows landed, 100 records in 2.0 s, 50/s",
            "partition 0, offsets 10 to 110: 100 records: 92 there, 5 missing, 2 repeated or not settled, 1 unreadable",
            "1 unreadable, and dead letters already: bad_magic 1",
            "note: 4 records are for other sections of the topic, or ignored, and were passed over",
            "--partition 0 --from 60 --to 110",
        ] {
            assert!(text.contains(words), "{words} in {text}");
        }
    }

    #[test]
    fn json_has_the_same_figures_in_one_line() {
        let json = report().to_json();
        assert!(!json.contains('\n'));
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["ok"], &value["landed"], &value["repeated"]), (&false.into(), &5.into(), &2.into()));
        assert_eq!(value["landed_samples"].as_array().unwrap().len(), 2);
        assert_eq!(value["partitions"][0]["range"]["to"], 110);
        assert_eq!(value["left"][0], json!({ "partition": 0, "from": 60, "to": 110 }));
    }
}
