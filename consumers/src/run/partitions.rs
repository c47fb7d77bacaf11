//! The comings and goings of partitions: assigned, taken over, started, drained, revoked, taken over again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use metrics::{counter, histogram};
use millrace_pipeline::{
    assignment::Attempt,
    batch::{Progress, Trigger},
};
use rdkafka::{Offset, consumer::CommitMode};

use super::worker::Worker;
use crate::{
    faults::{self, Point},
    kafka::rebalance::Rebalance,
    takeover::TakenOver,
    telemetry::metrics as names,
    time::now_ms,
};

/// How long a partition rests before it is claimed again after ClickHouse refused an insert of it: somebody else has
/// claimed it, so most likely Kafka has given it away and this process will hear of that in a moment. To claim it back
/// at once would only throw its rightful reader out.
const AFTER_REFUSAL: Duration = Duration::from_secs(3);

/// Longest drain before partitions are given up that Kafka takes away: those that stay are not read meanwhile. What has
/// not landed by then is refused or found by the next owner, and read again here if it shared a batch.
const REVOKE_DRAIN: Duration = Duration::from_secs(3);

impl Worker {
    /// Completes what Kafka did to the assignment.
    pub(super) fn rebalance(&mut self) -> Result<()> {
        while let Some(rebalance) = self.source.next_rebalance() {
            counter!(names::REBALANCES).increment(1);
            match rebalance {
                Rebalance::Assigned(partitions) => {
                    // Should any of them be held already, what is remembered of it is void.
                    self.forget(&partitions);
                    self.lag.forget(&partitions);
                    tracing::info!(topic = self.crew.topic, ?partitions, "partitions assigned");
                    self.source.complete_assign(&partitions).context("take assigned partitions on")?;
                    let attempt = self.pipeline.assign(&partitions);
                    self.crew.held.set(self.pipeline.assignment().held());
                    self.take_over(attempt, partitions, Duration::ZERO);
                }
                Rebalance::Revoked { partitions, lost } => {
                    tracing::info!(topic = self.crew.topic, ?partitions, lost, "partitions revoked");
                    if !lost {
                        // For a shard that takes nothing, waiting would only hold the group up.
                        self.drain(REVOKE_DRAIN.min(self.crew.settings.drain_timeout), |worker, shard| {
                            worker.trouble_of(shard).is_none()
                        })?;
                    }
                    faults::at(Point::Drained);
                    self.forget(&partitions);
                    self.lag.forget(&partitions);
                    for partition in &partitions {
                        self.positions.remove(partition);
                        self.crew.end_series(*partition);
                    }
                    let restarted = self.pipeline.revoke(&partitions);
                    self.source.complete_revoke(&partitions).context("give revoked partitions up")?;
                    self.take_over_again(restarted, false);
                }
            }
            self.crew.held.set(self.pipeline.assignment().held());
            let held = self.pipeline.assignment().held().count();
            self.crew.tell(names::PARTITIONS_ASSIGNED, held);
            self.observe();
        }
        Ok(())
    }

    /// Takes partitions over from the beginning, since something about them is not known.
    pub(super) fn take_over_again(&mut self, restarted: Option<(Attempt, Vec<i32>)>, refused: bool) {
        let Some((attempt, partitions)) = restarted else { return };
        tracing::warn!(topic = self.crew.topic, ?partitions, "partitions are taken over again");
        self.source.pause(&partitions);
        self.forget(&partitions);
        self.spans.forget();
        let rest = if refused { AFTER_REFUSAL } else { Duration::ZERO };
        self.take_over(attempt, partitions, rest);
    }

    fn take_over(&mut self, attempt: Attempt, partitions: Vec<i32>, rest: Duration) {
        self.assigned_at.insert(attempt, Instant::now());
        // What is held already makes way in the end, oldest ids first; meanwhile there is room for a fair share.
        let max_ids = self.pipeline.spec().dedup.max_ids;
        let fair = max_ids / self.pipeline.assignment().held().count().max(1) * partitions.len();
        let room = fair.max(max_ids.saturating_sub(self.pipeline.dedup_ids()));
        let all = partitions.len().max(1);
        for shard in 0..self.lanes.len() {
            let of_shard = partitions.iter().copied().filter(|one| self.pipeline.shard_of(*one) == shard);
            let own: Vec<i32> = of_shard.collect();
            if !own.is_empty() {
                let (room, new_index) = (room.saturating_mul(own.len()) / all, self.pipeline.new_index());
                self.crew.take_over((shard, attempt), own, rest, room, self.source.reader(), new_index);
            }
        }
    }

    fn forget(&mut self, partitions: &[i32]) {
        self.stash.retain(|partition, _| !partitions.contains(partition));
        self.starting.retain(|taken_over| !partitions.contains(&taken_over.partition));
        self.committed.retain(|partition, _| !partitions.contains(partition));
        self.awaited.retain(|partition, _| !partitions.contains(partition));
        self.logs.forget(partitions);
    }

    /// Starts to read the partitions that are taken over. A seek that comes too early is tried again in a moment.
    pub(super) fn start_partitions(&mut self) {
        if !self.incomplete.is_empty() {
            return;
        }
        for _ in 0..self.starting.len() {
            let Some(taken_over) = self.starting.pop_front() else { return };
            let TakenOver { attempt, partition, epoch, next_offset, decided, mark, behind, .. } = taken_over;
            if !self.pipeline.assignment().is_taking_over(attempt, partition) {
                continue;
            }
            if let Err(error) = self.source.start(partition, Offset::Offset(next_offset)) {
                tracing::debug!(%error, partition, "the partition cannot be started yet");
                self.starting.push_back(taken_over);
                continue;
            }
            if decided {
                // Where a partition begins is decided once: a restart must not decide it anew, at a later end.
                let decided = Progress { partition, epoch, next_offset };
                self.source.commit(&[decided], |_| mark, CommitMode::Sync);
                // A quiet topic commits nothing else that would make up for one that failed.
                self.committed.insert(partition, decided);
            }
            if self.paused || self.is_shut(partition) {
                self.source.pause(&[partition]);
            }
            let ids = taken_over.index.len();
            self.pipeline.taken_over(attempt, partition, epoch, next_offset, taken_over.index);
            self.logs.start(partition, mark);
            self.lag.start(partition, next_offset, mark.map(|mark| mark.timestamp_ms));
            let assigned_at = self.assigned_at.get(&attempt).copied();
            if behind && let Some(at) = assigned_at {
                self.awaited.insert(partition, at);
            }
            let seconds = assigned_at.map_or(0.0, |at| at.elapsed().as_secs_f64());
            histogram!(names::TAKE_OVER, "topic" => self.crew.topic.clone()).record(seconds);
            tracing::info!(topic = self.crew.topic, partition, epoch, next_offset, ids, seconds, "partition is read");
        }
    }

    /// Tells how far behind the partitions are that are read, and what is held of the topic.
    pub(super) fn observe(&mut self) {
        let now_ms = now_ms();
        for (partition, next_offset) in &self.positions {
            if let Some(high) = self.source.known_high(*partition) {
                // Of one that is paused librdkafka tells what it knew before.
                let is_fetched = !self.paused && !self.is_shut(*partition);
                let is_drained = is_fetched && self.source.is_drained(*partition);
                let unread = if is_drained { 0 } else { (high - next_offset).max(0) };
                let seconds = self.lag.seconds(*partition, unread > 0, now_ms);
                self.crew.tell_lag(*partition, unread, seconds);
                self.behind.insert(*partition, (unread, seconds));
            }
        }
        self.crew.tell(names::DEDUP_IDS, self.pipeline.dedup_ids());
        self.crew.tell(names::INSERTS_IN_FLIGHT, self.in_flight());
        self.crew.tell(names::PARTITIONS_RUNNING, self.pipeline.assignment().running().count());
        self.crew.tell_queue("stash", self.stash.values().map(VecDeque::len).sum());
        self.crew.tell_queue("waiting", self.pipeline.waiting_events());
        self.crew.tell_queue("inserts", self.in_flight());
    }

    /// Batches are in the table that bring partitions so far.
    pub(super) fn landed(&mut self, progress: &[Progress]) {
        for at in progress.iter().filter_map(|one| self.awaited.remove(&one.partition)) {
            histogram!(names::FIRST_ROW, "topic" => self.crew.topic.clone()).record(at.elapsed().as_secs_f64());
        }
    }

    /// Lands everything that was read, or as much as the time allows and as the shards take that are worth waiting for.
    fn drain(&mut self, timeout: Duration, worth: impl Fn(&Self, usize) -> bool) -> Result<()> {
        let deadline = Instant::now() + timeout;
        for shard in 0..self.lanes.len() {
            self.send(shard, Trigger::Drain)?;
        }
        let awaited = |worker: &Self| {
            let mut shards = 0..worker.lanes.len();
            worker.pipeline.in_flight() && shards.any(|shard| worker.lanes[shard].in_flight > 0 && worth(worker, shard))
        };
        while awaited(self) && Instant::now() < deadline {
            self.wait_for_news(Duration::from_millis(20));
            self.crew.beat();
        }
        if self.pipeline.in_flight() {
            tracing::warn!(topic = self.crew.topic, "not everything landed in time; whoever reads next finds what did");
        }
        self.commit_again(CommitMode::Sync);
        Ok(())
    }

    /// Commits once more what was committed last, for all that is held.
    pub(super) fn commit_again(&self, mode: CommitMode) {
        let committed: Vec<Progress> = self.committed.values().copied().collect();
        self.source.commit(&committed, |partition| self.logs.mark(partition), mode);
    }

    /// Reads no more, and lands what was read.
    pub(super) fn drain_all(&mut self) -> Result<()> {
        let running: Vec<i32> = self.pipeline.assignment().running().map(|(partition, _)| partition).collect();
        self.source.pause(&running);
        self.drain(self.crew.settings.drain_timeout, |_, _| true)
    }
}
