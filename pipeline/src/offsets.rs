//! Which offsets may be committed: those behind which every batch is durable.
//!
//! Batches may be acknowledged out of order; a partition's offset moves only over an unbroken run of them, so that a
//! commit never passes a row, a dropped duplicate's original or a dead letter that is not durable yet.

use std::collections::{BTreeMap, VecDeque};

use crate::batch::Progress;

/// Batches sent and not yet behind the committed offsets.
#[derive(Debug, Default)]
pub struct OffsetTracker {
    sent: VecDeque<Sent>,
    /// Durable and in unbroken order, not handed out yet.
    committable: BTreeMap<i32, Progress>,
}

#[derive(Debug)]
struct Sent {
    seq: u64,
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
        self.settle();
        std::mem::take(&mut self.committable)
    }

    /// Takes a batch out whose outcome will never be known, and forgets its partitions, which have to be read again.
    pub fn unsettled(&mut self, seq: u64) -> Vec<i32> {
        let at = self.sent.iter().position(|sent| sent.seq == seq);
        let sent = at.and_then(|at| self.sent.remove(at));
        let partitions: Vec<i32> = sent.iter().flat_map(|sent| &sent.progress).map(|one| one.partition).collect();
        self.forget(&partitions);
        // Nothing may come after it that would take the durable batches behind it off the list.
        self.settle();
        partitions
    }

    /// Forgets the partitions: nothing that was sent of them is ever committed.
    pub fn forget(&mut self, partitions: &[i32]) {
        for sent in &mut self.sent {
            sent.progress.retain(|progress| !partitions.contains(&progress.partition));
        }
        self.committable.retain(|partition, _| !partitions.contains(partition));
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    fn settle(&mut self) {
        while self.sent.front().is_some_and(|sent| sent.durable) {
            for progress in self.sent.pop_front().into_iter().flat_map(|sent| sent.progress) {
                self.committable.insert(progress.partition, progress);
            }
        }
    }
}

#[cfg(test)]
mod tests;
