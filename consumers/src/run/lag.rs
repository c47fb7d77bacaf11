//! How far behind the partitions are in time: the age of the oldest event that is not committed. It reads no clock, and is told
//! of the first record of each partition in a chunk, not of every record.

use std::collections::{BTreeMap, VecDeque};

/// Chunks whose first records are remembered for a partition: beyond, the oldest two become one, which makes it look older
/// and never younger.
const CHUNKS: usize = 1024;

/// The partitions that are read.
#[derive(Debug, Default)]
pub(super) struct Lag {
    partitions: BTreeMap<i32, Partition>,
}

#[derive(Debug)]
struct Partition {
    /// Offset and timestamp of the first record of each chunk that is not wholly committed.
    chunks: VecDeque<(i64, i64)>,
    /// The offset behind the last record that was noted, or where reading began.
    next_offset: i64,
    committed: i64,
    /// Timestamp of the last record known of, in milliseconds since 1970.
    last_ms: Option<i64>,
    /// When everything there was had been committed, the last time that was looked at.
    without_lag_ms: Option<i64>,
}

impl Lag {
    /// A partition is read from here on, perhaps again: until then what was known of it goes on growing old; `last_ms` is the timestamp of a record before it, if one is known.
    pub(super) fn start(&mut self, partition: i32, next_offset: i64, last_ms: Option<i64>) {
        let (chunks, committed, without_lag_ms) = (VecDeque::new(), next_offset, None);
        self.partitions.insert(partition, Partition { chunks, next_offset, committed, last_ms, without_lag_ms });
    }

    /// A chunk was read: (partition, offset, timestamp in milliseconds since 1970) of each record, those of a partition in
    /// order.
    pub(super) fn note(&mut self, chunk: impl Iterator<Item = (i32, i64, i64)>) {
        let (mut of, mut last) = (None, (0, 0));
        for (partition, offset, timestamp_ms) in chunk {
            if of != Some(partition) {
                of.into_iter().for_each(|partition| self.noted(partition, last));
                of = Some(partition);
                if let Some(known) = self.partitions.get_mut(&partition) {
                    known.chunks.push_back((offset, timestamp_ms));
                    if known.chunks.len() > CHUNKS {
                        known.chunks.remove(1);
                    }
                }
            }
            last = (offset, timestamp_ms);
        }
        of.into_iter().for_each(|partition| self.noted(partition, last));
    }

    fn noted(&mut self, partition: i32, (offset, timestamp_ms): (i64, i64)) {
        if let Some(known) = self.partitions.get_mut(&partition) {
            (known.next_offset, known.last_ms) = (offset + 1, Some(timestamp_ms));
        }
    }

    /// A partition was committed up to here; by how many offsets that is further than before.
    pub(super) fn committed(&mut self, partition: i32, next_offset: i64) -> u64 {
        let Some(known) = self.partitions.get_mut(&partition) else { return 0 };
        while known.chunks.get(1).is_some_and(|(offset, _)| *offset <= next_offset) {
            known.chunks.pop_front();
        }
        let further = u64::try_from(next_offset - known.committed).unwrap_or(0);
        known.committed = known.committed.max(next_offset);
        if known.committed >= known.next_offset {
            known.chunks.clear();
        }
        further
    }

    /// Age in seconds of the oldest event of a partition that is not committed, at `now_ms` (milliseconds since 1970); 0 if
    /// there is none. `unread` says whether there are events that were not read yet. `None` while nothing is known.
    pub(super) fn seconds(&mut self, partition: i32, unread: bool, now_ms: i64) -> Option<f64> {
        let known = self.partitions.get_mut(&partition)?;
        let since_ms = match known.chunks.front() {
            Some((_, timestamp_ms)) => Some(*timestamp_ms),
            None if unread => known.last_ms.max(known.without_lag_ms),
            None => {
                known.without_lag_ms = Some(now_ms);
                Some(now_ms)
            }
        };
        since_ms.map(|since| (now_ms - since).max(0) as f64 / 1000.0)
    }

    /// Somebody else reads them from now on.
    pub(super) fn forget(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(partition: i32, offsets: std::ops::Range<i64>) -> impl Iterator<Item = (i32, i64, i64)> {
        offsets.map(move |offset| (partition, offset, offset * 1000))
    }

    #[test]
    fn it_is_the_age_of_the_chunk_with_the_oldest_event_that_is_not_committed() {
        let mut lag = Lag::default();
        lag.start(0, 10, None);
        assert_eq!(lag.seconds(0, true, 30_000), None, "no record is known");
        assert_eq!(lag.seconds(1, true, 30_000), None, "not read here");
        lag.note(records(0, 10..15).chain(records(1, 3..5)));
        lag.note(records(0, 15..20));
        assert_eq!(lag.seconds(0, true, 30_000), Some(20.0));
        assert_eq!(lag.committed(0, 13), 3);
        assert_eq!(lag.seconds(0, true, 30_000), Some(20.0), "the rest of the chunk");
        assert_eq!(lag.committed(0, 15), 2);
        assert_eq!(lag.seconds(0, true, 30_000), Some(15.0));
        assert_eq!(lag.committed(0, 20), 5);
        assert_eq!(lag.seconds(0, false, 30_000), Some(0.0));
    }

    #[test]
    fn of_an_event_that_is_not_read_yet_the_age_is_bounded_by_what_is_known() {
        let mut lag = Lag::default();
        lag.start(0, 10, Some(9_000));
        assert_eq!(lag.seconds(0, true, 30_000), Some(21.0), "since the record before it");
        lag.note(records(0, 10..11));
        lag.committed(0, 11);
        assert_eq!(lag.seconds(0, true, 30_000), Some(20.0));
        assert_eq!(lag.seconds(0, false, 31_000), Some(0.0));
        assert_eq!(lag.seconds(0, true, 34_000), Some(3.0), "since there was none");
    }

    #[test]
    fn gaps_in_offsets_and_commits_beyond_what_was_read_leave_nothing_behind() {
        let mut lag = Lag::default();
        lag.start(0, 0, None);
        lag.note([(0, 5, 5_000), (0, 9, 9_000)].into_iter());
        assert_eq!(lag.committed(0, 10), 10);
        assert_eq!(lag.seconds(0, false, 60_000), Some(0.0));
        lag.forget(&[0]);
        assert_eq!((lag.committed(0, 11), lag.seconds(0, true, 60_000)), (0, None));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_too_old_rather_than_too_young() {
        let mut lag = Lag::default();
        lag.start(0, 0, None);
        (0..5_000).for_each(|at| lag.note(records(0, at..at + 1)));
        assert_eq!(lag.seconds(0, true, 5_000_000), Some(5_000.0));
        lag.committed(0, 4_000);
        let seconds = lag.seconds(0, true, 5_000_000).unwrap();
        assert!((1_000.0..=1_024.0).contains(&seconds) || seconds == 5_000.0, "{seconds}");
    }
}
