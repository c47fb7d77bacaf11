//! What is on its way to the shards of ClickHouse and not sent: an open batch each, so that no batch holds rows of two.

use arrow_schema::ArrowError;

use super::{TopicPipeline, Waiting};
use crate::{
    assignment::Attempt,
    batch::{Batch, Batcher, Trigger},
    dedup::Millis,
    shard::shard_of,
};

/// What is on its way to one shard and not sent.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) waiting: Option<Waiting>,
    pub(super) batcher: Batcher,
}

impl Lane {
    /// Partitions with records in it.
    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> + '_ {
        let waiting = self.waiting.iter().flat_map(|waiting| waiting.fresh.progress.iter().map(|one| one.partition));
        self.batcher.partitions().chain(waiting)
    }

    /// Throws all of it away; the partitions that have lost something by it.
    pub(super) fn abandon(&mut self) -> Vec<i32> {
        let partitions = self.partitions().collect();
        self.waiting = None;
        self.batcher.abandon();
        partitions
    }
}

impl TopicPipeline {
    /// For so many shards of ClickHouse, at least one: rows of partitions of different shards (see [`shard_of`]) never share a
    /// batch. To be said before any partition is assigned.
    #[must_use]
    pub fn sharded(mut self, shards: usize) -> Self {
        let lane = || Lane { waiting: None, batcher: Batcher::new(self.spec.batch, self.projector.schema().clone()) };
        self.lanes = (0..shards.max(1)).map(|_| lane()).collect();
        self
    }

    /// The shard that a partition belongs to.
    pub fn shard_of(&self, partition: i32) -> usize {
        shard_of(partition, self.lanes.len())
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.lanes.len()
    }

    /// Gives up what is open for these shards, and has all that lose by it and `all` taken over again.
    pub(super) fn begin_anew(&mut self, shards: &[usize], mut all: Vec<i32>) -> Option<(Attempt, Vec<i32>)> {
        all.extend(shards.iter().flat_map(|shard| self.lanes[*shard].abandon()));
        all.sort_unstable();
        all.dedup();
        let restarted = self.assignment.restart(&all);
        if let Some((_, partitions)) = &restarted {
            self.forget(partitions);
        }
        restarted
    }

    /// Why the open batch of a shard should be closed now, if it should.
    pub fn due(&self, shard: usize, now: Millis) -> Option<Trigger> {
        self.lanes[shard].batcher.due(now)
    }

    /// When the open batch of a shard is due by age.
    pub fn deadline(&self, shard: usize) -> Option<Millis> {
        self.lanes[shard].batcher.deadline()
    }

    /// Closes the open batch of a shard and notes it as sent; `None` when it is empty.
    ///
    /// # Errors
    /// When the rows together exceed what one Arrow array can hold.
    pub fn close(&mut self, shard: usize, trigger: Trigger) -> Result<Option<Batch>, ArrowError> {
        let batch = self.lanes[shard].batcher.close(self.next_seq, trigger)?;
        if let Some(batch) = &batch {
            self.next_seq += 1;
            self.offsets.sent(batch.seq, &batch.progress);
        }
        Ok(batch)
    }

    /// Notes how long an insert into a shard took, which decides how old its next batches grow.
    pub fn inserted(&mut self, shard: usize, took_ms: Millis) {
        self.lanes[shard].batcher.inserted(took_ms);
    }
}
