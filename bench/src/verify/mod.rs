//! Compares what a run sent with what arrived: every column of every row, and every dead letter. It changes nothing and
//! trusts nothing that the consumer says of itself.

mod compare;
mod dead_letters;
mod ledger;
mod payments;
mod rollups;
mod rows;

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;
use serde::Serialize;

use crate::manifest::{Kind, Manifest};
use crate::orders::Orders;
use crate::payments::Payments;
use crate::stack::Stack;

use self::rollups::Compared;

pub use compare::RowChecker;
pub use dead_letters::{DeadLetter, DeadLetterChecker};
pub use ledger::Counts;
pub use payments::PaymentChecker;
pub use rows::{StoredPayment, StoredRow};

/// The verdict. A run is right when lost, doubled, wrong, the three dead-letter differences and rollups_wrong are all 0.
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
    /// Groups of rollups and of answers of named queries that were compared; 0 if there are no rollups, or if they hold more
    /// than this run.
    pub rollup_groups: u64,
    /// Of those the ones that are missing, too many, or have other figures.
    pub rollups_wrong: u64,
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
            self.rollups_wrong,
        ];
        differences == [0; 7]
    }
}

/// As many differences of each kind are told in words.
const SAMPLES: usize = 5;

/// Verifies a run against a table and the dead-letter topic.
pub async fn verify(stack: &Stack, manifest: &Manifest, table: &str) -> Result<Verdict> {
    let began = Instant::now();
    let mut compared = Compared::default();
    let rows = match manifest.kind {
        Kind::Orders => {
            let orders = Orders::new(manifest.seed, manifest.timeline);
            let mut rows = RowChecker::new(&orders, manifest);
            rows::read::<StoredRow<'_>>(stack, table, |row| rows.check(row)).await?;
            let rows = rows.finish();
            // What several servers answer would have to be added up first, as a Distributed table does.
            if let [server] = stack.servers() {
                let client = rows::client(stack, server)?;
                if table == manifest.kind.table() && rows.earlier == 0 && rollups::are_there(&client).await? {
                    compared = rollups::compare(&client, manifest, &orders).await?;
                }
            }
            rows
        }
        Kind::Payments => {
            let payments = Payments::new(manifest.seed, manifest.timeline);
            let mut rows = PaymentChecker::new(&payments, manifest);
            rows::read::<StoredPayment<'_>>(stack, table, |row| rows.check(row)).await?;
            rows.finish()
        }
    };

    let mut letters = DeadLetterChecker::new(manifest);
    dead_letters::read_all(stack, &manifest.dead_letter_topic, |letter| letters.check(letter))?;
    let letters = letters.finish();

    let samples: BTreeSet<String> =
        rows.samples.iter().chain(&letters.samples).chain(&compared.samples).cloned().collect();
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
        rollup_groups: compared.groups,
        rollups_wrong: compared.wrong,
        rows_of_earlier_runs: rows.earlier,
        samples: samples.into_iter().collect(),
        seconds: began.elapsed().as_secs_f64(),
    })
}
