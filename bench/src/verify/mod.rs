//! Compares what a run sent with what arrived: every column of every row, and every dead letter. It changes nothing and
//! trusts nothing that the consumer says of itself.

mod compare;
mod dead_letters;
mod rows;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::manifest::Manifest;
use crate::orders::Orders;
use crate::stack::Stack;

pub use compare::{Counts, RowChecker};
pub use dead_letters::{DeadLetter, DeadLetterChecker};
pub use rows::StoredRow;

/// The verdict. A run is right when lost, doubled, wrong and the three dead-letter differences are all 0.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Verdict {
    /// Records sent: events, duplicates and poison.
    pub produced: u64,
    /// Different valid events sent.
    pub unique_valid: u64,
    /// Rows of this run in the table.
    pub rows: u64,
    /// Duplicates sent that made no row.
    pub duplicates_dropped: u64,
    /// Dead letters of this run.
    pub dead_letters: u64,
    /// Unreadable records sent.
    pub poison_sent: u64,
    /// Events without a row.
    pub lost: u64,
    /// Rows beyond the first of their event.
    pub doubled: u64,
    /// Rows that differ from their event in some column, or belong to no event.
    pub wrong: u64,
    /// Unreadable records without a dead letter.
    pub dead_letters_missing: u64,
    /// Dead letters of records that were readable, and dead letters beyond the first of their record.
    pub dead_letters_unexpected: u64,
    /// Dead letters whose bytes, reason or headers are not what they must be.
    pub dead_letters_wrong: u64,
    /// Rows of earlier runs, not looked at.
    pub rows_of_earlier_runs: u64,
    /// The first few differences, in words.
    pub samples: Vec<String>,
    /// How long it took to verify.
    pub seconds: f64,
}

impl Verdict {
    /// Whether everything sent arrived as it must.
    pub fn is_right(&self) -> bool {
        let differences = [
            self.lost,
            self.doubled,
            self.wrong,
            self.dead_letters_missing,
            self.dead_letters_unexpected,
            self.dead_letters_wrong,
        ];
        differences == [0; 6]
    }
}

/// As many differences of each kind are told in words.
const SAMPLES: usize = 5;

/// Verifies a run against a table and the dead-letter topic.
pub async fn verify(stack: &Stack, manifest: &Manifest, table: &str) -> Result<Verdict> {
    let began = Instant::now();
    let orders = Orders::new(manifest.seed, manifest.timeline);
    let mut rows = RowChecker::new(&orders, manifest);
    rows::read_all(stack, table, |row| rows.check(row)).await?;
    let rows = rows.finish();

    let mut letters = DeadLetterChecker::new(manifest);
    dead_letters::read_all(stack, &manifest.dead_letter_topic, |letter| letters.check(letter))?;
    let letters = letters.finish();

    let samples: BTreeSet<String> = rows.samples.iter().chain(&letters.samples).cloned().collect();
    Ok(Verdict {
        produced: manifest.events + manifest.duplicates + manifest.poison.len() as u64,
        unique_valid: manifest.events,
        rows: rows.rows,
        duplicates_dropped: manifest.duplicates.saturating_sub(rows.doubled),
        dead_letters: letters.letters,
        poison_sent: manifest.poison.len() as u64,
        lost: rows.lost,
        doubled: rows.doubled,
        wrong: rows.wrong,
        dead_letters_missing: letters.missing,
        dead_letters_unexpected: letters.unexpected,
        dead_letters_wrong: letters.wrong,
        rows_of_earlier_runs: rows.earlier,
        samples: samples.into_iter().collect(),
        seconds: began.elapsed().as_secs_f64(),
    })
}
