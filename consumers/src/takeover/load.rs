//! Reads ids back from ClickHouse, as many as may be held.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, anyhow};
use clickhouse::{Client, Row};
use metrics::counter;
use millrace_pipeline::dedup::{Millis, PartitionIndex};
use serde::Deserialize;

use crate::{
    clickhouse::{claims::identifier, client::within},
    telemetry::metrics as names,
};

/// Without a byte for this long, the server that sends ids is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
/// How often the window may be halved to fit the ids that may be held.
const HALVINGS: u32 = 20;
/// Size of one row of the ids query in `RowBinary`: a UUID and a 32-bit age.
const ROW_LEN: usize = 20;

/// The ids of one table.
pub struct Ids {
    /// For queries; loads may take long, so it has no timeout of its own.
    pub client: Client,
    /// Kafka topic, for log lines and counters.
    pub topic: String,
    /// Table, quoted, with its database.
    pub table: String,
    /// Column of the ids, a UUID.
    pub id_column: String,
    /// Ids ingested within it are loaded.
    pub window: Duration,
    /// Rows that the inserts of a consumer may have landed past its last commit: so many ids past the commit are loaded
    /// for a partition whatever else may be held, for they will come again.
    pub unacknowledged_rows: usize,
}

/// Which ids of a partition are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// What lies at or past this offset will come again, however old its row is.
    pub(super) from: i64,
    /// Most of those; the ones ingested last.
    pub(super) past: Option<usize>,
    /// Besides them what was ingested within this time.
    pub(super) window: Duration,
}

/// Rows of a partition.
#[derive(Row, Deserialize)]
struct Counts {
    partition: i32,
    /// At or past the offset to read next.
    past: u64,
    /// Before it, ingested within the window, within half of it, and so on.
    within: Vec<u64>,
}

#[derive(Row, Deserialize)]
struct Last {
    partition: i32,
    offset: i64,
}

impl Ids {
    /// What to load of each partition, given the offset to read next, so that it is no more than `room` ids together.
    /// Ids at or past that offset come first: those events will come again.
    pub(super) async fn plan(&self, from: &BTreeMap<i32, i64>, room: usize) -> Result<BTreeMap<i32, Extent>> {
        if from.is_empty() {
            return Ok(BTreeMap::new());
        }
        let counts = self.count(from).await?;
        let past: u64 = counts.values().map(|counts| counts.past).sum();
        let within = |halving: usize| counts.values().filter_map(|counts| counts.within.get(halving)).sum::<u64>();
        let room = room as u64;
        let halving = (0..HALVINGS as usize).find(|halving| past.saturating_add(within(*halving)) <= room);
        let halving = halving.unwrap_or(HALVINGS as usize);
        let window = Duration::from_millis((self.window.as_millis() >> halving) as u64);
        if halving > 0 {
            tracing::warn!(
                topic = self.topic,
                ids_in_window = within(0),
                ids_past_the_position = past,
                room,
                window_s = window.as_secs(),
                "dedup.max_ids is too small for dedup.window: ids of a shorter window are remembered; raise the one or shorten the other"
            );
        }
        let extent = |(partition, from): (&i32, &i64)| {
            let here = counts.get(partition).map_or(0, |counts| counts.past);
            let most = past_limit(here, past, room).max(self.unacknowledged_rows as u64);
            if here > most {
                counter!(names::DEDUP_EARLY_EXPIRATIONS, "topic" => self.topic.clone()).increment(here - most);
                tracing::error!(
                    topic = self.topic,
                    partition,
                    ids_past_the_position = here,
                    remembered = most,
                    "the table has more rows at or past the offset to read next than dedup.max_ids lets be remembered; events of the others would land again if they came again: raise dedup.max_ids"
                );
            }
            let past = (here > most).then_some(most as usize);
            (*partition, Extent { from: *from, past, window })
        };
        Ok(from.iter().map(extent).collect())
    }

    /// Fills `index` with the ids of a partition.
    pub(super) async fn load(
        &self,
        partition: i32,
        extent: Extent,
        index: &mut PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> Result<()> {
        let Extent { from, past, window } = extent;
        let id = identifier(&self.id_column);
        let (table, window) = (&self.table, window.as_millis());
        let recent = format!("_partition = {partition} AND _ingested_at >= now64(3) - toIntervalMillisecond({window})");
        let aged = "toUInt32(greatest(0, dateDiff('second', _ingested_at, now64(3))))";
        let Some(most) = past else {
            let sql = format!(
                "SELECT {id}, if(_offset >= {from}, 0, {aged}) FROM {table} \
                 WHERE _partition = {partition} AND (_offset >= {from} OR ({recent}))"
            );
            return self.read(&sql, index, now).await;
        };
        let sql = format!(
            "SELECT {id}, toUInt32(0) FROM {table} WHERE _partition = {partition} AND _offset >= {from} \
             ORDER BY _ingested_at DESC LIMIT {most}"
        );
        self.read(&sql, index, now).await?;
        self.read(&format!("SELECT {id}, {aged} FROM {table} WHERE _offset < {from} AND {recent}"), index, now).await
    }

    /// The greatest offset of each partition that the table has rows of.
    pub(super) async fn landed(&self) -> Result<BTreeMap<i32, i64>> {
        let sql =
            format!("SELECT _partition AS partition, max(_offset) AS offset FROM {} GROUP BY _partition", self.table);
        let rows = self.client.query_raw(&sql).fetch_all::<Last>();
        let rows = within(SILENCE, rows).await.context("ask which partitions the table has rows of")?;
        Ok(rows.into_iter().map(|last| (last.partition, last.offset)).collect())
    }

    async fn count(&self, from: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Counts>> {
        let list = |numbers: &mut dyn Iterator<Item = i64>| {
            numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(", ")
        };
        let partitions = list(&mut from.keys().map(|partition| i64::from(*partition)));
        let offsets = list(&mut from.values().copied());
        let window = self.window.as_millis();
        let within_halved: Vec<String> = (0..HALVINGS)
            .map(|halving| {
                format!(
                    "countIf(NOT is_past AND _ingested_at >= now64(3) - toIntervalMillisecond({}))",
                    window >> halving
                )
            })
            .collect();
        let sql = format!(
            "SELECT _partition AS partition, countIf(is_past) AS past, [{}] AS within FROM (SELECT _partition, _ingested_at, \
             _offset >= transform(_partition, CAST([{partitions}], 'Array(Int32)'), CAST([{offsets}], 'Array(Int64)'), toInt64(0)) AS is_past \
             FROM {} WHERE _partition IN ({partitions})) \
             WHERE is_past OR _ingested_at >= now64(3) - toIntervalMillisecond({window}) GROUP BY _partition",
            within_halved.join(", "),
            self.table,
        );
        let rows = self.client.query_raw(&sql).fetch_all::<Counts>();
        let rows = within(SILENCE, rows).await.context("count the ids to be read back")?.into_iter();
        Ok(rows.map(|counts| (counts.partition, counts)).collect())
    }

    async fn read(&self, sql: &str, index: &mut PartitionIndex, now: &impl Fn() -> Millis) -> Result<()> {
        let mut rows = self.client.query_raw(sql).fetch_bytes("RowBinary").context("read ids back")?;
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
        Ok(())
    }
}

/// How many of the `here` ids past the position of one partition, of `all` of them together, may be held of `room`.
fn past_limit(here: u64, all: u64, room: u64) -> u64 {
    if all <= room { here } else { (u128::from(here) * u128::from(room) / u128::from(all.max(1))) as u64 }
}

/// A UUID as ClickHouse writes it (two little-endian halves, the high one first), and an age in seconds.
fn parse(row: &[u8]) -> Option<(u128, u32)> {
    let high = u64::from_le_bytes(row.get(..8)?.try_into().ok()?);
    let low = u64::from_le_bytes(row.get(8..16)?.try_into().ok()?);
    let age = u32::from_le_bytes(row.get(16..20)?.try_into().ok()?);
    Some((u128::from(high) << 64 | u128::from(low), age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_past_the_position_are_shared_out_when_they_do_not_fit() {
        assert_eq!(past_limit(70, 100, 100), 70);
        assert_eq!(past_limit(70, 100, 50), 35);
        assert_eq!(past_limit(0, 0, 0), 0);
        assert_eq!(past_limit(u64::MAX / 2, u64::MAX, 10), 4);
    }
}
