//! How a replay goes through its ranges: in steps of a bounded size, no faster than it may. Pure.

use std::time::Duration;

use crate::audit::Range;

/// A part of each partition, as (partition, first offset, the offset after the last), that is dealt with at once.
pub(super) type Step = Vec<(i32, i64, i64)>;

/// Cuts ranges into steps of about `at_once` offsets, all partitions side by side, so that none waits for another.
pub(super) fn steps(ranges: &[Range], at_once: u64) -> Vec<Step> {
    let mut open: Step = ranges
        .iter()
        .filter(|range| range.offsets() > 0)
        .map(|range| (range.partition, range.from, range.to))
        .collect();
    let mut steps = Vec::new();
    while !open.is_empty() {
        let each = i64::try_from((at_once / open.len() as u64).max(1)).unwrap_or(i64::MAX);
        let cut = |from: i64, to: i64| from.saturating_add(each).min(to);
        steps.push(open.iter().map(|(partition, from, to)| (*partition, *from, cut(*from, *to))).collect());
        open = open.into_iter().map(|(partition, from, to)| (partition, cut(from, to), to)).collect();
        open.retain(|(_, from, to)| from < to);
    }
    steps
}

/// Offsets of a step.
pub(super) fn offsets(step: &Step) -> u64 {
    step.iter().map(|(_, from, to)| to.abs_diff(*from)).sum()
}

/// How long to rest after `done` records in `took`, so that they are no more than `per_second`.
pub(super) fn rest(per_second: Option<u64>, done: u64, took: Duration) -> Duration {
    let Some(per_second) = per_second else { return Duration::ZERO };
    let due = Duration::from_secs_f64(done as f64 / per_second.max(1) as f64);
    due.saturating_sub(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(partition: i32, from: i64, to: i64) -> Range {
        Range { partition, from, to, committed: Some(to), low: 0, high: to, pending: 0, deleted_unread: 0 }
    }

    #[test]
    fn steps_cover_every_offset_once_and_in_order() {
        let ranges = [range(0, 5, 5), range(1, 10, 1_010), range(2, 0, 90)];
        let steps = steps(&ranges, 100);
        assert!(steps.iter().all(|step| offsets(step) <= 100));
        for range in &ranges {
            let mut next = range.from;
            for (_, from, to) in steps.iter().flatten().filter(|(partition, ..)| *partition == range.partition) {
                assert!(*from == next && from < to);
                next = *to;
            }
            assert_eq!(next, range.to, "partition {}", range.partition);
        }
        assert_eq!(steps[0], [(1, 10, 60), (2, 0, 50)]);
        assert_eq!(steps[2], [(1, 110, 210)], "the other has come to its end");
    }

    #[test]
    fn nothing_is_no_step_and_many_partitions_still_move() {
        assert!(steps(&[], 100).is_empty() && steps(&[range(0, 3, 3)], 100).is_empty());
        let many: Vec<Range> = (0..10).map(|partition| range(partition, 0, 2)).collect();
        assert_eq!(steps(&many, 3).len(), 2);
    }

    #[test]
    fn the_pace_is_kept_over_the_whole_and_not_by_the_chunk() {
        let second = Duration::from_secs(1);
        assert_eq!(rest(None, 1_000_000, second), Duration::ZERO);
        assert_eq!(rest(Some(1_000), 4_000, second), 3 * second);
        assert_eq!(rest(Some(1_000), 4_000, 5 * second), Duration::ZERO);
        assert_eq!(rest(Some(0), 2, second), second);
    }
}
