use proptest::prelude::*;

use super::*;

const PARTITIONS: i32 = 3;

fn progress(partition: i32, next_offset: i64) -> Progress {
    Progress { partition, epoch: 1, next_offset }
}

#[derive(Clone, Debug)]
enum Action {
    /// A batch that brings each of the partitions one record further.
    Send(Vec<i32>),
    /// The n-th of the batches on their way.
    Durable(usize),
    Unsettled(usize),
}

fn action() -> impl Strategy<Value = Action> {
    let partitions = prop::collection::btree_set(0..PARTITIONS, 1..=PARTITIONS as usize);
    prop_oneof![
        4 => partitions.prop_map(|partitions| Action::Send(partitions.into_iter().collect())),
        3 => any::<usize>().prop_map(Action::Durable),
        1 => any::<usize>().prop_map(Action::Unsettled),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// The oracle keeps every record with whether it is durable. After an unsettled batch its partitions are read from
    /// the committed offset again, as new records in new batches.
    #[test]
    fn a_committed_offset_never_passes_a_record_that_is_not_durable(actions in prop::collection::vec(action(), 1..60)) {
        let mut tracker = OffsetTracker::default();
        let mut next = [0i64; PARTITIONS as usize];
        let mut committed = [0i64; PARTITIONS as usize];
        let mut durable: Vec<Vec<bool>> = vec![Vec::new(); PARTITIONS as usize];
        // (seq, progress as long as it counts)
        let mut on_their_way: Vec<(u64, Vec<Progress>)> = Vec::new();
        let mut seq = 0;
        for action in actions {
            match action {
                Action::Send(partitions) => {
                    let moved: Vec<Progress> = partitions
                        .iter()
                        .map(|partition| {
                            let at = *partition as usize;
                            next[at] += 1;
                            durable[at].truncate(next[at] as usize - 1);
                            durable[at].push(false);
                            progress(*partition, next[at])
                        })
                        .collect();
                    tracker.sent(seq, &moved);
                    on_their_way.push((seq, moved));
                    seq += 1;
                }
                Action::Durable(at) if !on_their_way.is_empty() => {
                    let (seq, moved) = on_their_way.remove(at % on_their_way.len());
                    for one in moved {
                        durable[one.partition as usize][one.next_offset as usize - 1] = true;
                    }
                    for (partition, one) in tracker.durable(seq) {
                        prop_assert_eq!(one.partition, partition);
                        let at = partition as usize;
                        prop_assert!(one.next_offset > committed[at], "a commit goes forwards");
                        let covered = &durable[at][..one.next_offset as usize];
                        prop_assert!(covered.iter().all(|durable| *durable), "partition {}: {:?}", partition, covered);
                        committed[at] = one.next_offset;
                    }
                }
                Action::Unsettled(at) if !on_their_way.is_empty() => {
                    let (seq, moved) = on_their_way.remove(at % on_their_way.len());
                    let again = tracker.unsettled(seq);
                    prop_assert_eq!(&again, &moved.iter().map(|one| one.partition).collect::<Vec<_>>());
                    for partition in again {
                        next[partition as usize] = committed[partition as usize];
                        for (_, moved) in &mut on_their_way {
                            moved.retain(|one| one.partition != partition);
                        }
                    }
                }
                Action::Durable(_) | Action::Unsettled(_) => {}
            }
            if on_their_way.is_empty() {
                prop_assert!(tracker.is_empty(), "nothing is on its way");
            }
        }
        // Once all is durable, all is committed, but for what only a later batch would have told of.
        while let Some((seq, _)) = on_their_way.pop() {
            for one in tracker.durable(seq).into_values() {
                committed[one.partition as usize] = one.next_offset;
            }
        }
        prop_assert!(tracker.is_empty());
        tracker.sent(seq, &[]);
        for one in tracker.durable(seq).into_values() {
            committed[one.partition as usize] = one.next_offset;
        }
        prop_assert_eq!(committed, next);
    }
}

#[test]
fn batches_acknowledged_backwards_are_committed_with_the_first() {
    let mut tracker = OffsetTracker::default();
    for seq in 0..3 {
        tracker.sent(seq, &[progress(0, seq as i64 + 1)]);
    }
    assert!(tracker.durable(2).is_empty());
    assert!(tracker.durable(1).is_empty());
    assert_eq!(tracker.durable(0).into_values().collect::<Vec<_>>(), [progress(0, 3)]);
    assert!(tracker.is_empty());
}

#[test]
fn an_unsettled_batch_leaves_nothing_on_its_way_once_the_others_are_durable() {
    let mut tracker = OffsetTracker::default();
    tracker.sent(0, &[progress(0, 1)]);
    tracker.sent(1, &[progress(1, 1)]);
    assert!(tracker.durable(1).is_empty());
    assert_eq!(tracker.unsettled(0), [0]);
    assert!(tracker.is_empty(), "a drain would wait for a batch that is there already");
    tracker.sent(2, &[progress(2, 1)]);
    assert_eq!(tracker.durable(2).into_values().collect::<Vec<_>>(), [progress(1, 1), progress(2, 1)]);
}

#[test]
fn forgotten_partitions_are_never_committed_though_their_batch_is_durable() {
    let mut tracker = OffsetTracker::default();
    tracker.sent(0, &[progress(0, 1), progress(1, 1)]);
    tracker.sent(1, &[progress(0, 2), progress(1, 2)]);
    tracker.forget(&[0]);
    assert_eq!(tracker.durable(0).into_values().collect::<Vec<_>>(), [progress(1, 1)]);
    assert_eq!(tracker.unsettled(1), [1], "what was forgotten need not be read again on its account");
    assert!(tracker.durable(1).is_empty() && tracker.unsettled(7).is_empty(), "unknown numbers say nothing");
}
