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
        let mut committable = BTreeMap::new();
        while self.sent.front().is_some_and(|sent| sent.durable) {
            for progress in self.sent.pop_front().into_iter().flat_map(|sent| sent.progress) {
                committable.insert(progress.partition, progress);
            }
        }
        committable
    }

    /// Takes a batch out whose outcome will never be known; its partitions, which have to be read again.
    pub fn unsettled(&mut self, seq: u64) -> Vec<i32> {
        let at = self.sent.iter().position(|sent| sent.seq == seq);
        let sent = at.and_then(|at| self.sent.remove(at));
        sent.map_or_else(Vec::new, |sent| sent.progress.iter().map(|progress| progress.partition).collect())
    }

    /// Forgets the partitions: nothing that was sent of them is ever committed.
    pub fn forget(&mut self, partitions: &[i32]) {
        for sent in &mut self.sent {
            sent.progress.retain(|progress| !partitions.contains(&progress.partition));
        }
    }

    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }
}

#[cfg(test)]
mod tests;
