use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[test]
fn a_superseded_take_over_is_ignored() {
    let mut assignment = Assignment::default();
    let first = assignment.assign(&[0, 1]);
    assignment.revoke(&[0]);
    let second = assignment.assign(&[0]);
    assert!(!assignment.taken_over(first, 0, 5, 10), "it was revoked and assigned again meanwhile");
    assert!(assignment.is_taking_over(second, 0) && !assignment.is_taking_over(first, 0));
    assert!(assignment.taken_over(second, 0, 6, 10));
    assert!(!assignment.taken_over(second, 0, 7, 20), "an answer counts once");
    assert_eq!(assignment.epoch(0), Some(6));
    assert!(assignment.is_pending(first) && !assignment.is_pending(second));
    assert!(!assignment.settled());
    assert!(assignment.taken_over(first, 1, 5, 0));
    assert!(assignment.settled() && !assignment.is_pending(first));
}

#[test]
fn nothing_is_accepted_of_a_partition_that_is_not_running() {
    let mut assignment = Assignment::default();
    assert!(!assignment.accept(0, 0));
    let attempt = assignment.assign(&[0]);
    assert!(!assignment.accept(0, 0));
    assignment.taken_over(attempt, 0, 1, 5);
    assert!(!assignment.accept(0, 4), "read before");
    assert!(assignment.accept(0, 9), "offsets may have gaps");
    assert!(!assignment.accept(0, 9), "never twice");
    assert_eq!(assignment.running().collect::<Vec<_>>(), [(0, 10)]);
    assignment.restart(&[0]).unwrap();
    assert!(!assignment.accept(0, 10));
    assignment.revoke(&[0]);
    assert!(!assignment.accept(0, 10) && assignment.held().next().is_none());
}

#[test]
fn only_running_partitions_are_taken_over_again() {
    let mut assignment = Assignment::default();
    let attempt = assignment.assign(&[0, 1, 2]);
    assignment.taken_over(attempt, 0, 1, 0);
    assignment.taken_over(attempt, 2, 1, 0);
    assignment.revoke(&[2]);
    let (again, partitions) = assignment.restart(&[0, 1, 2, 3]).unwrap();
    assert_eq!(partitions, [0], "1 is being taken over as it is, 2 and 3 are not ours");
    assert!(assignment.is_taking_over(attempt, 1) && assignment.is_taking_over(again, 0));
    assert_eq!(assignment.restart(&[0, 1, 2, 3]), None);
}

#[derive(Clone, Debug)]
enum Action {
    Assign(BTreeSet<i32>),
    Revoke(BTreeSet<i32>),
    Restart(BTreeSet<i32>),
    TakenOver { ago: u64, partition: i32, next_offset: i64 },
    Accept { partition: i32, offset: i64 },
}

fn action() -> impl Strategy<Value = Action> {
    let some = || prop::collection::btree_set(0..4, 1..3);
    prop_oneof![
        2 => some().prop_map(Action::Assign),
        1 => some().prop_map(Action::Revoke),
        1 => some().prop_map(Action::Restart),
        5 => (0..3u64, 0..4, 0..20i64)
            .prop_map(|(ago, partition, next_offset)| Action::TakenOver { ago, partition, next_offset }),
        6 => (0..4, 0..40i64).prop_map(|(partition, offset)| Action::Accept { partition, offset }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn attempts_are_never_reused_and_offsets_accepted_rise_within_a_run(
        actions in prop::collection::vec(action(), 1..80),
    ) {
        let mut assignment = Assignment::default();
        let mut last_attempt = 0;
        let mut accepted: BTreeMap<i32, i64> = BTreeMap::new();
        for action in actions {
            let list = |set: BTreeSet<i32>| set.into_iter().collect::<Vec<_>>();
            match action {
                Action::Assign(partitions) => {
                    let attempt = assignment.assign(&list(partitions));
                    prop_assert!(attempt > last_attempt);
                    last_attempt = attempt;
                }
                Action::Revoke(partitions) => {
                    let partitions = list(partitions);
                    assignment.revoke(&partitions);
                    prop_assert!(assignment.held().all(|held| !partitions.contains(&held)));
                }
                Action::Restart(partitions) => {
                    let running: Vec<i32> = assignment.running().map(|(partition, _)| partition).collect();
                    let partitions = list(partitions);
                    let wanted: Vec<i32> = partitions.iter().copied().filter(|one| running.contains(one)).collect();
                    match assignment.restart(&partitions) {
                        Some((attempt, restarted)) => {
                            prop_assert!(attempt > last_attempt);
                            prop_assert_eq!(restarted, wanted);
                            last_attempt = attempt;
                        }
                        None => prop_assert!(wanted.is_empty()),
                    }
                }
                Action::TakenOver { ago, partition, next_offset } => {
                    let attempt = last_attempt.saturating_sub(ago);
                    let due = assignment.is_taking_over(attempt, partition);
                    prop_assert_eq!(assignment.taken_over(attempt, partition, attempt, next_offset), due);
                    if due {
                        accepted.insert(partition, next_offset - 1);
                    }
                }
                Action::Accept { partition, offset } => {
                    let wanted = assignment.epoch(partition).is_some() && offset > accepted[&partition];
                    prop_assert_eq!(assignment.accept(partition, offset), wanted);
                    if wanted {
                        accepted.insert(partition, offset);
                    }
                }
            }
        }
    }
}
