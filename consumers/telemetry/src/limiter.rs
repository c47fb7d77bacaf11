//! Which of many equal log lines is written: the first, and then one per interval, with the number of those left out
//! before it. Pure: time is brought by the caller.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Kinds of lines remembered at once, 24 bytes each. Two kinds that share a slot push each other out, and are then
/// written more often than they should be, never less.
const SLOTS: usize = 1024;

/// Remembers when lines were written last. It takes no lock: threads that race write a line more or count one less.
#[derive(Debug)]
pub struct Limiter {
    interval_ms: u64,
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0 while it is empty.
    kind: AtomicU64,
    written_ms: AtomicU64,
    left_out: AtomicU64,
}

impl Limiter {
    /// Lets a line of a kind through once in `interval_ms` milliseconds; always, if that is 0.
    pub fn new(interval_ms: u64) -> Self {
        Self { interval_ms, slots: (0..SLOTS).map(|_| Slot::default()).collect() }
    }

    /// Whether a line of this kind (a hash) is to be written now, in milliseconds of any clock that does not go back; and
    /// if so, how many were left out since the last.
    pub fn admit(&self, kind: u64, now_ms: u64) -> Option<u64> {
        if self.interval_ms == 0 {
            return Some(0);
        }
        let kind = kind.max(1);
        let slot = &self.slots[kind as usize % SLOTS];
        if slot.kind.swap(kind, Relaxed) != kind {
            slot.written_ms.store(now_ms, Relaxed);
            slot.left_out.store(0, Relaxed);
            return Some(0);
        }
        let written_ms = slot.written_ms.load(Relaxed);
        let due = now_ms.saturating_sub(written_ms) >= self.interval_ms;
        // Of two threads that find it due, one writes.
        if due && slot.written_ms.compare_exchange(written_ms, now_ms, Relaxed, Relaxed).is_ok() {
            return Some(slot.left_out.swap(0, Relaxed));
        }
        slot.left_out.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_written_then_one_per_interval_with_the_number_of_those_between() {
        let limiter = Limiter::new(10_000);
        assert_eq!(limiter.admit(7, 500), Some(0));
        for now in [500, 501, 10_499] {
            assert_eq!(limiter.admit(7, now), None, "{now}");
        }
        assert_eq!(limiter.admit(7, 10_500), Some(3));
        assert_eq!(limiter.admit(7, 20_499), None);
        assert_eq!(limiter.admit(7, 60_000), Some(1));
        assert_eq!(limiter.admit(7, 90_000), Some(0), "nothing was left out");
    }

    #[test]
    fn kinds_do_not_silence_each_other() {
        let limiter = Limiter::new(10_000);
        let kinds = 1..=100;
        assert!(kinds.clone().all(|kind| limiter.admit(kind, 0) == Some(0)));
        assert!(kinds.clone().all(|kind| limiter.admit(kind, 1).is_none()));
        // One that takes the slot of another pushes it out: both are written, however often.
        let other = 1 + SLOTS as u64;
        assert_eq!([limiter.admit(other, 2), limiter.admit(1, 3), limiter.admit(other, 4)], [Some(0); 3]);
        assert_eq!(limiter.admit(2, 5), None);
        assert_eq!(limiter.admit(0, 5), limiter.admit(3, 0).or(Some(0)), "a hash may be 0");
    }

    #[test]
    fn without_an_interval_every_line_is_written() {
        let limiter = Limiter::new(0);
        assert!((0..5).all(|_| limiter.admit(7, 1) == Some(0)));
    }

    #[test]
    fn threads_that_race_write_a_due_line_once() {
        let limiter = Limiter::new(1_000);
        assert_eq!(limiter.admit(7, 0), Some(0));
        let written: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| limiter.admit(7, 1_500).is_some()).count()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(written, 1);
        let left_out = limiter.admit(7, 3_000).unwrap();
        assert!((7_000..8_000).contains(&left_out), "{left_out}");
    }
}
