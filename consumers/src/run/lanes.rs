//! The shards as the worker sees them: one that takes no rows stands still by itself, and the partitions of the others go on.

use std::time::{Duration, Instant};

use millrace_pipeline::dedup::Millis;

use super::worker::Worker;

/// How long the worker stands still for a shard that is full while others are not, before it pauses that one's partitions. A
/// pause throws away what librdkafka fetched ahead; to stand still holds the other shards up.
const STAND_STILL_BESIDE: Duration = Duration::from_millis(200);

/// What is on its way to one shard.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lane {
    /// Batches sent and not answered.
    pub(super) in_flight: usize,
    /// Since when it takes no more: every slot is in use and the batch is due.
    pub(super) full_since: Option<Instant>,
    /// Whether its partitions are paused for that.
    pub(super) shut: bool,
}

impl Worker {
    /// Notes which shards are full; whether all are that have partitions which are read. For one shard: whether it is.
    pub(super) fn all_are_full(&mut self, now: Millis) -> bool {
        let most = self.crew.settings.inserts_in_flight;
        for (shard, lane) in self.lanes.iter_mut().enumerate() {
            if lane.in_flight >= most && self.pipeline.due(shard, now).is_some() {
                lane.full_since.get_or_insert_with(Instant::now);
            } else {
                lane.full_since = None;
            }
        }
        let full = |shard: usize| self.lanes[shard].full_since.is_some();
        let mut running = self.pipeline.assignment().running();
        (0..self.lanes.len()).any(full) && running.all(|(partition, _)| full(self.pipeline.shard_of(partition)))
    }

    /// Pauses the partitions of shards that are full, and resumes those of shards that are not any more, while others go on;
    /// `true` when it has waited instead, since that may soon be over.
    pub(super) fn leave_out_the_full(&mut self) -> bool {
        let mut waits = false;
        for shard in 0..self.lanes.len() {
            let Lane { full_since, shut, .. } = self.lanes[shard];
            match full_since {
                Some(since) if !shut && since.elapsed() < STAND_STILL_BESIDE => waits = true,
                Some(_) if !shut => {
                    self.lanes[shard].shut = true;
                    self.source.pause(&self.running_of(shard));
                }
                None if shut => {
                    self.lanes[shard].shut = false;
                    let mut free = self.running_of(shard);
                    free.retain(|partition| self.may_be_read(*partition));
                    self.source.resume(&free);
                }
                _ => {}
            }
        }
        if waits {
            self.wait_for_news(Duration::from_millis(20));
        }
        waits
    }

    /// Whether records of a partition may be processed: none of it wait, and its shard is not left out.
    pub(super) fn may_be_read(&self, partition: i32) -> bool {
        !self.stash.contains_key(&partition) && !self.is_shut(partition)
    }

    /// Whether the shard of a partition is left out for now.
    pub(super) fn is_shut(&self, partition: i32) -> bool {
        self.lanes[self.pipeline.shard_of(partition)].shut
    }

    /// Inserts under way to all shards.
    pub(super) fn in_flight(&self) -> usize {
        self.lanes.iter().map(|lane| lane.in_flight).sum()
    }

    /// When the first open batch is due that could be sent then.
    pub(super) fn deadline(&self) -> Option<Millis> {
        let open = (0..self.lanes.len()).filter(|shard| self.lanes[*shard].full_since.is_none());
        open.filter_map(|shard| self.pipeline.deadline(shard)).min()
    }

    /// Why a shard takes no rows.
    pub(super) fn trouble_of(&self, shard: usize) -> Option<String> {
        let lane = &self.lanes[shard];
        let full = lane.in_flight >= self.crew.settings.inserts_in_flight;
        let blocked = lane.full_since.filter(|_| full).map(|since| since.elapsed());
        let trouble = self.crew.trouble(shard, blocked)?;
        Some(if self.lanes.len() == 1 { trouble } else { format!("shard {shard}: {trouble}") })
    }

    /// Why ClickHouse takes no rows, or not those of a shard.
    pub(super) fn trouble(&self) -> Option<String> {
        (0..self.lanes.len()).find_map(|shard| self.trouble_of(shard))
    }

    fn running_of(&self, shard: usize) -> Vec<i32> {
        let running = self.pipeline.assignment().running().map(|(partition, _)| partition);
        running.filter(|partition| self.pipeline.shard_of(*partition) == shard).collect()
    }
}
