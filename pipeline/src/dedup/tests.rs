use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const WINDOW_MS: Millis = 1000;
const GENERATION_MS: Millis = WINDOW_MS / 8;

fn index(max_generation_ids: usize) -> PartitionIndex {
    PartitionIndex::new(Duration::from_millis(WINDOW_MS), max_generation_ids)
}

#[derive(Clone, Debug)]
enum Action {
    Insert(u128),
    Load { id: u128, age_ms: Millis },
    Pass(Millis),
    Expire,
    ExpireOldest,
}

fn action() -> impl Strategy<Value = Action> {
    let id = 0u128..40;
    prop_oneof![
        8 => id.clone().prop_map(Action::Insert),
        4 => (id, 0..WINDOW_MS * 2).prop_map(|(id, age_ms)| Action::Load { id, age_ms }),
        6 => (0..WINDOW_MS / 3).prop_map(Action::Pass),
        3 => Just(Action::Expire),
        1 => Just(Action::ExpireOldest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The oracle knows for each id when it was born. An id that the index let go early may be missing from it.
    #[test]
    fn the_index_agrees_with_a_map_of_birth_times(
        actions in prop::collection::vec(action(), 1..120), start in 0..3 * WINDOW_MS, max_generation_ids in 1usize..30,
    ) {
        let mut index = index(max_generation_ids);
        // Times are signed here: ids are loaded that are older than the clock.
        let mut born: HashMap<u128, i64> = HashMap::new();
        let mut now = start;
        let mut let_go_early = false;
        for action in actions {
            match action {
                Action::Insert(id) => {
                    let known = index.contains(id);
                    prop_assert_eq!(index.insert(id, now), !known);
                    if !known {
                        prop_assert!(
                            let_go_early || born.get(&id).is_none_or(|at| now as i64 - at > WINDOW_MS as i64),
                            "id {} was forgotten inside the window", id
                        );
                        born.insert(id, now as i64);
                    } else {
                        prop_assert!(born.contains_key(&id), "id {} was never there", id);
                    }
                }
                Action::Load { id, age_ms } => {
                    let known = index.contains(id);
                    index.load(&[(id, age_ms)], now);
                    if !known {
                        born.insert(id, now as i64 - age_ms.min(WINDOW_MS) as i64);
                    }
                    prop_assert!(index.contains(id));
                }
                Action::Pass(ms) => now += ms,
                Action::Expire => {
                    index.expire(now);
                    for (id, at) in &born {
                        let overdue = now as i64 - at > (WINDOW_MS + GENERATION_MS) as i64;
                        prop_assert!(!overdue || !index.contains(*id), "id {} outlived window and generation", id);
                    }
                }
                Action::ExpireOldest => {
                    let before = index.len();
                    let gone = index.expire_oldest();
                    prop_assert_eq!(index.len(), before - gone);
                    let_go_early |= gone > 0;
                }
            }
            let held = (0..40).filter(|id| index.contains(*id)).count();
            prop_assert_eq!(index.len(), held, "the length is that of what is there");
            prop_assert_eq!(index.is_empty(), held == 0);
            for id in (0..40).filter(|id| index.contains(*id)) {
                prop_assert!(born.contains_key(&id), "id {} was never there", id);
            }
            if !let_go_early {
                for (id, _) in born.iter().filter(|(_, at)| now as i64 - **at <= WINDOW_MS as i64) {
                    prop_assert!(index.contains(*id), "id {} was forgotten inside the window", id);
                }
            }
            let closes: Vec<Millis> = index.generations.queue.iter().map(|generation| generation.closes_at).collect();
            prop_assert!(closes.is_sorted_by(|newer, older| newer >= older), "newest first: {:?}", closes);
        }
    }

    #[test]
    fn ids_loaded_in_any_order_of_age_are_forgotten_in_the_order_of_age(
        ages in prop::collection::vec(0..=WINDOW_MS, 1..60), now in 0..3 * WINDOW_MS,
    ) {
        let mut index = index(usize::MAX);
        for (id, age_ms) in (0u128..).zip(&ages) {
            index.load(&[(id, *age_ms)], now);
        }
        for later in (0..=2 * WINDOW_MS).step_by(50) {
            index.expire(now + later);
            for (id, age_ms) in (0u128..).zip(&ages) {
                let age_ms = age_ms + later;
                prop_assert!(age_ms > WINDOW_MS || index.contains(id), "{} is {} ms old", id, age_ms);
                prop_assert!(age_ms <= WINDOW_MS + GENERATION_MS || !index.contains(id), "{} is {} ms old", id, age_ms);
            }
        }
        prop_assert!(index.is_empty());
    }
}

#[test]
fn ids_that_differ_in_one_bit_are_different() {
    let mut index = index(1 << 20);
    assert!(index.insert(1 << 127, 0));
    for bit in 0..127 {
        assert!(index.insert(1 << 127 | 1 << bit, 0), "bit {bit}");
    }
    assert!(!index.insert(1 << 127, 0));
}

#[test]
fn memory_is_released_with_the_generation() {
    let mut index = index(1000);
    for id in 0..10_000 {
        index.insert(id, 0);
    }
    let held = PartitionIndex::allocated_bytes;
    assert_eq!(index.generations.queue.len(), 10);
    let full = held(&index);
    for left in (0..10).rev() {
        assert_eq!(index.expire_oldest(), 1000);
        assert!(held(&index) <= full * left / 10, "{} bytes are held for {left} generations", held(&index));
    }
    assert_eq!((index.len(), index.expire_oldest()), (0, 0));
}

#[test]
fn a_full_index_that_was_loaded_lets_go_in_steps_and_the_oldest_first() {
    let mut index = index(100);
    // A process that has just started: its clock is younger than the ids.
    for id in 0..1000u128 {
        index.load(&[(id, 1000 - id as Millis)], 3);
    }
    assert_eq!(index.len(), 1000);
    let gone = index.expire_oldest();
    assert!(gone <= 100, "{gone} ids went at once");
    assert!(!index.contains(0), "the oldest went first");
    assert!(index.contains(999) && index.contains(500));
}

#[test]
fn the_generation_that_is_being_filled_is_not_offered_for_early_expiry() {
    let mut index = index(2);
    assert_eq!(index.oldest(), None);
    index.insert(1, 5);
    index.insert(2, 5);
    assert_eq!(index.oldest(), None);
    index.insert(3, 6);
    assert!(index.oldest().is_some());
    assert_eq!(index.expire_oldest(), 2);
    assert!(index.contains(3));
}
