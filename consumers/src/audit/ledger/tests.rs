//! The judgement, given ids and coordinates: each break by itself.

use super::*;
use crate::{
    audit::range::{Position, Wanted, range},
    config::StartOffset,
};

const WINDOW_MS: i64 = 1_000;

/// Partitions 0 and 1, offsets 0 to 100 each.
struct Audit {
    ledger: Ledger,
    bucket: Bucket,
    rows: Vec<(u128, Row)>,
}

fn at(partition: i32, offset: i64) -> Place {
    Place { partition, offset }
}

impl Audit {
    fn new() -> Self {
        let ranges = [0, 1].map(|partition| {
            let position = Position { partition, committed: Some(100), low: 0, high: 100 };
            range(position, Wanted::default(), StartOffset::Earliest, None).0
        });
        Self { ledger: Ledger::new(&ranges, WINDOW_MS, 10), bucket: Bucket::new(0), rows: Vec::new() }
    }

    fn event(mut self, id: u128, place: Place) -> Self {
        self.ledger.marks.set(place, Mark::Present);
        self.bucket.push(id, place);
        self
    }

    fn unreadable(mut self, place: Place) -> Self {
        self.ledger.marks.set(place, Mark::Present);
        self.ledger.marks.set(place, Mark::Unreadable);
        self
    }

    fn dead(mut self, place: Place) -> Self {
        self.ledger.marks.set(place, Mark::Dead);
        self
    }

    fn row(mut self, id: u128, place: Place, ingested_at_ms: i64) -> Self {
        self.rows.push((id, Row { place, ingested_at_ms }));
        self
    }

    /// What became of all records, and the findings.
    fn verdict(mut self) -> (Totals, Findings) {
        self.bucket.close();
        for (id, row) in &self.rows {
            // What lies outside the ranges is only found by asking for its id.
            if !self.ledger.marks.contains(row.place) {
                continue;
            }
            self.ledger.row(&mut self.bucket, *id, row.place);
        }
        self.rows.sort_unstable();
        let mut next = 0;
        loop {
            let (suspects, end) = self.bucket.suspects(next, 2);
            if suspects.is_empty() {
                break;
            }
            self.ledger.resolve(&mut self.bucket, &suspects, &self.rows);
            next = end;
        }
        self.ledger.settle(&self.bucket);
        let (totals, findings) = self.ledger.finish();
        let sum = totals.into_values().fold(Totals::default(), |sum, one| Totals {
            records: sum.records + one.records,
            rows: sum.rows + one.rows,
            duplicates: sum.duplicates + one.duplicates,
            dead_letters: sum.dead_letters + one.dead_letters,
            lost: sum.lost + one.lost,
        });
        assert_eq!(sum.records, sum.rows + sum.duplicates + sum.dead_letters + sum.lost, "{sum:?}");
        (sum, findings)
    }

    /// The one kind of finding that there is, with its only sample.
    fn finds(self, kind: Kind) -> Sample {
        let (_, findings) = self.verdict();
        let found: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| findings.count(*kind) > 0).collect();
        assert_eq!((found, findings.count(kind)), (vec![kind], 1), "{findings:?}");
        findings.all()[&kind].samples[0].clone()
    }

    fn finds_nothing(self) -> Totals {
        let (totals, findings) = self.verdict();
        assert!(Kind::ALL.iter().all(|kind| findings.count(*kind) == 0), "{findings:?}");
        totals
    }
}

#[test]
fn rows_duplicates_and_dead_letters_account_for_everything() {
    let totals = Audit::new()
        .event(1, at(0, 3))
        .event(1, at(0, 7))
        .event(2, at(1, 3))
        .unreadable(at(0, 4))
        .dead(at(0, 4))
        .event(3, at(0, 5)) // refused by a lookup
        .dead(at(0, 5))
        .row(1, at(0, 3), 0)
        .row(2, at(1, 3), 0)
        .finds_nothing();
    assert_eq!(totals, Totals { records: 5, rows: 2, duplicates: 1, dead_letters: 2, lost: 0 });
}

#[test]
fn an_event_without_a_row_or_a_dead_letter_is_lost() {
    let audit = Audit::new().event(1, at(0, 3)).event(2, at(1, 9)).row(1, at(0, 3), 0);
    let sample = audit.finds(Kind::Lost);
    assert_eq!((sample.id, sample.records), (Some(2), vec![at(1, 9)]));
    // The dead letter of one record says nothing of another one with the same id.
    let audit = Audit::new().event(1, at(0, 3)).event(1, at(0, 5)).dead(at(0, 3));
    assert_eq!(audit.finds(Kind::Lost).records, [at(0, 5)]);
}

#[test]
fn the_row_of_a_duplicate_may_lie_outside_the_range() {
    let totals = Audit::new().event(1, at(0, 3)).row(1, at(0, -8), 0).finds_nothing();
    assert_eq!((totals.duplicates, totals.lost), (1, 0));
}

#[test]
fn an_unreadable_record_needs_a_dead_letter_at_its_own_coordinates() {
    let sample = Audit::new().unreadable(at(1, 4)).dead(at(1, 5)).dead(at(0, 4)).finds(Kind::DeadLettersMissing);
    assert_eq!((sample.id, sample.records), (None, vec![at(1, 4)]));
}

#[test]
fn two_rows_of_one_id_are_doubled_inside_the_window_and_beyond_it_a_known_limit() {
    let audit = |gap| {
        let audit = Audit::new().event(1, at(0, 3)).event(1, at(0, 7));
        audit.row(1, at(0, 3), 500).row(1, at(0, 7), 500 + gap)
    };
    let sample = audit(WINDOW_MS).finds(Kind::Doubled);
    assert_eq!((sample.id, sample.rows.len(), sample.records), (Some(1), 2, vec![at(0, 3), at(0, 7)]));
    assert_eq!(audit(WINDOW_MS + 1).finds(Kind::BeyondWindow).detail.unwrap(), "inserted 1.001 s apart");
}

#[test]
fn two_rows_of_one_record_are_doubled_however_far_apart() {
    let audit = Audit::new().event(1, at(0, 3)).row(1, at(0, 3), 0).row(1, at(0, 3), 90 * WINDOW_MS);
    assert_eq!(audit.finds(Kind::Doubled).detail.unwrap(), "two rows of one record");
}

#[test]
fn one_id_in_two_partitions_is_told_whether_or_not_it_has_two_rows() {
    let audit = || Audit::new().event(1, at(0, 3)).event(1, at(1, 9)).row(1, at(0, 3), 0);
    assert_eq!(audit().finds(Kind::InTwoPartitions).records, [at(0, 3), at(1, 9)]);
    assert_eq!(audit().row(1, at(1, 9), 1).finds(Kind::InTwoPartitions).detail.unwrap(), "2 rows");
    // Also if one of the two is known by its row only.
    let audit = Audit::new().event(1, at(0, 3)).row(1, at(1, 200), 0);
    assert_eq!(audit.finds(Kind::InTwoPartitions).records, [at(0, 3)]);
}

#[test]
fn a_row_whose_id_is_not_at_its_offset_is_unexplained() {
    let audit = || Audit::new().event(1, at(0, 3)).row(1, at(0, 3), 0);
    let sample = audit().row(9, at(0, 3), 0).finds(Kind::RowsUnexplained);
    assert_eq!((sample.id, sample.records), (Some(9), vec![at(0, 3)]));
    assert!(sample.detail.unwrap().contains("another event"));
    assert!(audit().row(9, at(0, 4), 0).finds(Kind::RowsUnexplained).detail.unwrap().contains("no record"));
    assert_eq!(audit().row(9, at(0, 100), 0).finds_nothing().rows, 1, "past the range it is nobody's business yet");
}

#[test]
fn a_row_of_what_retention_has_deleted_is_not_held_against_anybody() {
    let mut audit = Audit::new().event(1, at(0, 50)).row(1, at(0, 50), 0).row(9, at(0, 3), 0);
    assert_eq!(audit.ledger.marks.deleted_below(0, 10), 10);
    audit.finds_nothing();
}

#[test]
fn a_dead_letter_beside_a_row_is_told_and_no_violation() {
    let audit = Audit::new().event(1, at(0, 3)).row(1, at(0, 3), 0).dead(at(0, 3));
    assert_eq!(audit.finds(Kind::DeadLetteredAndLanded).records, [at(0, 3)]);
    let audit = Audit::new().unreadable(at(0, 3)).row(1, at(0, 3), 0).dead(at(0, 3));
    assert_eq!(audit.finds(Kind::DeadLetteredAndLanded).records, [at(0, 3)]);
    let audit = Audit::new().unreadable(at(0, 3)).row(1, at(0, 3), 0);
    assert_eq!(audit.finds(Kind::UnreadableAndLanded).records, [at(0, 3)]);
}

#[test]
fn a_record_that_was_fetched_twice_counts_once() {
    let totals = Audit::new().event(1, at(0, 3)).event(1, at(0, 3)).row(1, at(0, 3), 0).finds_nothing();
    assert_eq!(totals.records, 1);
}

#[test]
fn buckets_split_any_ids_about_evenly() {
    // Random ids, and ids that differ only in the low, the high or the middle bits.
    let mixed = |n: u64| {
        u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n.wrapping_mul(0xd6e8_feb8_6659_fd93))
    };
    let shapes: [&dyn Fn(u64) -> u128; 4] =
        [&mixed, &|n| u128::from(n), &|n| u128::from(n) << 100, &|n| u128::from(n) << 48];
    for (shape, id) in shapes.iter().enumerate() {
        let mut counts = [0u32; 7];
        (0..7_000).for_each(|n| counts[bucket_of(id(n), 7) as usize] += 1);
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{shape}: {counts:?}");
    }
}
