//! Taking partitions over: claim, quiet, load. Only then may a partition be read.

mod elsewhere;
mod load;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use millrace_pipeline::{
    assignment::Attempt,
    batch::Progress,
    dedup::{Millis, PartitionIndex},
    retry::Backoff,
};
use tokio::task::JoinSet;

pub use self::{
    elsewhere::{Elsewhere, Misplaced},
    load::Ids,
    start::{Cause, Stopped},
};
use self::{load::Extent, start::Start};
use crate::{
    clickhouse::{claims::Claims, rollups::Rollups},
    config::{LostPosition, StartOffset},
    faults::{self, Guard, Point},
    kafka::{
        mark::Mark,
        source::{Position, Reader},
    },
    random,
};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(15) };
/// Partitions loaded at once.
const PARALLEL_LOADS: usize = 4;

/// Takes partitions of one topic over.
pub struct TakeOver {
    /// The claims of the topic.
    pub claims: Claims,
    /// What is read back.
    pub ids: Ids,
    /// What is completed.
    pub rollups: Rollups,
    /// What the other shards say of the partitions, if there are any.
    pub elsewhere: Elsewhere,
    /// Kafka topic.
    pub topic: String,
    /// What log lines and metrics call it.
    pub label: String,
    /// Where a partition without a committed offset starts.
    pub start: StartOffset,
    /// What happens when the group's offset cannot be used.
    pub on_lost_position: LostPosition,
    /// Longest wait for one answer of Kafka.
    pub kafka_timeout: Duration,
}

/// Why partitions are not taken over, which only a person can mend.
#[derive(Debug)]
pub enum Refused {
    /// A position is lost, and the policy is to stop.
    Lost(Stopped),
    /// Another shard holds a partition.
    Misplaced(Misplaced),
}

impl From<Stopped> for Refused {
    fn from(why: Stopped) -> Self {
        Self::Lost(why)
    }
}

impl From<Misplaced> for Refused {
    fn from(why: Misplaced) -> Self {
        Self::Misplaced(why)
    }
}

/// What is to be taken over.
#[derive(Debug)]
pub struct Request {
    /// Number of the take-over.
    pub attempt: Attempt,
    /// The partitions.
    pub partitions: Vec<i32>,
    /// Those that Kafka still gives to this process.
    pub held: Held,
    /// Most ids to load, of all partitions together.
    pub room: usize,
}

/// A partition that is ready to be read.
#[derive(Debug)]
pub struct TakenOver {
    /// Number of the take-over.
    pub attempt: Attempt,
    /// The partition.
    pub partition: i32,
    /// Epoch of its claim.
    pub epoch: u64,
    /// Offset to read next.
    pub next_offset: i64,
    /// Whether that offset is not the committed one, and has to be committed before anything is read.
    pub decided: bool,
    /// A record that its log is known by.
    pub mark: Option<Mark>,
    /// Whether there was something to read.
    pub behind: bool,
    /// The ids that ClickHouse holds of it.
    pub index: PartitionIndex,
}

impl TakeOver {
    /// Takes partitions over, trying each step again until it works; `ready` gets each partition as soon as it can be
    /// read. Those that are not `held` any more are left alone; abort the future to give all up. `now` is the
    /// pipeline's clock.
    ///
    /// # Errors
    /// A position is lost, and the policy is to stop; or another shard holds a partition.
    pub async fn run(
        self: Arc<Self>,
        request: Request,
        reader: Reader,
        new_index: impl Fn() -> PartitionIndex,
        now: impl Fn() -> Millis + Clone + Send + Sync + 'static,
        ready: impl Fn(TakenOver),
    ) -> Result<(), Refused> {
        let Request { attempt, partitions, held, room } = request;
        let mut unclaimed = partitions;
        let mut claimed: BTreeMap<i32, u64> = BTreeMap::new();
        let (mut tries, mut in_vain) = (0, None::<Instant>);
        let mut replica = self.claims.replicas().current();
        loop {
            // A claim on a partition that Kafka has given to somebody else would only throw that one out.
            unclaimed.retain(|partition| held.contains(*partition));
            claimed.retain(|partition, _| held.contains(*partition));
            if replica != self.claims.replicas().current() {
                // Claims on a replica that was left are worth nothing on the next.
                replica = self.claims.replicas().current();
                unclaimed.extend(std::mem::take(&mut claimed).into_keys());
            }
            if !unclaimed.is_empty() && self.elsewhere.allows(&self.claims, &unclaimed).await? {
                match self.claim(&unclaimed).await {
                    Ok(epochs) => {
                        unclaimed.retain(|partition| !epochs.contains_key(partition));
                        claimed.extend(epochs);
                    }
                    Err(error) => {
                        tracing::warn!(error = format!("{error:#}"), partitions = ?unclaimed, "partitions are not claimed yet");
                        self.claims.replicas().failed(replica);
                    }
                }
            }
            let waiting: Vec<i32> = claimed.keys().copied().collect();
            match self.starts(&waiting, &reader, tries).await? {
                Ok(starts) => {
                    let leaderless: Vec<i32> =
                        waiting.iter().copied().filter(|one| !starts.contains_key(one)).collect();
                    if !leaderless.is_empty() {
                        tracing::warn!(partitions = ?leaderless, "partitions have no leader in Kafka; others are taken over");
                    }
                    let mut from: BTreeMap<i32, i64> =
                        starts.iter().map(|(partition, (start, _))| (*partition, start.from)).collect();
                    // Rows below where reading starts may lack in rollups too, if retention has passed the committed offset.
                    let in_doubt = |(partition, (start, position)): (&i32, &(Start, Position))| {
                        (*partition, position.committed.map_or(start.from, |committed| committed.min(start.from)))
                    };
                    let in_doubt = starts.iter().map(in_doubt).collect();
                    let in_vain_for = in_vain.map_or(Duration::ZERO, |since| since.elapsed());
                    if let Err(error) = self.complete(&claimed, &in_doubt, in_vain_for).await {
                        in_vain.get_or_insert_with(Instant::now);
                        tracing::warn!(error = format!("{error:#}"), partitions = ?waiting, "rollups are not complete yet");
                        self.claims.replicas().failed(replica);
                        // What was begun is ended by the next claim.
                        unclaimed.extend(std::mem::take(&mut claimed).into_keys());
                        from.clear();
                    }
                    match self.ids.plan(&from, room, tries).await {
                        Ok(extents) => {
                            // A task each: making an index of millions of ids takes a core.
                            let (mut extents, mut loads) = (extents.into_iter(), JoinSet::new());
                            loop {
                                while loads.len() < PARALLEL_LOADS
                                    && let Some((partition, extent)) = extents.next()
                                {
                                    let (this, index, now) = (Arc::clone(&self), new_index(), now.clone());
                                    loads
                                        .spawn(async move { this.load((partition, extent), tries, index, &now).await });
                                }
                                let Some(loaded) = loads.join_next().await else { break };
                                // One that panicked has said so, and is tried again.
                                let Ok((partition, Some(index))) = loaded else { continue };
                                if replica != self.claims.replicas().current() {
                                    // What was loaded may be of another replica than what was claimed.
                                    continue;
                                }
                                let Some((start, position)) = starts.get(&partition) else { continue };
                                let Some(epoch) = claimed.remove(&partition) else { continue };
                                start.tell(&self.label, partition, position);
                                let Start { from: next_offset, decided, mark, behind, .. } = *start;
                                ready(TakenOver {
                                    attempt,
                                    partition,
                                    epoch,
                                    next_offset,
                                    decided,
                                    mark,
                                    behind,
                                    index,
                                });
                            }
                        }
                        Err(error) => {
                            tracing::warn!(error = format!("{error:#}"), partitions = ?waiting, "ids are not counted yet");
                            self.claims.replicas().failed(replica);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), partitions = ?waiting, "it is not known yet where partitions stand")
                }
            }
            if unclaimed.is_empty() && claimed.is_empty() {
                return Ok(());
            }
            tries += 1;
            tokio::time::sleep(BACKOFF.delay(tries, random())).await;
        }
    }

    async fn claim(&self, partitions: &[i32]) -> Result<BTreeMap<i32, u64>> {
        let claimed = self.claims.claim(partitions).await.context("claim partitions in ClickHouse")?;
        let since = Instant::now();
        faults::at(Point::Claimed);
        let held: Vec<i32> = claimed.keys().copied().collect();
        let stopped = self.claims.quiet(&held, since).await.context("wait for inserts of an earlier owner to end")?;
        if stopped > 0 {
            tracing::info!(inserts = stopped, partitions = ?held, "inserts of an earlier owner were stopped");
        }
        faults::at(Point::Quiet);
        Ok(claimed)
    }

    /// Has rollups count what lies in the table past the positions and is in none of them.
    async fn complete(&self, claimed: &BTreeMap<i32, u64>, from: &BTreeMap<i32, i64>, in_vain: Duration) -> Result<()> {
        if faults::without(Guard::Rollups) {
            return Ok(());
        }
        let progress = from.iter().filter_map(|(partition, from)| {
            let epoch = *claimed.get(partition)?;
            Some(Progress { partition: *partition, epoch, next_offset: *from })
        });
        let progress: Vec<Progress> = progress.collect();
        self.rollups.complete(&self.claims, &progress, in_vain).await.context("complete the rollups of the table")
    }

    /// Where partitions are read from: the inner error is worth another try, the outer one is final.
    async fn starts(
        &self,
        partitions: &[i32],
        reader: &Reader,
        tries: u32,
    ) -> Result<Result<BTreeMap<i32, (Start, Position)>>, Stopped> {
        let asked = async {
            let (reader, wanted, timeout) = (reader.clone(), partitions.to_vec(), self.kafka_timeout);
            let begun = Instant::now();
            let positions = tokio::task::spawn_blocking(move || reader.positions(&wanted, timeout))
                .await
                .context("ask Kafka where partitions stand")?
                .context("ask Kafka where partitions stand")?;
            let seconds = begun.elapsed().as_secs_f64();
            tracing::debug!(topic = self.label, ?partitions, seconds, "it is known where partitions stand");
            let uncommitted = positions.values().any(|position| position.committed.is_none());
            let landed = if uncommitted { self.ids.landed(tries).await? } else { BTreeMap::new() };
            anyhow::Ok((positions, landed))
        };
        if partitions.is_empty() {
            return Ok(Ok(BTreeMap::new()));
        }
        let (positions, landed) = match asked.await {
            Ok(answers) => answers,
            Err(error) => return Ok(Err(error)),
        };
        let mut starts = BTreeMap::new();
        for (partition, position) in positions {
            let start = Start::decide(partition, &position, self.start, &landed);
            start.obey(&self.topic, partition, &position, self.on_lost_position)?;
            starts.insert(partition, (start, position));
        }
        Ok(Ok(starts))
    }

    async fn load(
        &self,
        (partition, extent): (i32, Extent),
        tries: u32,
        mut index: PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> (i32, Option<PartitionIndex>) {
        if faults::without(Guard::Load) {
            return (partition, Some(index));
        }
        match self.ids.load(partition, extent, tries, &mut index, now).await {
            Ok(()) => {
                faults::at(Point::Loaded);
                tracing::debug!(partition, ids = index.len(), from = extent.from, "partition loaded");
                (partition, Some(index))
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), partition, "a partition's ids are not loaded yet");
                (partition, None)
            }
        }
    }
}

/// The partitions that Kafka has given to this process, as its topic's thread knows them.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<BTreeSet<i32>>>);

impl Held {
    /// Notes what is held.
    pub fn set(&self, partitions: impl Iterator<Item = i32>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = partitions.collect();
    }

    fn contains(&self, partition: i32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition)
    }
}
