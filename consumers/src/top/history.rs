//! The last few answers, and what happened per second between them. Counters are totals, and begin anew with the process:
//! no rate goes over such a beginning.

use std::{collections::VecDeque, time::Duration};

use crate::status::answer::{Answer, Partition, Topic};

/// Rates are over so long: one second alone jumps with each batch.
const WINDOW: Duration = Duration::from_secs(5);

/// An answer, and when it came on the asker's own clock.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// Since the asker started.
    pub(super) at: Duration,
    /// What was said.
    pub(super) answer: Answer,
}

/// Answers of the last seconds, the oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

/// Per second; `None` where it cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Records read.
    pub(super) events: Option<f64>,
    /// Rows acknowledged.
    pub(super) rows: Option<f64>,
    /// Duplicates dropped.
    pub(super) duplicates: Option<f64>,
    /// Dead letters of all reasons.
    pub(super) dead_letters: Option<f64>,
    /// Records of other types.
    pub(super) passed_over: Option<f64>,
    /// Inserts sent again.
    pub(super) retries: Option<f64>,
}

impl History {
    /// Takes an answer, and forgets those that are too old to make a rate with.
    pub(super) fn push(&mut self, sample: Sample) {
        // The one that is a window old, or just older, stays.
        while self.samples.get(1).is_some_and(|second| sample.at.saturating_sub(second.at) >= WINDOW) {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The last answer.
    pub(super) fn last(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// Of a topic, over the window or what there is of it.
    pub(super) fn rates(&self, label: &str) -> Rates {
        let rate =
            |of: fn(&Topic) -> u64| self.rate(|answer| answer.topics.iter().find(|topic| topic.topic == label).map(of));
        Rates {
            events: rate(|topic| topic.events),
            rows: rate(|topic| topic.rows),
            duplicates: rate(|topic| topic.duplicates),
            dead_letters: rate(Topic::dead_letters),
            passed_over: rate(|topic| topic.passed_over),
            retries: rate(|topic| topic.insert_retries),
        }
    }

    /// Records read of a partition, per second.
    pub(super) fn partition_rate(&self, label: &str, number: i32) -> Option<f64> {
        let next = |partition: &Partition| u64::try_from(partition.next_offset?).ok();
        self.rate(|answer| {
            let topic = answer.topics.iter().find(|topic| topic.topic == label)?;
            topic.partitions.iter().find(|partition| partition.partition == number).and_then(next)
        })
    }

    /// From the earliest answer after which the process and the counter did not begin anew.
    fn rate(&self, counter: impl Fn(&Answer) -> Option<u64>) -> Option<f64> {
        let last = self.samples.back()?;
        let end = counter(&last.answer)?;
        let (mut begin, mut least) = (None, end);
        for sample in self.samples.iter().rev().skip(1) {
            let value = counter(&sample.answer).filter(|value| *value <= least);
            let Some(value) = value.filter(|_| sample.answer.started_at == last.answer.started_at) else { break };
            (begin, least) = (Some((sample.at, value)), value);
        }
        let (at, value) = begin?;
        let seconds = last.at.saturating_sub(at).as_secs_f64();
        (seconds > 0.0).then(|| (end - value) as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::tests::example;

    fn sample(at_s: f64, events: u64) -> Sample {
        let mut answer = example();
        answer.topics[0].events = events;
        Sample { at: Duration::from_secs_f64(at_s), answer }
    }

    fn history(samples: impl IntoIterator<Item = Sample>) -> History {
        let mut history = History::default();
        samples.into_iter().for_each(|sample| history.push(sample));
        history
    }

    fn events(history: &History) -> Option<f64> {
        history.rates("orders").events
    }

    #[test]
    fn a_rate_is_over_the_window_and_needs_two_answers() {
        assert_eq!(events(&history([sample(0.0, 100)])), None);
        assert_eq!(events(&history([sample(0.0, 100), sample(2.0, 300)])), Some(100.0));
        // Ten a second for long, then a thousand a second for the last five.
        let old = (0..20).map(|at| sample(f64::from(at), u64::from(at as u32) * 10));
        let new = (1..=5).map(|at| sample(f64::from(19 + at), 190 + 1000 * u64::from(at as u32)));
        let history = history(old.chain(new));
        assert_eq!(events(&history), Some(1000.0));
        assert!(history.samples.len() <= 7, "{}", history.samples.len());
    }

    #[test]
    fn no_rate_goes_over_a_beginning_of_the_counters() {
        let mut history = history([sample(0.0, 5_000), sample(1.0, 6_000), sample(2.0, 100)]);
        assert_eq!(events(&history), None, "a counter that has fallen tells nothing");
        history.push(sample(3.0, 300));
        assert_eq!(events(&history), Some(200.0));
        // A process that is further already than the one before it.
        let mut other = sample(4.0, 9_000);
        other.answer.started_at = "2026-11-23T12:00:00Z".to_owned();
        history.push(other.clone());
        assert_eq!(events(&history), None);
        other.at = Duration::from_secs(5);
        other.answer.topics[0].events = 9_050;
        history.push(other);
        assert_eq!(events(&history), Some(50.0));
    }

    #[test]
    fn a_topic_or_partition_that_was_not_there_has_no_rate() {
        let mut before = sample(0.0, 1);
        before.answer.topics[0].partitions.remove(0);
        let mut after = sample(1.0, 1);
        after.answer.topics[0].partitions[1].next_offset =
            after.answer.topics[0].partitions[1].next_offset.map(|at| at + 70);
        let history = history([before, after]);
        assert_eq!(history.partition_rate("orders", 0), None);
        assert_eq!(history.partition_rate("orders", 1), Some(70.0));
        assert_eq!(history.rates("nothing"), Rates::default());
    }
}
