//! Which replica of a shard is written to: one at a time, and another only when that one has failed again and again.
//!
//! A move is not free: whoever makes it knows neither what the replica has taken nor which claims it has seen, so every
//! partition is claimed anew, the replica brought up to date, and ids are loaded again.

/// The replicas of one shard, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    replicas: usize,
    current: usize,
    failures: u32,
    failures_to_move: u32,
}

impl Choice {
    /// The first of so many replicas (at least one), until it has failed so often in a row.
    pub fn new(replicas: usize, failures_to_move: u32) -> Self {
        Self { replicas: replicas.max(1), current: 0, failures: 0, failures_to_move: failures_to_move.max(1) }
    }

    /// After how many failures in a row another one is asked.
    pub fn failures_to_move(&self) -> u32 {
        self.failures_to_move
    }

    /// The replica to ask.
    pub fn current(&self) -> usize {
        self.current
    }

    /// A replica has answered, be it that it refuses.
    pub fn answered(&mut self, at: usize) {
        if at == self.current {
            self.failures = 0;
        }
    }

    /// A replica has failed; the one to ask from now on, if that is another. A failure that is told late, of a replica that
    /// was left meanwhile, counts for nothing.
    pub fn failed(&mut self, at: usize) -> Option<usize> {
        if at != self.current || self.replicas == 1 {
            return None;
        }
        self.failures += 1;
        if self.failures < self.failures_to_move {
            return None;
        }
        self.failures = 0;
        self.current = (self.current + 1) % self.replicas;
        Some(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_is_left_when_it_has_failed_so_often_in_a_row() {
        let mut choice = Choice::new(3, 2);
        assert_eq!((choice.current(), choice.failed(0)), (0, None));
        choice.answered(0);
        assert_eq!((choice.failed(0), choice.failed(0)), (None, Some(1)));
        // What is told late of the one that was left moves nobody, and neither does its answer excuse the next.
        assert_eq!((choice.failed(0), choice.failed(0), choice.current()), (None, None, 1));
        assert_eq!(choice.failed(1), None);
        choice.answered(0);
        assert_eq!(choice.failed(1), Some(2));
        assert_eq!((choice.failed(2), choice.failed(2)), (None, Some(0)), "after the last comes the first again");
    }

    #[test]
    fn where_there_is_no_other_replica_nobody_moves() {
        let mut choice = Choice::new(1, 1);
        assert_eq!((choice.failed(0), choice.failed(0), choice.current()), (None, None, 0));
    }
}
