//! Which offsets of a partition have to be accounted for. Pure.

use serde::Serialize;

use crate::config::StartOffset;

/// Where a partition stood when the audit began. The committed offset is asked for first, so that it is never ahead of
/// what the other two say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// Kafka partition.
    pub partition: i32,
    /// Offset that the consumer group has committed.
    pub committed: Option<i64>,
    /// Oldest offset that Kafka still has.
    pub low: i64,
    /// Offset of the next record to be written.
    pub high: i64,
}

/// What the command line asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Only this partition.
    pub partition: Option<i32>,
    /// From this offset on.
    pub from: Option<i64>,
    /// Up to this offset, which is not looked at itself.
    pub to: Option<i64>,
}

/// The offsets of one partition that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Kafka partition.
    pub partition: i32,
    /// First offset that must be settled.
    pub from: i64,
    /// First offset that need not be settled; `from` if none must be.
    pub to: i64,
    /// Offset that the group has committed.
    pub committed: Option<i64>,
    /// Oldest offset that Kafka had.
    pub low: i64,
    /// End of the partition.
    pub high: i64,
    /// Offsets not committed yet: what is in them is on its way, not lost.
    pub pending: i64,
    /// Offsets that retention deleted before the group had read them.
    pub deleted_unread: i64,
}

impl Range {
    /// Offsets that must be settled.
    pub fn offsets(&self) -> u64 {
        u64::try_from(self.to - self.from).unwrap_or(0)
    }
}

/// The range of one partition, and what a person should know of how it was chosen. `first_row` is the smallest offset
/// of the partition that has a row: where a topic was begun with its latest event, nothing before it was ever read.
pub(crate) fn range(
    position: Position,
    wanted: Wanted,
    start: StartOffset,
    first_row: Option<i64>,
) -> (Range, Vec<String>) {
    let Position { partition, committed, low, high } = position;
    let mut notes = Vec::new();
    let end = wanted.to.unwrap_or(i64::MAX);
    let mut settled = committed.unwrap_or(i64::MIN);
    match committed {
        None if low == high => {}
        None => notes.push(format!(
            "partition {partition}: the group has committed no offset, so all of it is pending: has `millrace run` read it yet, and is kafka.group_id right?"
        )),
        Some(committed) if committed > high => {
            notes.push(format!(
                "partition {partition}: the committed offset {committed} lies behind the end {high}: the topic was recreated or has lost its end; all of it is pending until `millrace run` has read it from its beginning"
            ));
            settled = i64::MIN;
        }
        Some(_) => {}
    }
    let mut from = wanted.from.unwrap_or(low);
    let mut deleted_unread = 0;
    if from < low {
        notes.push(format!(
            "partition {partition}: Kafka has nothing before offset {low} any more; looked at from there"
        ));
        from = low;
    }
    if settled > i64::MIN && settled < low {
        deleted_unread = (low.min(end) - settled.max(wanted.from.unwrap_or(settled))).max(0);
    }
    if start == StartOffset::Latest && wanted.from.is_none() && settled > from {
        from = first_row.unwrap_or(settled).clamp(from, settled);
        notes.push(format!(
            "partition {partition}: `start` is \"latest\", so what lies before its first row, offset {from}, counts as never to be read; name an offset with --from to look at it"
        ));
    }
    let to = settled.min(end).max(from);
    let pending = (high.min(end) - to).max(0);
    (Range { partition, from, to, committed, low, high, pending, deleted_unread }, notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Wanted = Wanted { partition: None, from: None, to: None };

    fn at(committed: Option<i64>, low: i64, high: i64) -> Position {
        Position { partition: 3, committed, low, high }
    }

    fn chosen(position: Position, wanted: Wanted) -> (i64, i64, i64, i64) {
        let (range, _) = range(position, wanted, StartOffset::Earliest, None);
        (range.from, range.to, range.pending, range.deleted_unread)
    }

    #[test]
    fn what_is_committed_must_be_settled_and_the_rest_is_pending() {
        assert_eq!(chosen(at(Some(70), 10, 100), ALL), (10, 70, 30, 0));
        assert_eq!(chosen(at(Some(100), 10, 100), ALL), (10, 100, 0, 0));
        assert_eq!(chosen(at(Some(10), 10, 10), ALL), (10, 10, 0, 0));
    }

    #[test]
    fn without_a_commit_or_with_one_behind_the_end_all_is_pending_and_that_is_said() {
        for committed in [None, Some(101)] {
            assert_eq!(chosen(at(committed, 10, 100), ALL), (10, 10, 90, 0), "{committed:?}");
            assert_eq!(range(at(committed, 10, 100), ALL, StartOffset::Earliest, None).1.len(), 1, "{committed:?}");
        }
    }

    #[test]
    fn a_wanted_range_is_cut_to_what_there_is() {
        let wanted = |from, to| Wanted { partition: Some(3), from: Some(from), to: Some(to) };
        assert_eq!(chosen(at(Some(70), 10, 100), wanted(20, 30)), (20, 30, 0, 0));
        assert_eq!(chosen(at(Some(70), 10, 100), wanted(60, 80)), (60, 70, 10, 0));
        assert_eq!(chosen(at(Some(70), 10, 100), wanted(80, 90)), (80, 80, 10, 0));
        assert_eq!(chosen(at(Some(70), 10, 100), wanted(0, 200)), (10, 70, 30, 0));
        assert_eq!(chosen(at(Some(70), 10, 100), wanted(0, 5)), (10, 10, 0, 0));
    }

    #[test]
    fn what_retention_deleted_before_it_was_read_is_counted() {
        assert_eq!(chosen(at(Some(4), 10, 100), ALL), (10, 10, 90, 6));
        let wanted = Wanted { partition: Some(3), from: Some(7), to: Some(9) };
        assert_eq!(chosen(at(Some(4), 10, 100), wanted), (10, 10, 0, 2));
        assert_eq!(chosen(at(Some(4), 10, 100), Wanted { from: Some(50), ..wanted }).3, 0);
    }

    #[test]
    fn a_topic_begun_with_its_latest_event_is_looked_at_from_its_first_row() {
        let from = |first_row| range(at(Some(70), 10, 100), ALL, StartOffset::Latest, first_row).0.from;
        assert_eq!((from(Some(40)), from(Some(2)), from(None)), (40, 10, 70));
    }
}
