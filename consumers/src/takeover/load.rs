//! Reads ids back from ClickHouse, as many as may be held.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use clickhouse::{Row, query::Query};
use metrics::counter;
use millrace_pipeline::dedup::{Millis, PartitionIndex};
use serde::Deserialize;

use crate::{
    clickhouse::{claims::identifier, client::within, replicas::Replicas},
    telemetry::metrics as names,
};

/// Without a byte for this long, the server that sends ids is taken for dead, at the first try.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest that this becomes, doubled with each try: a question that reads the coordinates of all rows is answered in the
/// end, however large the table has grown.
const LONGEST_SILENCE: Duration = Duration::from_secs(3600);
/// How often the window may be halved to fit the ids that may be held.
const HALVINGS: u32 = 20;
/// Size of one row of the ids query in `RowBinary`: a UUID and its age.
const ROW_LEN: usize = 17;
/// Ages are told in this many steps of the window, rounded down, for a byte to hold them.
const AGE_STEPS: u64 = 256;

/// The ids of one table.
pub struct Ids {
    /// For queries; loads may take long, so they have no timeout of their own.
    pub replicas: Replicas,
    /// What log lines and counters call the topic.
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
    /// About how many ids that is.
    pub(super) ids: usize,
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
    pub(super) async fn plan(
        &self,
        from: &BTreeMap<i32, i64>,
        room: usize,
        tries: u32,
    ) -> Result<BTreeMap<i32, Extent>> {
        if from.is_empty() {
            return Ok(BTreeMap::new());
        }
        let counts = self.count(from, tries).await?;
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
            let recent = counts.get(partition).and_then(|counts| counts.within.get(halving)).copied().unwrap_or(0);
            let ids = here.min(most).saturating_add(recent).min(room) as usize;
            (*partition, Extent { from: *from, past, window, ids })
        };
        Ok(from.iter().map(extent).collect())
    }

    /// Fills `index` with the ids of a partition.
    pub(super) async fn load(
        &self,
        partition: i32,
        extent: Extent,
        tries: u32,
        index: &mut PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> Result<()> {
        let Extent { from, past, window, ids } = extent;
        index.reserve(ids);
        let id = identifier(&self.id_column);
        let (table, window) = (&self.table, window.as_millis() as u64);
        let step = (window / AGE_STEPS).max(1);
        let recent = format!("_partition = {partition} AND _ingested_at >= now64(3) - toIntervalMillisecond({window})");
        let aged = format!(
            "toUInt8(least({}, intDiv(greatest(0, dateDiff('millisecond', _ingested_at, now64(3))), {step})))",
            AGE_STEPS - 1
        );
        let Some(most) = past else {
            let sql = format!(
                "SELECT {id}, if(_offset >= {from}, 0, {aged}) FROM {table} \
                 WHERE _partition = {partition} AND (_offset >= {from} OR ({recent}))"
            );
            return self.read(&sql, (step, tries), index, now).await;
        };
        let sql = format!(
            "SELECT {id}, toUInt8(0) FROM {table} WHERE _partition = {partition} AND _offset >= {from} \
             ORDER BY _ingested_at DESC LIMIT {most}"
        );
        self.read(&sql, (step, tries), index, now).await?;
        let sql = format!("SELECT {id}, {aged} FROM {table} WHERE _offset < {from} AND {recent}");
        self.read(&sql, (step, tries), index, now).await
    }

    /// The greatest offset of each partition that the table has rows of.
    pub(super) async fn landed(&self, tries: u32) -> Result<BTreeMap<i32, i64>> {
        let sql =
            format!("SELECT _partition AS partition, max(_offset) AS offset FROM {} GROUP BY _partition", self.table);
        let rows = self.ask(&sql).fetch_all::<Last>();
        let rows = within(silence(tries), rows).await.context("ask which partitions the table has rows of")?;
        Ok(rows.into_iter().map(|last| (last.partition, last.offset)).collect())
    }

    async fn count(&self, from: &BTreeMap<i32, i64>, tries: u32) -> Result<BTreeMap<i32, Counts>> {
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
        let rows = self.ask(&sql).fetch_all::<Counts>();
        let rows = within(silence(tries), rows).await.context("count the ids to be read back")?.into_iter();
        Ok(rows.map(|counts| (counts.partition, counts)).collect())
    }

    /// A question that the server gives up when nobody waits for its answer any more.
    fn ask(&self, sql: &str) -> Query {
        self.replicas.client().query_raw(sql).with_setting("cancel_http_readonly_queries_on_client_close", "1")
    }

    async fn read(
        &self,
        sql: &str,
        (step, tries): (Millis, u32),
        index: &mut PartitionIndex,
        now: &impl Fn() -> Millis,
    ) -> Result<()> {
        let mut answer = self.ask(sql).fetch_bytes("RowBinary").context("read ids back")?;
        let mut rows = Rows::default();
        while let Some(chunk) = within(silence(tries), answer.next()).await.context("read ids back")? {
            index.load(rows.parse(&chunk, step), now());
        }
        if !rows.begun.is_empty() {
            anyhow::bail!("the answer ended inside a row; is column `{}` a UUID?", self.id_column);
        }
        Ok(())
    }
}

/// Takes rows out of an answer that comes in pieces.
#[derive(Default)]
struct Rows {
    /// The beginning of a row whose end is still to come.
    begun: Vec<u8>,
    /// Ids and ages of the last piece.
    parsed: Vec<(u128, Millis)>,
}

impl Rows {
    /// Ids and ages of the rows that end in this piece; ages come in steps of so many milliseconds.
    fn parse(&mut self, mut piece: &[u8], step: Millis) -> &[(u128, Millis)] {
        self.parsed.clear();
        if !self.begun.is_empty() {
            let (end, others) = piece.split_at(piece.len().min(ROW_LEN - self.begun.len()));
            self.begun.extend_from_slice(end);
            piece = others;
        }
        let (begun, _) = self.begun.as_chunks();
        let (rows, rest) = piece.as_chunks();
        self.parsed.extend(begun.iter().chain(rows).map(|row| parse(row, step)));
        if !begun.is_empty() {
            self.begun.clear();
        }
        self.begun.extend_from_slice(rest);
        &self.parsed
    }
}

fn silence(tries: u32) -> Duration {
    SILENCE.saturating_mul(2_u32.saturating_pow(tries)).min(LONGEST_SILENCE)
}

/// How many of the `here` ids past the position of one partition, of `all` of them together, may be held of `room`.
fn past_limit(here: u64, all: u64, room: u64) -> u64 {
    if all <= room { here } else { (u128::from(here) * u128::from(room) / u128::from(all.max(1))) as u64 }
}

/// A UUID as ClickHouse writes it (two little-endian halves, the high one first), and an age in steps.
fn parse(row: &[u8; ROW_LEN], step: Millis) -> (u128, Millis) {
    let (id, age) = (u128::from_le_bytes(std::array::from_fn(|at| row[at])), row[ROW_LEN - 1]);
    (id.rotate_right(64), u64::from(age) * step)
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

    #[test]
    fn patience_grows_with_each_try_until_it_is_an_hour() {
        assert_eq!([0, 1, 5, 6, u32::MAX].map(|tries| silence(tries).as_secs()), [60, 120, 1920, 3600, 3600]);
    }

    #[test]
    fn rows_are_read_whatever_the_pieces_they_come_in() {
        let ids: Vec<u128> = (0..5).map(|n| 0x0011_2233_4455_6677_8899_aabb_ccdd_ee00 + n).collect();
        let mut answer = Vec::new();
        for (age, id) in ids.iter().enumerate() {
            answer.extend_from_slice(&((id >> 64) as u64).to_le_bytes());
            answer.extend_from_slice(&(*id as u64).to_le_bytes());
            answer.push(50 * age as u8);
        }
        let expected: Vec<(u128, Millis)> = ids.into_iter().zip([0, 5000, 10_000, 15_000, 20_000]).collect();
        for size in 1..=answer.len() {
            let mut rows = Rows::default();
            let found: Vec<_> = answer.chunks(size).flat_map(|piece| rows.parse(piece, 100).to_vec()).collect();
            assert_eq!(found, expected, "pieces of {size} bytes");
            assert!(rows.begun.is_empty());
        }
        let mut rows = Rows::default();
        assert_eq!(rows.parse(&answer[..40], 100), &expected[..2]);
        assert_eq!(rows.begun.len(), 6, "the answer ended inside a row");
    }
}
