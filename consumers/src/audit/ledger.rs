//! Sets the two sides against each other: the records of Kafka, and the rows of ClickHouse. Pure.
//!
//! Ids are compared in passes: one [`Bucket`] holds the events of one share of all ids, sorted, at 32 bytes each. Rows
//! stream past it. An id that has one row, of an event's own coordinates or of a duplicate's, is settled by that; only
//! what is strange (no row, more than one, two partitions) is a suspect, whose rows are then asked for one by one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    findings::{Findings, Kind, Row, Sample},
    marks::{Mark, Marks, Place},
    range::Range,
};

/// Memory of one event in bytes.
pub(super) const EVENT_BYTES: u64 = size_of::<Event>() as u64;

/// A row of the id was seen.
const HAS_ROW: u32 = 1;
/// The id needs to be looked at with all its rows.
const SUSPECT: u32 = 2;

/// A readable record. The flags concern its id, and are kept with the first event of it.
#[derive(Clone, Copy, Debug)]
struct Event {
    id: u128,
    offset: i64,
    partition: i32,
    flags: u32,
}

impl Event {
    fn place(&self) -> Place {
        Place { partition: self.partition, offset: self.offset }
    }
}

/// The share of all ids to which one belongs, of `buckets`. ClickHouse computes the same, see `table.rs`.
pub(super) fn bucket_of(id: u128, buckets: u64) -> u64 {
    ((id >> 64) as u64 ^ id as u64) % BUCKET_PRIME % buckets
}

/// Spreads ids whose low bits are always the same.
pub(super) const BUCKET_PRIME: u64 = 1_000_003;

/// The events of one share of all ids.
#[derive(Debug)]
pub(super) struct Bucket {
    events: Vec<Event>,
}

impl Bucket {
    /// With room for `capacity` events; they may be more.
    pub(super) fn new(capacity: usize) -> Self {
        Self { events: Vec::with_capacity(capacity) }
    }

    /// Adds an event.
    pub(super) fn push(&mut self, id: u128, place: Place) {
        if self.events.len() == self.events.capacity() {
            // Doubling could overrun the memory that passes are planned for.
            self.events.reserve_exact(self.events.len() / 16 + 1024);
        }
        self.events.push(Event { id, offset: place.offset, partition: place.partition, flags: 0 });
    }

    /// All events are there: `row` may be called. Ids that have no row yet or are in two partitions are suspects.
    pub(super) fn close(&mut self) {
        self.events.sort_unstable_by_key(|event| (event.id, event.partition, event.offset));
        // Fetching again may have brought a record twice.
        self.events.dedup_by_key(|event| (event.id, event.partition, event.offset));
        let mut at = 0;
        while at < self.events.len() {
            let group = self.group_at(at);
            let len = group.len();
            if group[0].partition != group[len - 1].partition {
                self.events[at].flags |= SUSPECT;
            }
            at += len;
        }
    }

    /// The events of the id of the event at a position, which is the first of them.
    fn group_at(&self, at: usize) -> &[Event] {
        let id = self.events[at].id;
        let len = self.events[at..].iter().take_while(|event| event.id == id).count();
        &self.events[at..at + len]
    }

    /// The position of the first event of an id.
    fn find(&self, id: u128) -> Option<usize> {
        let at = self.events.partition_point(|event| event.id < id);
        self.events.get(at).is_some_and(|event| event.id == id).then_some(at)
    }

    /// Up to `max` ids that need all their rows looked at, from a position on, and the position to go on from.
    pub(super) fn suspects(&self, mut at: usize, max: usize) -> (Vec<u128>, usize) {
        let mut suspects = Vec::new();
        while at < self.events.len() && suspects.len() < max {
            let group = self.group_at(at);
            let flags = group[0].flags;
            if flags & SUSPECT != 0 || flags & HAS_ROW == 0 {
                suspects.push(group[0].id);
            }
            at += group.len();
        }
        (suspects, at)
    }
}

/// What became of the records of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Records in the range, without those of aborted transactions.
    pub records: u64,
    /// Of them those that are a row.
    pub rows: u64,
    /// That were dropped, because another record of the same id is a row.
    pub duplicates: u64,
    /// That are dead letters.
    pub dead_letters: u64,
    /// That are none of these.
    pub lost: u64,
}

/// The judgement on one topic, as it comes together.
#[derive(Debug)]
pub(super) struct Ledger {
    /// What is known of each offset.
    pub marks: Marks,
    /// What was found.
    pub findings: Findings,
    /// Records of the ranges that are none of this section's.
    pub passed_over: u64,
    totals: BTreeMap<i32, Totals>,
    window_ms: i64,
}

impl Ledger {
    /// For these ranges; rows of one id that are further apart than `window_ms` are beyond the window.
    pub(super) fn new(ranges: &[Range], window_ms: i64, max_samples: usize) -> Self {
        let mut findings = Findings::new(max_samples);
        for range in ranges.iter().filter(|range| range.deleted_unread > 0) {
            let first = Place { partition: range.partition, offset: range.low - range.deleted_unread };
            let detail = format!("{} offsets from this one on", range.deleted_unread);
            findings.add(
                Kind::DeletedUnread,
                range.deleted_unread.unsigned_abs(),
                Sample::new(None, [first], &[]).with(detail),
            );
        }
        let totals = ranges.iter().map(|range| (range.partition, Totals::default())).collect();
        Self { marks: Marks::new(ranges), findings, passed_over: 0, totals, window_ms }
    }

    /// A record that is none of this section's, however often it is read.
    pub(super) fn passed_over(&mut self, place: Place) {
        self.passed_over += u64::from(self.marks.set(place, Mark::Present));
    }

    /// A row that streams past the bucket to which its id belongs.
    pub(super) fn row(&mut self, bucket: &mut Bucket, id: u128, place: Place) {
        let in_range = self.marks.contains(place);
        let Some(at) = bucket.find(id) else {
            if in_range {
                self.foreign(id, place);
            }
            return;
        };
        let group = bucket.group_at(at);
        let own = group.iter().any(|event| event.place() == place);
        let other_partition = group.iter().all(|event| event.partition != place.partition);
        let flags = &mut bucket.events[at].flags;
        if *flags & HAS_ROW != 0 || other_partition {
            *flags |= SUSPECT;
        }
        *flags |= HAS_ROW;
        if own {
            self.marks.set(place, Mark::Landed);
        } else if in_range {
            self.foreign(id, place);
        }
    }

    /// A row in the range whose id is not at its coordinates in Kafka.
    fn foreign(&mut self, id: u128, place: Place) {
        let why = if self.marks.has(place, Mark::Unreadable) {
            self.marks.set(place, Mark::Landed);
            return;
        } else if self.marks.may_be_deleted(place) {
            return;
        } else if self.marks.has(place, Mark::Present) {
            "Kafka has another record at this offset"
        } else {
            "Kafka has no record at this offset"
        };
        self.findings.add(Kind::RowsUnexplained, 1, Sample::new(Some(id), [place], &[]).with(why));
    }

    /// Suspects, and all the rows that the table has of them, sorted by id.
    pub(super) fn resolve(&mut self, bucket: &mut Bucket, suspects: &[u128], rows: &[(u128, Row)]) {
        for id in suspects {
            let Some(at) = bucket.find(*id) else { continue };
            let from = rows.partition_point(|(other, _)| other < id);
            let rows: Vec<Row> =
                rows[from..].iter().take_while(|(other, _)| other == id).map(|(_, row)| *row).collect();
            if !rows.is_empty() {
                bucket.events[at].flags |= HAS_ROW;
            }
            let records: Vec<Place> = bucket.group_at(at).iter().map(Event::place).collect();
            for (kind, detail) in judge(&records, &rows, self.window_ms) {
                let mut sample = Sample::new(Some(*id), records.iter().copied(), &rows);
                sample.detail = detail;
                self.findings.add(kind, 1, sample);
            }
        }
    }

    /// Every suspect of the bucket is resolved: what became of its events.
    pub(super) fn settle(&mut self, bucket: &Bucket) {
        let mut has_row = false;
        let mut previous = None;
        for event in &bucket.events {
            if previous != Some(event.id) {
                has_row = event.flags & HAS_ROW != 0;
                previous = Some(event.id);
            }
            let place = event.place();
            let (landed, dead) = (self.marks.has(place, Mark::Landed), self.marks.has(place, Mark::Dead));
            let totals = self.totals.entry(event.partition).or_default();
            totals.records += 1;
            if landed {
                totals.rows += 1;
            } else if dead {
                totals.dead_letters += 1;
            } else if has_row {
                totals.duplicates += 1;
            } else {
                totals.lost += 1;
                self.findings.add(Kind::Lost, 1, Sample::new(Some(event.id), [place], &[]));
            }
            if landed && dead {
                self.findings.add(Kind::DeadLetteredAndLanded, 1, Sample::new(Some(event.id), [place], &[]));
            }
        }
    }

    /// Every bucket is settled: what became of the records that cannot be read, and the totals by partition.
    pub(super) fn finish(mut self) -> (BTreeMap<i32, Totals>, Findings) {
        for place in self.marks.places(Mark::Unreadable) {
            let totals = self.totals.entry(place.partition).or_default();
            totals.records += 1;
            let sample = || Sample::new(None, [place], &[]);
            match (self.marks.has(place, Mark::Landed), self.marks.has(place, Mark::Dead)) {
                (true, dead) => {
                    totals.rows += 1;
                    let kind = if dead { Kind::DeadLetteredAndLanded } else { Kind::UnreadableAndLanded };
                    self.findings.add(kind, 1, sample());
                }
                (false, true) => totals.dead_letters += 1,
                (false, false) => {
                    totals.lost += 1;
                    self.findings.add(Kind::DeadLettersMissing, 1, sample());
                }
            }
        }
        (self.totals, self.findings)
    }
}

/// What is wrong with one id, of which these are the records in the ranges and all the rows.
fn judge(records: &[Place], rows: &[Row], window_ms: i64) -> Vec<(Kind, Option<String>)> {
    let mut found = Vec::new();
    let mut partitions: Vec<i32> =
        records.iter().copied().chain(rows.iter().map(|row| row.place)).map(|place| place.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    if partitions.len() > 1 {
        let detail = match rows.len() {
            0 | 1 => None,
            rows => Some(format!("{rows} rows")),
        };
        found.push((Kind::InTwoPartitions, detail));
    }
    let mut by_place = rows.to_vec();
    by_place.sort_unstable();
    if by_place.windows(2).any(|pair| pair[0].place == pair[1].place) {
        // Kafka's own replays are covered however old they are.
        found.push((Kind::Doubled, Some("two rows of one record".to_owned())));
        return found;
    }
    let gap = partitions.iter().filter_map(|partition| {
        let of_partition = rows.iter().filter(|row| row.place.partition == *partition);
        let mut times: Vec<i64> = of_partition.map(|row| row.ingested_at_ms).collect();
        times.sort_unstable();
        times.windows(2).map(|pair| pair[1] - pair[0]).min()
    });
    if let Some(gap) = gap.min() {
        let kind = if gap <= window_ms { Kind::Doubled } else { Kind::BeyondWindow };
        found.push((kind, Some(format!("inserted {:.3} s apart", gap as f64 / 1000.0))));
    }
    found
}

#[cfg(test)]
mod tests;
