//! Taking partitions over: claim, quiet, load. Only then may a partition be read.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use clickhouse::Client;
use futures::{StreamExt, stream};
use millrace_pipeline::{
    assignment::Attempt,
    dedup::{Millis, PartitionIndex},
    retry::Backoff,
};

use crate::{
    clickhouse::claims::{Claims, identifier},
    config::StartOffset,
    kafka::source::{Position, Reader},
    random,
};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(15) };
/// Partitions loaded at once.
const PARALLEL_LOADS: usize = 4;
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
    /// Where a partition without a committed offset starts.
    pub start: StartOffset,
    /// Longest wait for Kafka to say where a partition stands.
    pub kafka_timeout: Duration,
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
    /// The ids that ClickHouse holds of it.
    pub index: PartitionIndex,
}

impl TakeOver {
    /// Takes partitions over, trying each step again until it works; `ready` gets each partition as soon as it can be
    /// read. Abort the future to give up. `now` is the pipeline's clock.
    pub async fn run(
        self: Arc<Self>,
        attempt: Attempt,
        partitions: Vec<i32>,
        reader: Reader,
        new_index: impl Fn() -> PartitionIndex,
        now: impl Fn() -> Millis,
        ready: impl Fn(TakenOver),
    ) {
        let mut unclaimed = partitions;
        let mut tries = 0;
        while !unclaimed.is_empty() {
            match self.claim(&unclaimed).await {
                Ok(claimed) => {
                    unclaimed.retain(|partition| !claimed.iter().any(|(other, _)| other == partition));
                    let loads = claimed.into_iter().map(|(partition, epoch)| {
                        let (this, reader, new_index, now) = (&self, &reader, &new_index, &now);
                        async move { this.load_until_done(attempt, partition, epoch, reader, new_index, now).await }
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
            if !unclaimed.is_empty() {
                tries += 1;
                tokio::time::sleep(BACKOFF.delay(tries, random())).await;
            }
        }
    }

    async fn claim(&self, partitions: &[i32]) -> Result<Vec<(i32, u64)>> {
        let claimed = self.claims.claim(partitions).await.context("claim partitions in ClickHouse")?;
        let held: Vec<i32> = claimed.keys().copied().collect();
        let stopped = self.claims.quiet(&held).await.context("wait for inserts of an earlier owner to end")?;
        if stopped > 0 {
            tracing::info!(inserts = stopped, partitions = ?held, "inserts of an earlier owner were stopped");
        }
        Ok(claimed.into_iter().collect())
    }

    async fn load_until_done(
        &self,
        attempt: Attempt,
        partition: i32,
        epoch: u64,
        reader: &Reader,
        new_index: &impl Fn() -> PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> TakenOver {
        let mut tries = 0;
        loop {
            let mut index = new_index();
            match self.load(partition, reader, &mut index, now).await {
                Ok(next_offset) => return TakenOver { attempt, partition, epoch, next_offset, index },
                Err(error) => {
                    tries += 1;
                    tracing::warn!(error = format!("{error:#}"), partition, "a partition's ids are not loaded yet");
                    tokio::time::sleep(BACKOFF.delay(tries, random())).await;
                }
            }
        }
    }

    /// Fills `index` with the partition's ids; the offset to read next.
    async fn load(
        &self,
        partition: i32,
        reader: &Reader,
        index: &mut PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> Result<i64> {
        let (reader, timeout) = (reader.clone(), self.kafka_timeout);
        let position = tokio::task::spawn_blocking(move || reader.position(partition, timeout))
            .await
            .context("ask Kafka where the partition stands")?
            .context("ask Kafka where the partition stands")?;
        let next_offset = self.first_offset(partition, position);
        // Nothing committed means that anything in the table may come again.
        let from = position.committed.unwrap_or(0);
        let sql = format!(
            "SELECT {id}, toUInt32(greatest(0, dateDiff('second', _ingested_at, now64(3)))) FROM {table} \
             WHERE _partition = {partition} AND (_offset >= {from} OR _ingested_at >= now64(3) - toIntervalSecond({window}))",
            id = identifier(&self.id_column),
            table = self.table,
            window = self.window.as_secs(),
        );
        let mut rows = self.client.query_raw(&sql).fetch_bytes("RowBinary").context("read ids back")?;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = rows.next().await.context("read ids back")? {
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
        tracing::debug!(partition, ids = index.len(), next_offset, "partition loaded");
        Ok(next_offset)
    }

    fn first_offset(&self, partition: i32, position: Position) -> i64 {
        match (position.committed, self.start) {
            (Some(committed), _) if committed < position.low => {
                tracing::error!(
                    partition,
                    committed,
                    oldest = position.low,
                    events_gone = position.low - committed,
                    "Kafka's retention has deleted events that were never read; going on with the oldest there is"
                );
                position.low
            }
            (Some(committed), _) => committed,
            (None, StartOffset::Earliest) => position.low,
            (None, StartOffset::Latest) => position.high,
        }
    }
}

/// A UUID as ClickHouse writes it (two little-endian halves, the high one first), and an age in seconds.
fn parse(row: &[u8]) -> Option<(u128, u32)> {
    let high = u64::from_le_bytes(row.get(..8)?.try_into().ok()?);
    let low = u64::from_le_bytes(row.get(8..16)?.try_into().ok()?);
    let age = u32::from_le_bytes(row.get(16..20)?.try_into().ok()?);
    Some((u128::from(high) << 64 | u128::from(low), age))
}
