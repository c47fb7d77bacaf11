//! Whether too large a share of what is read becomes dead letters: the limit that keeps a wrong deployment from moving a
//! topic into its dead-letter topic. It has no clock; the caller brings the time and does the stopping.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use crate::{dedup::Millis, reason::Reason};

/// The whole, in parts per million.
const WHOLE: u32 = 1_000_000;
/// The window moves on in so many steps, by time and by events.
const STEPS: u64 = 64;

/// A share of a whole, exact to a millionth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// From 0 to 1; `None` for anything else.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then(|| Self((share * f64::from(WHOLE)).round() as u32))
    }

    /// The share, from 0 to 1.
    pub fn get(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }

    /// Whether `part` of `whole` is more than this share.
    fn is_exceeded_by(self, part: u64, whole: u64) -> bool {
        u128::from(part) * u128::from(WHOLE) > u128::from(whole) * u128::from(self.0)
    }
}

impl fmt::Display for Share {
    /// As a number from 0 to 1.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// How large a share of what is read may become dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimit {
    /// Up to this share all goes on; the whole is never exceeded.
    pub max_share: Share,
    /// How far back events count. Where that is fewer than `min_events`, older ones count too, so that a quiet topic is
    /// judged as well.
    pub window: Duration,
    /// Fewer events than these are not judged.
    pub min_events: u64,
}

/// Events that were read, and those of them that became dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events read.
    pub events: u64,
    /// Dead letters, per reason.
    pub rejected: BTreeMap<Reason, Rejected>,
}

/// Dead letters of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// How many.
    pub count: u64,
    /// Source partition of one of them.
    pub partition: i32,
    /// Its source offset.
    pub offset: i64,
}

impl Tally {
    /// Counts a dead letter of the events.
    pub fn reject(&mut self, reason: Reason, partition: i32, offset: i64) {
        self.rejected.entry(reason).or_insert(Rejected { count: 0, partition, offset }).count += 1;
    }

    /// Dead letters of all reasons.
    pub fn rejected(&self) -> u64 {
        self.rejected.values().map(|rejected| rejected.count).sum()
    }

    /// Adds what came later; its examples are kept.
    fn add(&mut self, later: &Self) {
        self.events += later.events;
        for (reason, rejected) in &later.rejected {
            let count = self.rejected.get(reason).map_or(0, |earlier| earlier.count) + rejected.count;
            self.rejected.insert(*reason, Rejected { count, ..*rejected });
        }
    }
}

/// That the limit is exceeded, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// The limit.
    pub limit: ShareLimit,
    /// Events judged.
    pub events: u64,
    /// Dead letters among them.
    pub rejected: u64,
    /// The most frequent reason.
    pub reason: Reason,
    /// Its dead letters, and where the latest chunk with one had its first.
    pub of_reason: Rejected,
}

/// Watches one topic.
#[derive(Debug)]
pub struct ShareGuard {
    limit: ShareLimit,
    step_ms: Millis,
    /// Oldest first, each with the time of its latest events.
    steps: VecDeque<(Millis, Tally)>,
}

impl ShareGuard {
    /// A guard that has seen nothing.
    pub fn new(limit: ShareLimit) -> Self {
        let window_ms = Millis::try_from(limit.window.as_millis()).unwrap_or(Millis::MAX);
        Self { limit, step_ms: (window_ms / STEPS).max(1), steps: VecDeque::new() }
    }

    /// Counts events that were read by `now`. If that exceeds the limit, dead letters that are not sent yet must not be.
    pub fn count(&mut self, now: Millis, tally: &Tally) -> Option<Exceeded> {
        match self.steps.back_mut().filter(|(at, last)| {
            // A step is closed once it is long enough and holds enough: so there are never many of them.
            now / self.step_ms == *at / self.step_ms || last.events < self.limit.min_events.div_ceil(STEPS)
        }) {
            Some((at, last)) => {
                *at = now;
                last.add(tally);
            }
            None => self.steps.push_back((now, tally.clone())),
        }
        let seen = self.seen(now);
        let rejected = seen.rejected();
        if seen.events < self.limit.min_events || !self.limit.max_share.is_exceeded_by(rejected, seen.events) {
            return None;
        }
        let (reason, of_reason) = seen.rejected.into_iter().max_by_key(|(_, rejected)| rejected.count)?;
        Some(Exceeded { limit: self.limit, events: seen.events, rejected, reason, of_reason })
    }

    /// The share of dead letters among the events that count at `now`, from 0 to 1.
    pub fn share(&mut self, now: Millis) -> f64 {
        let seen = self.seen(now);
        if seen.events == 0 { 0.0 } else { seen.rejected() as f64 / seen.events as f64 }
    }

    /// What counts at `now`; lets go of what does not any more.
    fn seen(&mut self, now: Millis) -> Tally {
        let mut events: u64 = self.steps.iter().map(|(_, step)| step.events).sum();
        while let Some((at, oldest)) = self.steps.front() {
            let is_old = now.saturating_sub(*at) >= self.step_ms.saturating_mul(STEPS);
            if !is_old || events - oldest.events < self.limit.min_events {
                break;
            }
            events -= oldest.events;
            self.steps.pop_front();
        }
        let mut seen = Tally::default();
        self.steps.iter().for_each(|(_, step)| seen.add(step));
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(max_share: f64, min_events: u64) -> ShareGuard {
        let max_share = Share::new(max_share).unwrap();
        ShareGuard::new(ShareLimit { max_share, window: Duration::from_secs(64), min_events })
    }

    /// So many events, the first of which cannot be read.
    fn tally(events: u64, bad: u64) -> Tally {
        let mut tally = Tally { events, ..Tally::default() };
        (0..bad).for_each(|at| tally.reject(Reason::Truncated, 3, at as i64));
        tally
    }

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        assert_eq!(Share::new(0.5), Some(Share(500_000)));
        assert_eq!((Share::new(0.0), Share::new(1.0)), (Some(Share(0)), Some(Share(WHOLE))));
        for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(share), None, "{share}");
        }
    }

    #[test]
    fn exactly_the_share_goes_on_and_one_more_stops() {
        assert_eq!(guard(0.5, 100).count(0, &tally(100, 50)), None);
        let exceeded = guard(0.5, 100).count(0, &tally(100, 51)).unwrap();
        assert_eq!((exceeded.events, exceeded.rejected), (100, 51));
        assert_eq!(guard(0.0, 100).count(0, &tally(100, 0)), None);
        assert!(guard(0.0, 100).count(0, &tally(100, 1)).is_some());
        assert_eq!(guard(1.0, 100).count(0, &tally(1_000_000, 1_000_000)), None, "the whole is never exceeded");
    }

    #[test]
    fn fewer_events_than_the_minimum_are_not_judged() {
        let mut guard = guard(0.5, 1_000);
        assert_eq!(guard.count(0, &tally(999, 999)), None);
        let exceeded = guard.count(0, &tally(1, 1)).unwrap();
        assert_eq!((exceeded.events, exceeded.rejected), (1_000, 1_000));
    }

    #[test]
    fn a_start_with_poison_is_judged_with_what_follows_it() {
        let mut guard = guard(0.5, 1_000);
        assert_eq!(guard.count(0, &tally(400, 400)), None);
        assert_eq!(guard.count(1, &tally(600, 0)), None);
        assert_eq!(guard.count(2, &tally(4_096, 100)), None);
    }

    #[test]
    fn every_fifth_event_poison_goes_on_for_ever_whatever_the_chunks() {
        let mut guard = guard(0.5, 1_000);
        for now in 0..100_000 {
            let events = 5 + now * 7 % 4_096;
            assert_eq!(guard.count(now * 3, &tally(events, events / 5)), None, "{now}");
        }
        let share = guard.share(300_000);
        assert!((0.19..0.2).contains(&share), "{share}");
    }

    #[test]
    fn a_topic_that_turns_bad_stops_once_the_bad_are_the_share_of_one_window() {
        let mut guard = guard(0.5, 1_000);
        // A hundred events a second, good for ten minutes: only the last 64 s of it count.
        assert!((0..600_000).step_by(100).all(|now| guard.count(now, &tally(10, 0)).is_none()));
        let mut moved = 0;
        let stopped = (600_000..).step_by(100).find(|now| {
            let exceeded = guard.count(*now, &tally(10, 10)).is_some();
            moved += if exceeded { 0 } else { 10 };
            exceeded
        });
        let after = stopped.unwrap() - 600_000;
        assert!((31_000..=33_000).contains(&after), "{after} ms");
        assert!(moved <= 3_300, "{moved} dead letters");
    }

    #[test]
    fn a_quiet_topic_is_judged_by_its_last_events_however_old() {
        let mut guard = guard(0.5, 1_000);
        const HOUR: Millis = 3_600_000;
        assert!((0..1_000).all(|hour| guard.count(hour * HOUR, &tally(1, 0)).is_none()));
        let stopped = (1_000..).find(|hour| guard.count(hour * HOUR, &tally(1, 1)).is_some()).unwrap();
        assert!((1_500..1_530).contains(&stopped), "{stopped}");
        assert!(guard.steps.len() <= 2 * STEPS as usize, "{} steps", guard.steps.len());
    }

    #[test]
    fn what_is_past_the_window_counts_no_more() {
        let mut guard = guard(0.5, 100);
        assert_eq!(guard.count(0, &tally(200, 100)), None);
        assert_eq!(guard.count(63_000, &tally(200, 60)), None);
        assert!((guard.share(63_999) - 0.4).abs() < 1e-9);
        assert!((guard.share(64_000) - 0.3).abs() < 1e-9);
        assert_eq!(guard.count(64_000, &tally(100, 90)), None, "150 of 300");
        assert!(guard.count(64_000, &tally(1, 1)).is_some());
    }

    #[test]
    fn the_most_frequent_reason_is_named_with_a_late_example() {
        let mut guard = guard(0.1, 10);
        let mut chunk = tally(10, 1);
        assert_eq!(guard.count(0, &chunk), None);
        chunk.reject(Reason::BadMagic, 7, 70);
        chunk.reject(Reason::BadMagic, 7, 71);
        let exceeded = guard.count(1, &chunk).unwrap();
        assert_eq!((exceeded.events, exceeded.rejected), (20, 4));
        let mut chunk = tally(1, 0);
        chunk.reject(Reason::BadMagic, 8, 80);
        let exceeded = guard.count(2, &chunk).unwrap();
        let of_reason = Rejected { count: 3, partition: 8, offset: 80 };
        assert_eq!((exceeded.reason, exceeded.of_reason), (Reason::BadMagic, of_reason));
    }
}
