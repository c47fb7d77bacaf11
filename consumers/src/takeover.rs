//! Taking partitions over: claim, quiet, load. Only then may a partition be read.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use clickhouse::Client;
use futures::{StreamExt, stream};
use millrace_pipeline::{
    assignment::Attempt,
    dedup::{Millis, PartitionIndex},
    retry::Backoff,
};

use crate::{
    clickhouse::{
        claims::{Claims, identifier},
        client::within,
    },
    config::StartOffset,
    faults::{self, Guard, Point},
    kafka::source::{Position, Reader},
    random,
};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(15) };
/// Partitions loaded at once.
const PARALLEL_LOADS: usize = 4;
/// Without a byte for this long, the server that sends ids is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
/// How often the window may be halved to fit the ids that may be held.
const HALVINGS: u32 = 20;
/// Size of one row of the ids query in `RowBinary`: a UUID and a 32-bit age.
const ROW_LEN: usize = 20;

/// Takes partitions of one topic over.
pub struct TakeOver {
    /// For queries; loads may take long, so it has no timeout of its own.
    pub client: Client,
    /// The claims of the topic.
    pub claims: Claims,
    /// Table, quoted, with its database.
    pub table: String,
    /// Column of the ids, a UUID.
    pub id_column: String,
    /// Ids ingested within it are loaded.
    pub window: Duration,
    /// Most ids that this process may hold, over all partitions.
    pub max_ids: usize,
    /// Where a partition without a committed offset starts.
    pub start: StartOffset,
    /// Longest wait for Kafka to say where a partition stands.
    pub kafka_timeout: Duration,
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
    /// Whether the group has never committed an offset of the partition.
    pub uncommitted: bool,
    /// The ids that ClickHouse holds of it.
    pub index: PartitionIndex,
}

impl TakeOver {
    /// Takes partitions over, trying each step again until it works; `ready` gets each partition as soon as it can be
    /// read. Those that are not `held` any more are left alone; abort the future to give all up. `now` is the
    /// pipeline's clock.
    pub async fn run(
        self: Arc<Self>,
        request: Request,
        reader: Reader,
        new_index: impl Fn() -> PartitionIndex,
        now: impl Fn() -> Millis,
        ready: impl Fn(TakenOver),
    ) {
        let Request { attempt, partitions, held } = request;
        let share = self.max_ids / partitions.len().max(1);
        let mut unclaimed = partitions;
        let mut tries = 0;
        loop {
            // A claim on a partition that Kafka has given to somebody else would only throw that one out.
            unclaimed.retain(|partition| held.contains(*partition));
            if unclaimed.is_empty() {
                return;
            }
            match self.claim(&unclaimed).await {
                Ok(claimed) => {
                    unclaimed.retain(|partition| !claimed.iter().any(|(other, _)| other == partition));
                    let loads = claimed.into_iter().map(|(partition, epoch)| {
                        let (this, reader, new_index, now) = (&self, &reader, &new_index, &now);
                        let claimed = Claimed { attempt, partition, epoch };
                        async move { this.load_until_done(claimed, share, reader, new_index, now).await }
                    });
                    let mut loads = stream::iter(loads).buffer_unordered(PARALLEL_LOADS);
                    while let Some(taken_over) = loads.next().await {
                        ready(taken_over);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), partitions = ?unclaimed, "partitions are not claimed yet");
                }
            }
            if unclaimed.is_empty() {
                return;
            }
            tries += 1;
            tokio::time::sleep(BACKOFF.delay(tries, random())).await;
        }
    }

    async fn claim(&self, partitions: &[i32]) -> Result<Vec<(i32, u64)>> {
        let claimed = self.claims.claim(partitions).await.context("claim partitions in ClickHouse")?;
        faults::at(Point::Claimed);
        let held: Vec<i32> = claimed.keys().copied().collect();
        let stopped = self.claims.quiet(&held).await.context("wait for inserts of an earlier owner to end")?;
        if stopped > 0 {
            tracing::info!(inserts = stopped, partitions = ?held, "inserts of an earlier owner were stopped");
        }
        faults::at(Point::Quiet);
        Ok(claimed.into_iter().collect())
    }

    async fn load_until_done(
        &self,
        claimed: Claimed,
        max_ids: usize,
        reader: &Reader,
        new_index: &impl Fn() -> PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> TakenOver {
        let Claimed { attempt, partition, epoch } = claimed;
        let mut tries = 0;
        loop {
            let mut index = new_index();
            match self.load(partition, max_ids, reader, &mut index, now).await {
                Ok((next_offset, uncommitted)) => {
                    faults::at(Point::Loaded);
                    return TakenOver { attempt, partition, epoch, next_offset, uncommitted, index };
                }
                Err(error) => {
                    tries += 1;
                    tracing::warn!(error = format!("{error:#}"), partition, "a partition's ids are not loaded yet");
                    tokio::time::sleep(BACKOFF.delay(tries, random())).await;
                }
            }
        }
    }

    /// Fills `index` with the partition's ids; the offset to read next, and whether none was committed.
    async fn load(
        &self,
        partition: i32,
        max_ids: usize,
        reader: &Reader,
        index: &mut PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> Result<(i64, bool)> {
        let (reader, timeout) = (reader.clone(), self.kafka_timeout);
        let position = tokio::task::spawn_blocking(move || reader.position(partition, timeout))
            .await
            .context("ask Kafka where the partition stands")?
            .context("ask Kafka where the partition stands")?;
        let from = self.first_offset(partition, position);
        if faults::without(Guard::Load) {
            return Ok((from, position.committed.is_none()));
        }
        let window = self.window_for(partition, max_ids).await?;
        // What lies at or past the offset to read next will come again, however old its row is: it counts as new.
        let sql = format!(
            "SELECT {id}, if(_offset >= {from}, 0, toUInt32(greatest(0, dateDiff('second', _ingested_at, now64(3))))) \
             FROM {table} WHERE _partition = {partition} \
             AND (_offset >= {from} OR _ingested_at >= now64(3) - toIntervalMillisecond({window}))",
            id = identifier(&self.id_column),
            table = self.table,
            window = window.as_millis(),
        );
        let mut rows = self.client.query_raw(&sql).fetch_bytes("RowBinary").context("read ids back")?;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = within(SILENCE, rows.next()).await.context("read ids back")? {
            rest.extend_from_slice(&chunk);
            let whole = rest.len() - rest.len() % ROW_LEN;
            let at = now();
            for row in rest[..whole].chunks_exact(ROW_LEN) {
                let (id, age_s) = parse(row).ok_or_else(|| anyhow!("an id of {} bytes", row.len()))?;
                index.load(id, u64::from(age_s) * 1000, at);
            }
            rest.drain(..whole);
        }
        if !rest.is_empty() {
            anyhow::bail!("the answer ended inside a row; is column `{}` a UUID?", self.id_column);
        }
        tracing::debug!(partition, ids = index.len(), from, "partition loaded");
        Ok((from, position.committed.is_none()))
    }

    /// The window, or the largest of its halves that leaves no more than `max_ids` to load: a process that may not hold
    /// more must not try to.
    async fn window_for(&self, partition: i32, max_ids: usize) -> Result<Duration> {
        let counts: Vec<String> = (0..HALVINGS)
            .map(|halving| {
                format!(
                    "countIf(_ingested_at >= now64(3) - toIntervalMillisecond({}))",
                    self.window.as_millis() >> halving
                )
            })
            .collect();
        let sql = format!(
            "SELECT [{}] FROM {} WHERE _partition = {partition} AND _ingested_at >= now64(3) - toIntervalMillisecond({})",
            counts.join(", "),
            self.table,
            self.window.as_millis(),
        );
        let counts = self.client.query_raw(&sql).fetch_one::<Vec<u64>>();
        let counts = within(SILENCE, counts).await.context("count the ids to be read back")?;
        let fits = counts.iter().position(|count| usize::try_from(*count).is_ok_and(|count| count <= max_ids));
        let halving = fits.unwrap_or(counts.len());
        let window = Duration::from_millis((self.window.as_millis() >> halving) as u64);
        if halving > 0 {
            tracing::warn!(
                partition,
                ids_in_window = counts.first(),
                max_ids,
                window_s = window.as_secs(),
                "dedup.max_ids is too small for dedup.window: ids of a shorter window are remembered; raise the one or shorten the other"
            );
        }
        Ok(window)
    }

    fn first_offset(&self, partition: i32, position: Position) -> i64 {
        let Position { committed, group_knows_topic, low, high } = position;
        match (committed, self.start) {
            (Some(committed), _) if committed < low => {
                tracing::error!(
                    partition,
                    committed,
                    oldest = low,
                    events_gone = low - committed,
                    "Kafka's retention has deleted events that were never read; going on with the oldest there is"
                );
                low
            }
            (Some(committed), _) if committed > high => {
                tracing::error!(
                    partition,
                    committed,
                    end = high,
                    "the partition ends before the committed offset: the topic was recreated or has lost its end; reading it from its beginning, ids that are in the table are dropped"
                );
                low
            }
            (Some(committed), _) => committed,
            // A partition that was added to a topic that is being read has only new events.
            (None, StartOffset::Latest) if !group_knows_topic => high,
            (None, StartOffset::Earliest | StartOffset::Latest) => low,
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

#[derive(Clone, Copy)]
struct Claimed {
    attempt: Attempt,
    partition: i32,
    epoch: u64,
}

/// A UUID as ClickHouse writes it (two little-endian halves, the high one first), and an age in seconds.
fn parse(row: &[u8]) -> Option<(u128, u32)> {
    let high = u64::from_le_bytes(row.get(..8)?.try_into().ok()?);
    let low = u64::from_le_bytes(row.get(8..16)?.try_into().ok()?);
    let age = u32::from_le_bytes(row.get(16..20)?.try_into().ok()?);
    Some((u128::from(high) << 64 | u128::from(low), age))
}
