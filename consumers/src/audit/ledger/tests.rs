//! The judgement, given ids and coordinates: each break by itself, and
//! seeded worlds against a naive count.

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
            // What is old and lies outside the ranges is only found by asking for its id.
            if row.ingested_at_ms < 0 && !self.ledger.marks.contains(row.place) {
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
    let totals = Audit::new().event(1, at(0, 3)).row(1, at(0, -8), -1).finds_nothing();
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
    assert!(sample.detail.unwrap().contains("another record"));
    assert!(audit().row(9, at(0, 4), 0).finds(Kind::RowsUnexplained).detail.unwrap().contains("no record"));
    assert_eq!(audit().row(9, at(0, 100), 0).finds_nothing().rows, 1, "past the range it is nobody's business yet");
}

#[test]
fn a_record_of_another_section_is_counted_once_and_held_against_nobody_but_a_row_of_its_offset() {
    let passed_over = |mut audit: Audit| {
        // Once in each pass.
        for place in [at(0, 4), at(1, 4), at(0, 4), at(1, 4)] {
            audit.ledger.passed_over(place);
        }
        assert_eq!(audit.ledger.passed_over, 2);
        audit
    };
    let audit = || passed_over(Audit::new().event(1, at(0, 3)).row(1, at(0, 3), 0));
    assert_eq!(audit().finds_nothing(), Totals { records: 1, rows: 1, ..Totals::default() });
    let sample = audit().row(9, at(0, 4), 0).finds(Kind::RowsUnexplained);
    assert_eq!(
        (sample.records, sample.detail.unwrap().as_str()),
        (vec![at(0, 4)], "Kafka has another record at this offset")
    );
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

/// splitmix64
fn random(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) % below
}

/// Few ids, many coincidences: what is found is what a count without passes, flags or sorting finds.
#[test]
fn seeded_worlds_are_judged_as_a_naive_count_judges_them() {
    let mut seen = [0u64; 6];
    for seed in 0..3_000u64 {
        let mut dice = seed;
        let mut audit = Audit::new();
        let mut events: Vec<(u128, Place)> = Vec::new();
        let (mut unreadable, mut dead) = (Vec::new(), Vec::new());
        for place in (0..2).flat_map(|partition| (0..6).map(move |offset| at(partition, offset))) {
            match random(&mut dice, 6) {
                0 => {}
                1 => {
                    audit = audit.unreadable(place);
                    unreadable.push(place);
                }
                _ => {
                    // Mostly an id of this partition.
                    let id =
                        random(&mut dice, 5) + if random(&mut dice, 8) == 0 { 0 } else { 10 * place.partition as u64 };
                    audit = audit.event(u128::from(id), place);
                    events.push((u128::from(id), place));
                }
            }
            if random(&mut dice, 4) == 0 {
                audit = audit.dead(place);
                dead.push(place);
            }
        }
        for (id, place) in events.clone() {
            for _ in 0..random(&mut dice, 5) / 2 {
                audit = audit.row(id, place, random(&mut dice, 4 * WINDOW_MS as u64) as i64);
            }
        }
        for _ in 0..random(&mut dice, 3) {
            let place = at(
                random(&mut dice, 2) as i32,
                random(&mut dice, 8) as i64 + if random(&mut dice, 4) == 0 { 100 } else { 0 },
            );
            audit = audit.row(u128::from(random(&mut dice, 16)), place, 0);
        }
        let rows = audit.rows.clone();

        let of = |id: u128| rows.iter().filter(move |(other, _)| *other == id).map(|(_, row)| *row);
        let landed = |id: u128, place| of(id).any(|row| row.place == place);
        let lost = events.iter().filter(|(id, place)| of(*id).count() == 0 && !dead.contains(place)).count();
        let both = events.iter().filter(|(id, place)| landed(*id, *place) && dead.contains(place)).count()
            + unreadable.iter().filter(|at| dead.contains(at) && rows.iter().any(|(_, row)| row.place == **at)).count();
        let no_letter =
            unreadable.iter().filter(|at| !dead.contains(at) && rows.iter().all(|(_, row)| row.place != **at));
        let foreign = rows.iter().filter(|(id, row)| {
            row.place.offset < 100 && !events.contains(&(*id, row.place)) && !unreadable.contains(&row.place)
        });
        let mut ids: Vec<u128> = events.iter().map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids.dedup();
        let spread = ids.iter().filter(|id| {
            let records = events.iter().filter(|(other, _)| other == *id).map(|(_, place)| place.partition);
            let all: Vec<i32> = records.chain(of(**id).map(|row| row.place.partition)).collect();
            all.iter().any(|partition| *partition != all[0])
        });
        let doubled = ids.iter().filter(|id| {
            let rows: Vec<Row> = of(**id).collect();
            (0..rows.len()).any(|a| {
                (0..a).any(|b| {
                    let (a, b) = (rows[a], rows[b]);
                    let near = (a.ingested_at_ms - b.ingested_at_ms).abs() <= WINDOW_MS;
                    a.place == b.place || (a.place.partition == b.place.partition && near)
                })
            })
        });
        let expected = [
            (Kind::Lost, lost),
            (Kind::DeadLettersMissing, no_letter.count()),
            (Kind::Doubled, doubled.count()),
            (Kind::InTwoPartitions, spread.count()),
            (Kind::RowsUnexplained, foreign.count()),
            (Kind::DeadLetteredAndLanded, both),
        ];
        let (_, findings) = audit.verdict();
        for (at, (kind, count)) in expected.into_iter().enumerate() {
            assert_eq!(findings.count(kind), count as u64, "{kind:?}, seed {seed}");
            seen[at] += count as u64;
        }
    }
    assert!(seen.iter().all(|count| *count > 500), "too few of a kind to prove anything: {seen:?}");
}
