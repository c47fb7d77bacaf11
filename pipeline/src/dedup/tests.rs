use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const WINDOW_MS: Millis = 1000;
const GENERATION_MS: Millis = WINDOW_MS / 8;

fn index(max_generation_ids: usize) -> PartitionIndex {
    PartitionIndex::new(Duration::from_millis(WINDOW_MS), max_generation_ids)
}

/// Ids of all kinds: zero, counted up, alike but for the highest bits, and random ones.
fn id(n: u128) -> u128 {
    match n % 4 {
        0 => n,
        1 => n << 100,
        2 => !n,
        _ => n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    }
}

#[derive(Clone, Debug)]
enum Action {
    Insert(u128),
    /// The ids, and which of them are to be remembered.
    InsertBatch(Vec<(u128, bool)>),
    Load {
        id: u128,
        age_ms: Millis,
    },
    Pass(Millis),
    Expire,
    ExpireOldest,
}

fn action() -> impl Strategy<Value = Action> {
    let id = (0u128..40).prop_map(id);
    prop_oneof![
        4 => prop::collection::vec((id.clone(), prop::bool::weighted(0.8)), 0..100).prop_map(Action::InsertBatch),
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
        let ids: Vec<u128> = (0..40).map(id).collect();
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
                Action::InsertBatch(batch) => {
                    let known: Vec<u128> = ids.iter().copied().filter(|id| index.contains(*id)).collect();
                    let mut known: HashSet<u128> = known.into_iter().collect();
                    let (batch, remember): (Vec<u128>, Vec<bool>) = batch.into_iter().unzip();
                    let mut fresh = vec![true; 3];
                    index.insert_batch(&batch, now, |at| remember[at], &mut fresh);
                    prop_assert_eq!(fresh.len(), batch.len());
                    for ((id, remember), fresh) in batch.iter().zip(&remember).zip(&fresh) {
                        prop_assert_eq!(*fresh, !known.contains(id), "as one after the other: {}", id);
                        if *fresh && *remember {
                            known.insert(*id);
                            born.insert(*id, now as i64);
                        }
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
            let held = ids.iter().filter(|id| index.contains(**id)).count();
            prop_assert_eq!(index.len(), held, "the length is that of what is there");
            prop_assert_eq!(index.is_empty(), held == 0);
            for id in ids.iter().filter(|id| index.contains(**id)) {
                prop_assert!(born.contains_key(id), "id {} was never there", id);
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

/// Ids that come steadily, some of them again, in batches of all sizes, for three windows; what is told of each is
/// compared with a map of birth times, and what is held with the ids inside the window.
#[test]
fn a_large_index_stays_right_and_small_while_the_window_moves() {
    const PER_WINDOW: usize = 200_000;
    const WINDOW_MS: Millis = 1 << 20;
    let mut index = PartitionIndex::new(Duration::from_millis(WINDOW_MS), usize::MAX);
    let mut born: HashMap<u128, Millis> = HashMap::new();
    let (mut next, mut random, mut fresh) = (0, 1u64, Vec::new());
    while next < 3 * PER_WINDOW {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let len = (random >> 33) as usize % 3000 + 1;
        let now = (next as u64 * WINDOW_MS) / PER_WINDOW as u64;
        let batch: Vec<u128> = (next..next + len)
            .map(|n| if n % 10 == 0 { id((n - n.min(n * 7919 % PER_WINDOW)) as u128) } else { id(n as u128) })
            .collect();
        next += len;
        index.expire(now);
        index.insert_batch(&batch, now, |_| true, &mut fresh);
        for (id, fresh) in batch.iter().zip(&fresh) {
            let age_ms = born.get(id).map(|at| now - at);
            match age_ms {
                None => assert!(*fresh, "{id} was never there"),
                Some(..=WINDOW_MS) => assert!(!*fresh, "{id} was forgotten inside the window"),
                Some(age_ms) if age_ms > WINDOW_MS + WINDOW_MS / 8 => assert!(*fresh, "{id} is {age_ms} ms old"),
                Some(_) => {}
            }
            if *fresh {
                born.insert(*id, now);
            }
        }
        let in_window = born.values().filter(|at| now - **at <= WINDOW_MS).count();
        assert!(index.len() >= in_window);
        if in_window >= 10_000 {
            let bytes = index.allocated_bytes() as f64 / in_window as f64;
            assert!(bytes <= 24.0, "{bytes} bytes for each of {in_window} ids inside the window, of {}", index.len());
        }
    }
}

#[test]
fn an_index_made_ready_for_what_is_loaded_holds_24_bytes_for_each_id() {
    for ids in [10_000, 30_000, 100_000, 500_000] {
        for reserved in [0, ids as usize] {
            let mut index = index(usize::MAX);
            index.reserve(reserved);
            for from in (0..ids).step_by(777) {
                let batch: Vec<(u128, Millis)> =
                    (from..ids.min(from + 777)).map(|n| (id(n), (n * 7919) as Millis % WINDOW_MS)).collect();
                index.load(&batch, WINDOW_MS);
            }
            assert_eq!(index.len(), ids as usize);
            // Ids fall into groups by a seed of chance, and in a small index one page more or less shows.
            let bytes = index.allocated_bytes();
            assert!(bytes as u128 <= 24 * ids + 8192, "{bytes} bytes for {ids} ids");
        }
    }
}

#[test]
fn what_was_reserved_in_vain_is_let_go() {
    let mut index = index(usize::MAX);
    index.reserve(1_000_000);
    (0..50_000).for_each(|n| assert!(index.insert(id(n), 0)));
    for _ in 0..20 {
        index.expire(0);
    }
    assert_eq!(index.len(), 50_000);
    assert!(index.allocated_bytes() <= 24 * 50_000, "{} bytes are held", index.allocated_bytes());
    assert!((0..50_000).all(|n| index.contains(id(n))));
}

#[test]
fn memory_is_released_after_the_generation() {
    const EACH: usize = 10_000;
    let mut index = index(EACH);
    for n in 0..10 * EACH {
        index.insert(id(n as u128), 0);
    }
    assert_eq!(index.generations.queue.len(), 10);
    for left in (0..10).rev() {
        assert_eq!(index.expire_oldest(), EACH);
        index.expire(0);
        let held = index.allocated_bytes();
        assert!(held <= 24 * EACH * left + (1 << 14), "{held} bytes are held for {left} generations");
    }
    assert_eq!((index.len(), index.expire_oldest()), (0, 0));
}

#[test]
fn generations_too_small_for_the_window_are_filled_beyond_their_size() {
    let mut index = index(1);
    for n in 0..1000 {
        assert!(index.insert(id(n), n as Millis));
    }
    assert!((0..1000).all(|n| index.contains(id(n))));
    assert!(index.generations.queue.len() <= 256);
    index.expire(1000 + WINDOW_MS + GENERATION_MS);
    assert!(index.is_empty());
    for n in 0..1000 {
        assert!(index.insert(id(n), 3000));
    }
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
