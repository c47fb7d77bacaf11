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
    fn the_committed_offset_is_where_the_unbroken_run_of_durable_records_ends(actions in prop::collection::vec(action(), 1..60)) {
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
            for at in 0..PARTITIONS as usize {
                let unbroken = durable[at][..next[at] as usize].iter().take_while(|durable| **durable).count();
                prop_assert_eq!(committed[at], unbroken as i64, "all that may be committed is told, at once");
            }
            if on_their_way.is_empty() {
                prop_assert!(tracker.is_empty(), "nothing is on its way");
            }
        }
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
fn a_batch_holds_up_no_partition_but_its_own() {
    let mut tracker = OffsetTracker::default();
    tracker.sent(0, &[progress(0, 1)]);
    tracker.sent(1, &[progress(0, 2), progress(1, 1)]);
    assert_eq!(tracker.durable(1).into_values().collect::<Vec<_>>(), [progress(1, 1)]);
    assert_eq!(tracker.unsettled(0), [0]);
    assert!(tracker.is_empty(), "a drain would wait for a batch that is there already");
}

/// Found by the simulator: a batch of a claim that was lost is given up only after the partition was read to its end
/// under the next claim. The offset of the end was told of with the next batch, and there was none.
#[test]
fn a_batch_that_was_forgotten_holds_no_commit_up() {
    let mut tracker = OffsetTracker::default();
    tracker.sent(0, &[progress(0, 1)]);
    tracker.forget(&[0]);
    tracker.sent(1, &[progress(0, 1)]);
    assert_eq!(tracker.durable(1).into_values().collect::<Vec<_>>(), [progress(0, 1)]);
    assert!(!tracker.is_empty(), "its insert is still tried");
    assert!(tracker.unsettled(0).is_empty());
    assert!(tracker.is_empty());
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
