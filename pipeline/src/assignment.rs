//! The partitions that Kafka gave to this consumer, and how far each is on its way to being read.
//!
//! Kafka's word is not enough to write: a partition is read only after its claim stands in ClickHouse, no insert of an
//! earlier owner runs, and the ids that ClickHouse holds are loaded. All of that is one *take-over*, done by the shell
//! under a number; an answer to a take-over that has been superseded is ignored.

use std::collections::BTreeMap;

/// Number of a take-over; never used twice.
pub type Attempt = u64;

/// Partitions held, by number.
#[derive(Debug, Default)]
pub struct Assignment {
    partitions: BTreeMap<i32, State>,
    attempts: Attempt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    TakingOver(Attempt),
    Running {
        epoch: u64,
        /// Records before this offset are not wanted: they were read already.
        next_offset: i64,
    },
}

impl Assignment {
    /// Kafka assigned partitions: they are to be taken over under the number returned.
    pub fn assign(&mut self, partitions: &[i32]) -> Attempt {
        self.attempts += 1;
        for partition in partitions {
            self.partitions.insert(*partition, State::TakingOver(self.attempts));
        }
        self.attempts
    }

    /// Kafka took partitions away.
    pub fn revoke(&mut self, partitions: &[i32]) {
        self.partitions.retain(|partition, _| !partitions.contains(partition));
    }

    /// Something about these partitions is not known any more: those of them that are still held and were running go
    /// back to being taken over. `None` when there are none.
    pub fn restart(&mut self, partitions: &[i32]) -> Option<(Attempt, Vec<i32>)> {
        let running: Vec<i32> =
            partitions.iter().copied().filter(|partition| self.epoch(*partition).is_some()).collect();
        if running.is_empty() { None } else { Some((self.assign(&running), running)) }
    }

    /// A take-over is complete: the partition runs from `next_offset` on. `false` when it is not ours any more or
    /// another take-over of it has begun.
    pub fn taken_over(&mut self, attempt: Attempt, partition: i32, epoch: u64, next_offset: i64) -> bool {
        match self.partitions.get_mut(&partition) {
            Some(state) if *state == State::TakingOver(attempt) => {
                *state = State::Running { epoch, next_offset };
                true
            }
            _ => false,
        }
    }

    /// Whether a record is to be processed; if so, it and all before it in its partition are never wanted again.
    pub fn accept(&mut self, partition: i32, offset: i64) -> bool {
        match self.partitions.get_mut(&partition) {
            Some(State::Running { next_offset, .. }) if offset >= *next_offset => {
                *next_offset = offset + 1;
                true
            }
            _ => false,
        }
    }

    /// Epoch of the claim of a running partition.
    pub fn epoch(&self, partition: i32) -> Option<u64> {
        match self.partitions.get(&partition) {
            Some(State::Running { epoch, .. }) => Some(*epoch),
            _ => None,
        }
    }

    /// Whether a partition still waits for this very take-over.
    pub fn is_taking_over(&self, attempt: Attempt, partition: i32) -> bool {
        self.partitions.get(&partition) == Some(&State::TakingOver(attempt))
    }

    /// Whether any partition still waits for this take-over.
    pub fn is_pending(&self, attempt: Attempt) -> bool {
        self.partitions.values().any(|state| *state == State::TakingOver(attempt))
    }

    /// Running partitions with the offset that each wants next.
    pub fn running(&self) -> impl Iterator<Item = (i32, i64)> + '_ {
        self.partitions.iter().filter_map(|(partition, state)| match state {
            State::Running { next_offset, .. } => Some((*partition, *next_offset)),
            State::TakingOver(_) => None,
        })
    }

    /// Partitions held, running or not.
    pub fn held(&self) -> impl Iterator<Item = i32> + '_ {
        self.partitions.keys().copied()
    }

    /// Whether every partition held is running.
    pub fn settled(&self) -> bool {
        self.partitions.values().all(|state| matches!(state, State::Running { .. }))
    }
}

#[cfg(test)]
mod tests;
