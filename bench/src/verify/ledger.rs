//! Which events have a row: one bit per event, and the counting of what is lost, doubled and wrong. It knows no column.

use uuid::Uuid;

use super::SAMPLES;
use crate::manifest::Manifest;

/// What the rows say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows of this run.
    pub rows: u64,
    /// Rows of earlier runs, passed over.
    pub earlier: u64,
    /// Events without a row.
    pub lost: u64,
    /// Rows beyond the first of their event.
    pub doubled: u64,
    /// Rows that differ from their event, or belong to none.
    pub wrong: u64,
    /// The first few differences of each kind, in words.
    pub samples: Vec<String>,
}

/// Looks at each row once.
#[derive(Debug)]
pub(super) struct Ledger<'m> {
    manifest: &'m Manifest,
    id_column: &'static str,
    seen: Vec<u64>,
    counts: Counts,
}

/// Where a row says that it comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coordinates {
    pub(super) id: Uuid,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds since 1970.
    pub(super) ingested_at: i64,
}

impl<'m> Ledger<'m> {
    /// One that has seen nothing yet; the column with the ids is for the samples.
    pub(super) fn new(manifest: &'m Manifest, id_column: &'static str) -> Self {
        let seen = vec![0; manifest.events.div_ceil(64) as usize];
        Self { manifest, id_column, seen, counts: Counts::default() }
    }

    /// Looks at a row; `number` is what its id was made from, if it was. The number of the event that it has to show, or
    /// `None` if there is nothing to compare it with.
    pub(super) fn row(&mut self, row: Coordinates, number: Option<u64>) -> Option<u64> {
        let Coordinates { id, partition, offset, .. } = row;
        let column = self.id_column;
        if self.manifest.begin_offsets.get(&partition).is_some_and(|&begin| offset < begin) {
            self.counts.earlier += 1;
            return None;
        }
        self.counts.rows += 1;
        let Some(n) = number.filter(|&n| n < self.manifest.events) else {
            self.wrong(|| format!("wrong: the row with {column} {id} belongs to no event of seed and number"));
            return None;
        };
        let (word, bit) = ((n / 64) as usize, 1 << (n % 64));
        if self.seen[word] & bit != 0 {
            self.counts.doubled += 1;
            if self.counts.doubled <= SAMPLES as u64 {
                self.counts.samples.push(format!(
                    "doubled: event {n} ({column} {id}) has another row, from partition {partition}, offset {offset}"
                ));
            }
        }
        self.seen[word] |= bit;
        Some(n)
    }

    /// The row of event `n` differs from it, if it does.
    pub(super) fn compared(&mut self, n: u64, row: Coordinates, difference: Option<String>) {
        let Coordinates { id, partition, offset, ingested_at } = row;
        let column = self.id_column;
        let end = self.manifest.end_offsets.get(&partition).copied();
        let difference = difference
            .or_else(|| {
                let inside = end.is_some_and(|end| (0..end).contains(&offset));
                (!inside).then(|| format!("_partition {partition}, _offset {offset} was not written by this run"))
            })
            .or_else(|| (ingested_at <= 0).then(|| format!("_ingested_at is {ingested_at} ms since 1970")));
        if let Some(difference) = difference {
            self.wrong(|| format!("wrong: event {n} ({column} {id}): {difference}"));
        }
    }

    /// Counts what is missing; `id` tells the id of an event.
    pub(super) fn finish(mut self, id: impl Fn(u64) -> Uuid) -> Counts {
        for n in 0..self.manifest.events {
            if self.seen[(n / 64) as usize] & (1 << (n % 64)) == 0 {
                self.counts.lost += 1;
                if self.counts.lost <= SAMPLES as u64 {
                    let sample = format!("lost: event {n} ({} {}) has no row", self.id_column, id(n));
                    self.counts.samples.push(sample);
                }
            }
        }
        self.counts
    }

    fn wrong(&mut self, sample: impl FnOnce() -> String) {
        self.counts.wrong += 1;
        if self.counts.wrong <= SAMPLES as u64 {
            self.counts.samples.push(sample());
        }
    }
}
