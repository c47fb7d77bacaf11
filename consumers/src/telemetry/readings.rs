//! Reads metrics back, so that the status cannot differ from them: a recorder that hands everything on to another one and
//! remembers the few that the status is made of. Freshness is remembered for a minute.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder, SharedString, Unit,
};

use super::metrics as names;

/// Counters that are remembered.
const REMEMBERED: &[&str] = &[
    names::EVENTS,
    names::PASSED_OVER,
    names::ROWS_INSERTED,
    names::DUPLICATES_DROPPED,
    names::DEAD_LETTERS,
    names::INSERT_RETRIES,
    names::FENCE_REFUSALS,
    names::REBALANCES,
];

/// Part of the minute that is remembered or forgotten as a whole.
const SLOT: Duration = Duration::from_secs(10);
const SLOTS: usize = 6;
/// Buckets of ages, an eighth of a doubling each, from a millisecond on to 19 hours.
const BUCKETS: usize = 8 * 26;

/// What is remembered; cheap to clone.
#[derive(Clone, Default)]
pub struct Readings(Arc<Inner>);

#[derive(Default)]
struct Inner {
    values: Mutex<HashMap<Key, Arc<AtomicU64>>>,
    ages: Mutex<HashMap<Key, Arc<Mutex<Ages>>>>,
}

/// A recorder that remembers and hands on.
pub(super) struct Remembering<R> {
    pub(super) readings: Readings,
    pub(super) next: R,
}

impl Readings {
    /// Sum of the counter's series that carry this topic, or of all that carry none if it is about no topic.
    pub fn counter(&self, name: &str, topic: Option<&str>) -> u64 {
        self.matching(name, topic).map(|(_, value)| value.load(Ordering::Relaxed)).sum()
    }

    /// Dead letters of a topic by reason, without those that were none.
    pub fn dead_letters(&self, topic: &str) -> Vec<(String, u64)> {
        let by_reason = self.matching(names::DEAD_LETTERS, Some(topic)).filter_map(|(key, value)| {
            let count = value.load(Ordering::Relaxed);
            (count > 0).then_some((label(&key, "reason")?.to_owned(), count))
        });
        let mut by_reason: Vec<(String, u64)> = by_reason.collect();
        by_reason.sort();
        by_reason
    }

    /// The ages in seconds below which the shares `shares` of the last minute's events were; `None` without any.
    pub fn freshness<const N: usize>(&self, topic: &str, shares: [f64; N]) -> [Option<f64>; N] {
        let ages = lock(&self.0.ages);
        let ages = ages.iter().find(|(key, _)| label(key, "topic") == Some(topic));
        ages.map_or([None; N], |(_, ages)| lock(ages).quantiles(shares, Instant::now()))
    }

    fn matching(&self, name: &str, topic: Option<&str>) -> impl Iterator<Item = (Key, Arc<AtomicU64>)> + use<> {
        let values = lock(&self.0.values);
        let of = |(key, value): (&Key, &Arc<AtomicU64>)| {
            let wanted = key.name() == name && label(key, "topic") == topic;
            wanted.then(|| (key.clone(), Arc::clone(value)))
        };
        values.iter().filter_map(of).collect::<Vec<_>>().into_iter()
    }

    fn value(&self, key: &Key) -> Option<Arc<AtomicU64>> {
        REMEMBERED.contains(&key.name()).then(|| Arc::clone(lock(&self.0.values).entry(key.clone()).or_default()))
    }
}

impl<R: Recorder> Recorder for Remembering<R> {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.next.describe_counter(name, unit, description);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.next.describe_gauge(name, unit, description);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, description: SharedString) {
        self.next.describe_histogram(name, unit, description);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let next = self.next.register_counter(key, metadata);
        match self.readings.value(key) {
            Some(value) => Counter::from_arc(Arc::new(Both { ours: value, next })),
            None => next,
        }
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.next.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let next = self.next.register_histogram(key, metadata);
        if key.name() != names::FRESHNESS {
            return next;
        }
        let ours = Arc::clone(lock(&self.readings.0.ages).entry(key.clone()).or_default());
        Histogram::from_arc(Arc::new(Both { ours, next }))
    }
}

/// What remembers, and what comes after it.
struct Both<O, N> {
    ours: Arc<O>,
    next: N,
}

impl CounterFn for Both<AtomicU64, Counter> {
    fn increment(&self, by: u64) {
        self.ours.fetch_add(by, Ordering::Relaxed);
        self.next.increment(by);
    }

    fn absolute(&self, value: u64) {
        self.ours.fetch_max(value, Ordering::Relaxed);
        self.next.absolute(value);
    }
}

impl HistogramFn for Both<Mutex<Ages>, Histogram> {
    fn record(&self, seconds: f64) {
        self.record_many(seconds, 1);
    }

    fn record_many(&self, seconds: f64, count: usize) {
        lock(&self.ours).add(seconds, count as u64, Instant::now());
        self.next.record_many(seconds, count);
    }
}

/// How many events had which age, for each slot of the last minute.
#[derive(Debug, Default)]
struct Ages {
    began: Option<Instant>,
    slots: [Slot; SLOTS],
}

#[derive(Debug)]
struct Slot {
    /// Which, counted from the first.
    number: u64,
    counts: [u64; BUCKETS],
}

impl Default for Slot {
    fn default() -> Self {
        Self { number: 0, counts: [0; BUCKETS] }
    }
}

impl Ages {
    fn add(&mut self, seconds: f64, count: u64, now: Instant) {
        let number = self.number(now);
        let slot = &mut self.slots[number as usize % SLOTS];
        if slot.number != number {
            *slot = Slot { number, ..Slot::default() };
        }
        slot.counts[bucket(seconds)] += count;
    }

    fn quantiles<const N: usize>(&mut self, shares: [f64; N], now: Instant) -> [Option<f64>; N] {
        let number = self.number(now);
        let recent = |slot: &&Slot| slot.number + SLOTS as u64 > number;
        let counts: [u64; BUCKETS] =
            std::array::from_fn(|at| self.slots.iter().filter(recent).map(|slot| slot.counts[at]).sum::<u64>());
        let all: u64 = counts.iter().sum();
        shares.map(|share| {
            let mut left = (all as f64 * share).ceil() as u64;
            let within = |count: &u64| {
                let here = left <= *count;
                left = left.saturating_sub(*count);
                here
            };
            counts.iter().position(within).filter(|_| all > 0).map(upper_edge)
        })
    }

    /// Which slot it is, from 0.
    fn number(&mut self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(*self.began.get_or_insert(now));
        since.as_secs() / SLOT.as_secs()
    }
}

fn bucket(seconds: f64) -> usize {
    let eighths = ((seconds * 1000.0).max(1.0).log2() * 8.0).ceil();
    (eighths as usize).min(BUCKETS - 1)
}

/// In seconds.
fn upper_edge(bucket: usize) -> f64 {
    (bucket as f64 / 8.0).exp2() / 1000.0
}

fn label<'k>(key: &'k Key, name: &str) -> Option<&'k str> {
    key.labels().find(|label| label.key() == name).map(Label::value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use metrics::{NoopRecorder, counter, histogram};

    use super::*;

    #[test]
    fn what_is_counted_by_topic_is_read_back_by_topic() {
        let recorder = Remembering { readings: Readings::default(), next: NoopRecorder };
        metrics::with_local_recorder(&recorder, || {
            for (topic, count) in [("orders", 3), ("payments", 4), ("orders", 2)] {
                counter!(names::EVENTS, "topic" => topic).increment(count);
            }
            counter!(names::REBALANCES).increment(2);
            counter!(names::DEAD_LETTERS, "topic" => "orders", "reason" => "truncated").increment(7);
            counter!(names::DEAD_LETTERS, "topic" => "orders", "reason" => "bad_magic").absolute(0);
            counter!(names::LOOKUP_MISSES, "topic" => "orders").increment(1);
        });
        let readings = recorder.readings;
        assert_eq!(readings.counter(names::EVENTS, Some("orders")), 5);
        assert_eq!(readings.counter(names::EVENTS, Some("payments")), 4);
        assert_eq!(readings.counter(names::REBALANCES, None), 2);
        assert_eq!(readings.counter(names::LOOKUP_MISSES, Some("orders")), 0, "is not remembered");
        assert_eq!(readings.dead_letters("orders"), [("truncated".to_owned(), 7)]);
    }

    #[test]
    fn freshness_is_that_of_the_last_minute() {
        let recorder = Remembering { readings: Readings::default(), next: NoopRecorder };
        metrics::with_local_recorder(&recorder, || {
            histogram!(names::FRESHNESS, "topic" => "orders").record_many(0.2, 99);
            histogram!(names::FRESHNESS, "topic" => "orders").record_many(4.0, 1);
        });
        let [p50, p99, all] = recorder.readings.freshness("orders", [0.5, 0.99, 1.0]);
        let near = |found: Option<f64>, wanted: f64| found.is_some_and(|found| (wanted..wanted * 1.1).contains(&found));
        assert!(near(p50, 0.2) && near(p99, 0.2) && near(all, 4.0), "{p50:?} {p99:?} {all:?}");
        assert_eq!(recorder.readings.freshness("payments", [0.5]), [None]);

        let begun = Instant::now();
        let mut ages = Ages::default();
        ages.add(10.0, 1, begun);
        ages.add(1.0, 3, begun + Duration::from_secs(45));
        assert!(near(ages.quantiles([1.0], begun + Duration::from_secs(59))[0], 10.0));
        assert!(near(ages.quantiles([1.0], begun + Duration::from_secs(60))[0], 1.0));
        assert_eq!(ages.quantiles([0.5], begun + Duration::from_secs(101)), [None]);
    }
}
