//! Which logs are being read: a mark for each partition, by which a topic that was deleted and made anew is noticed.
//!
//! A mark is *known* once it has been found in the log after the record was read, so that it stands for the log that has
//! been read ever since the take-over; commits carry known marks only. While a partition runs, its mark is looked at every
//! [`LOOK_EVERY`] and replaced by a later one, so that retention does not pass it. Once another record is found at a mark,
//! the partition is taken over again, which finds the same, says so and starts over. What was read of the new log by then is
//! in the table, or on its way, and is dropped when it comes again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::Message;

use super::worker::Worker;
use crate::kafka::mark::{Mark, Seen};

/// How often the logs are looked at. However late another log is noticed, nothing of it is lost, as long as retention
/// has not passed the mark.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often the ends of partitions are asked for while some are not fetched: librdkafka hears of them as it fetches.
const ASK_ENDS_EVERY: Duration = Duration::from_secs(5);
/// How often the last record of a chunk is noted.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// The marks of the partitions that are held.
#[derive(Debug)]
pub(super) struct Logs {
    marks: BTreeMap<i32, Marks>,
    noted: Instant,
    looked: Instant,
    asked_ends: Instant,
    looking: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    known: Option<Mark>,
    latest: Option<Mark>,
    /// The latest as a look began: known once that look finds the log to be the same.
    next: Option<Mark>,
}

impl Logs {
    pub(super) fn new(now: Instant) -> Self {
        Self { marks: BTreeMap::new(), noted: now, looked: now, asked_ends: now, looking: false }
    }

    /// A partition is read from now on; `mark` is in its log.
    pub(super) fn start(&mut self, partition: i32, mark: Option<Mark>) {
        self.marks.insert(partition, Marks { known: mark, ..Marks::default() });
    }

    pub(super) fn forget(&mut self, partitions: &[i32]) {
        self.marks.retain(|partition, _| !partitions.contains(partition));
    }

    /// Notes the last record of each partition, now and then.
    pub(super) fn note<M: Message>(&mut self, chunk: &[M], now: Instant) {
        let due = now.duration_since(self.noted) >= NOTE_EVERY;
        if !due && self.marks.values().all(|marks| marks.known.is_some()) {
            return;
        }
        self.noted = now;
        let last: BTreeMap<i32, &M> = chunk.iter().map(|message| (message.partition(), message)).collect();
        for (partition, message) in last {
            if let Some(marks) = self.marks.get_mut(&partition) {
                let mark = Mark::of(message);
                marks.latest = Some(mark);
                // The first record that is read stands for the log, if the take-over knew none.
                marks.known.get_or_insert(mark);
            }
        }
    }

    /// For a commit.
    pub(super) fn mark(&self, partition: i32) -> Option<Mark> {
        self.marks.get(&partition)?.known
    }

    /// The marks to look at, perhaps none, if it is time to look at something.
    fn due(&mut self, all_fetched: bool, now: Instant) -> Option<BTreeMap<i32, Mark>> {
        let look = now.duration_since(self.looked) >= LOOK_EVERY;
        let ask_ends = !all_fetched && now.duration_since(self.asked_ends) >= ASK_ENDS_EVERY;
        if self.looking || !(look || ask_ends) {
            return None;
        }
        (self.looking, self.asked_ends) = (true, now);
        if !look {
            return Some(BTreeMap::new());
        }
        self.looked = now;
        self.marks.values_mut().for_each(|marks| marks.next = marks.latest);
        Some(self.marks.iter().filter_map(|(partition, marks)| Some((*partition, marks.known?))).collect())
    }

    /// Takes in what was seen; the partitions whose log is another one.
    fn looked(&mut self, seen: &BTreeMap<i32, (Mark, Seen)>) -> Vec<i32> {
        self.looking = false;
        let mut others = Vec::new();
        for (partition, (mark, seen)) in seen {
            let Some(marks) = self.marks.get_mut(partition).filter(|marks| marks.known == Some(*mark)) else {
                continue;
            };
            match seen {
                Seen::Same | Seen::Gone => marks.known = marks.next.or(marks.known),
                Seen::Other => others.push(*partition),
            }
            if *seen == Seen::Gone {
                tracing::debug!(partition, offset = mark.offset, "the record that the log was known by is gone");
            }
        }
        others
    }
}

impl Worker {
    /// Has the logs looked at, if it is time to.
    pub(super) fn look_at_logs(&mut self) {
        let left_out = self.paused || self.lanes.iter().any(|lane| lane.shut);
        let all_fetched = !left_out && self.pipeline.assignment().settled();
        if let Some(marks) = self.logs.due(all_fetched, Instant::now()) {
            let held = self.pipeline.assignment().held().collect();
            self.crew.look(marks, held, self.source.reader());
        }
    }

    /// Takes partitions over again whose log is another one.
    pub(super) fn logs_looked_at(&mut self, seen: &BTreeMap<i32, (Mark, Seen)>) {
        let others = self.logs.looked(seen);
        if !others.is_empty() {
            tracing::error!(
                topic = self.crew.topic,
                partitions = ?others,
                "records that were read are not in the topic any more: it was deleted and made anew, or has lost its end"
            );
            let restarted = self.pipeline.restart(&others);
            self.take_over_again(restarted, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{Timestamp, message::OwnedMessage};

    use super::*;

    fn record(partition: i32, offset: i64) -> OwnedMessage {
        let time = Timestamp::CreateTime(1000 + offset);
        OwnedMessage::new(Some(b"value".to_vec()), None, "orders".into(), time, partition, offset, None)
    }

    fn seen(marks: &BTreeMap<i32, Mark>, what: Seen) -> BTreeMap<i32, (Mark, Seen)> {
        marks.iter().map(|(partition, mark)| (*partition, (*mark, what))).collect()
    }

    #[test]
    fn a_mark_is_carried_by_commits_only_once_the_log_is_known_to_be_the_same() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut logs = Logs::new(begun);
        logs.start(0, Some(Mark::of(&record(0, 9))));
        logs.note(&[record(0, 10), record(0, 11)], after(2));
        assert_eq!(logs.mark(0).map(|mark| mark.offset), Some(9));
        assert!(logs.due(true, after(29)).is_none());
        let marks = logs.due(true, after(30)).unwrap();
        assert_eq!(marks[&0].offset, 9);
        assert!(logs.due(false, after(90)).is_none(), "one look at a time");
        // What is read while the look is under way may be of another log.
        logs.note(&[record(0, 12)], after(31));
        assert!(logs.looked(&seen(&marks, Seen::Same)).is_empty());
        assert_eq!(logs.mark(0).map(|mark| mark.offset), Some(11));

        let marks = logs.due(true, after(60)).unwrap();
        assert_eq!(logs.looked(&seen(&marks, Seen::Other)), [0]);
        assert_eq!(logs.mark(0).map(|mark| mark.offset), Some(11), "the take-over must find what was found here");
    }

    #[test]
    fn ends_are_asked_for_while_something_is_not_fetched() {
        let begun = Instant::now();
        let mut logs = Logs::new(begun);
        logs.start(0, Some(Mark::of(&record(0, 9))));
        assert_eq!(logs.due(true, begun + ASK_ENDS_EVERY), None);
        assert_eq!(logs.due(false, begun + ASK_ENDS_EVERY), Some(BTreeMap::new()));
    }

    #[test]
    fn an_answer_about_a_partition_that_was_taken_over_again_is_none() {
        let begun = Instant::now();
        let mut logs = Logs::new(begun);
        logs.start(0, Some(Mark::of(&record(0, 9))));
        let marks = logs.due(true, begun + LOOK_EVERY).unwrap();
        logs.start(0, None);
        assert!(logs.looked(&seen(&marks, Seen::Other)).is_empty());
        logs.note(&[record(0, 3), record(1, 4)], begun);
        assert_eq!((logs.mark(0).map(|mark| mark.offset), logs.mark(1)), (Some(3), None));
    }
}
