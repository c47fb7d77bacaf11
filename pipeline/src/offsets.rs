//! Which offsets may be committed: those behind which every batch of their partition is durable.
//!
//! Batches may be acknowledged out of order; a partition's offset moves only over an unbroken run of its batches, so that
//! a commit never passes a row, a dropped duplicate's original or a dead letter that is not durable yet. All of these are
//! of the same partition, so a batch holds up no partition but its own: a commit that may be made is told at once, by the
//! acknowledgement that allows it, and never waits for another batch to be told of.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::batch::Progress;

/// Batches sent and not yet behind the committed offsets.
#[derive(Debug, Default)]
pub struct OffsetTracker {
    sent: VecDeque<Sent>,
}

#[derive(Debug)]
struct Sent {
    seq: u64,
    /// What is not committable yet.
    progress: Vec<Progress>,
    durable: bool,
}

impl OffsetTracker {
    /// Notes that a batch is on its way. Batches are sent in the order of their numbers.
    pub fn sent(&mut self, seq: u64, progress: &[Progress]) {
        debug_assert!(self.sent.back().is_none_or(|last| last.seq < seq));
        self.sent.push_back(Sent { seq, progress: progress.to_vec(), durable: false });
    }

    /// Notes that a batch is durable: the offsets that may be committed now, by partition, with the claim's epoch.
    pub fn durable(&mut self, seq: u64) -> BTreeMap<i32, Progress> {
        if let Some(sent) = self.sent.iter_mut().find(|sent| sent.seq == seq) {
            sent.durable = true;
        }
        let mut held_up: BTreeSet<i32> = BTreeSet::new();
        let mut committable = BTreeMap::new();
        for sent in &mut self.sent {
            if sent.durable {
                let free = sent.progress.extract_if(.., |one| !held_up.contains(&one.partition));
                committable.extend(free.map(|one| (one.partition, one)));
            } else {
                held_up.extend(sent.progress.iter().map(|one| one.partition));
            }
        }
        self.tidy();
        committable
    }

    /// Takes a batch out whose outcome will never be known, and forgets its partitions, which have to be read again.
    pub fn unsettled(&mut self, seq: u64) -> Vec<i32> {
        let at = self.sent.iter().position(|sent| sent.seq == seq);
        let sent = at.and_then(|at| self.sent.remove(at));
        let partitions: Vec<i32> = sent.iter().flat_map(|sent| &sent.progress).map(|one| one.partition).collect();
        self.forget(&partitions);
        partitions
    }

    /// Forgets the partitions: nothing that was sent of them is ever committed.
    pub fn forget(&mut self, partitions: &[i32]) {
        for sent in &mut self.sent {
            sent.progress.retain(|progress| !partitions.contains(&progress.partition));
        }
        self.tidy();
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// Takes out what is durable and told.
    fn tidy(&mut self) {
        self.sent.retain(|sent| !sent.durable || !sent.progress.is_empty());
    }
}

#[cfg(test)]
mod tests;
