//! Reads the table for an audit: with one thread, bounded memory, and never more than one query at a time.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clickhouse::{Client, error::Error};
use millrace_pipeline::project::{INGESTED_AT_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN};

use super::{findings::Row, ledger::BUCKET_PRIME, marks::Place, range::Range};
use crate::{
    clickhouse::{
        claims::identifier,
        client::{client, within},
        errors::{ErrorClass, classify, code, is_connect},
        table::describe,
    },
    config::{self, Topic},
};

/// One thread of the server, and memory for it; a query that is not read any more ends.
const GENTLY: &[(&str, &str)] = &[
    ("max_threads", "1"),
    ("max_memory_usage", "1073741824"),
    ("cancel_http_readonly_queries_on_client_close", "1"),
    ("priority", "10"),
    ("log_comment", r#"{"millrace":"audit"}"#),
    // Suspects are named in the text of a query.
    ("max_query_size", "16777216"),
];
/// The server lets this user change no settings: READONLY, SETTING_CONSTRAINT_VIOLATION.
const SETTINGS_REFUSED: &[u32] = &[164, 452];
/// Ids that are asked for by name in one query, 39 bytes each; the second, if the server does not take settings, fit into
/// its own limit for the text of a query, 256 KiB.
const IDS_AT_ONCE: (usize, usize) = (100_000, 6_000);
/// Up to so many rows in the range, the server is asked to keep their ids (some 50 bytes each) and to send only rows of
/// these; beyond, it sends every row that was inserted in the time concerned.
const KEPT_BY_SERVER: u64 = 1_000_000;

/// One topic's table, on every shard.
pub(crate) struct Table {
    client: Client,
    settings: config::ClickHouse,
    name: String,
    qualified: String,
    id: String,
    timeout: Duration,
    gently: bool,
    /// Those of the other shards.
    more: Vec<Self>,
}

/// What the table has of the ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Rows whose coordinates are in a range.
    pub rows: u64,
    /// When the first of them was inserted, in milliseconds since 1970.
    pub first_ingested_ms: i64,
}

impl Table {
    /// The table of a topic; asks whether it is as it must be and this user may read it.
    ///
    /// # Errors
    /// When a shard cannot be reached at any replica, or its table does not exist or may not be read, or lacks a column.
    pub(crate) async fn open(settings: &config::ClickHouse, topic: &Topic, timeout: Duration) -> Result<Self> {
        let mut table = Self::open_shard(settings, 0, topic, timeout).await?;
        for shard in 1..settings.shard_count() {
            table.more.push(Self::open_shard(settings, shard, topic, timeout).await?);
        }
        Ok(table)
    }

    /// That of one shard, at the first replica of which it can be read.
    async fn open_shard(settings: &config::ClickHouse, shard: usize, topic: &Topic, timeout: Duration) -> Result<Self> {
        let mut outcome = Err(anyhow!("clickhouse.shards[{shard}] has no replicas"));
        for url in settings.replicas(shard) {
            outcome = Self::open_at(&settings.at(url), topic, timeout).await;
            if outcome.is_ok() {
                break;
            }
        }
        if settings.is_cluster() { outcome.with_context(|| format!("clickhouse.shards[{shard}]")) } else { outcome }
    }

    async fn open_at(settings: &config::ClickHouse, topic: &Topic, timeout: Duration) -> Result<Self> {
        let (database, name) = (&settings.database, &topic.table);
        let mut table = Self {
            client: client(settings)?,
            settings: settings.clone(),
            name: format!("{database}.{name}"),
            qualified: format!("{}.{}", identifier(database), identifier(name)),
            id: identifier(&topic.id_column),
            timeout,
            gently: true,
            more: Vec::new(),
        };
        let described = describe(&table.client, database, name, timeout).await;
        let Some(described) = described.map_err(|error| table.explain(error, "describe the table"))? else {
            bail!(
                "ClickHouse shows user {} no table {}: `GRANT SELECT ON {} TO {}`, or correct clickhouse.database and the topic's table",
                settings.user,
                table.name,
                table.name,
                settings.user
            );
        };
        for column in [topic.id_column.as_str(), PARTITION_COLUMN, OFFSET_COLUMN, INGESTED_AT_COLUMN] {
            match described.column(column) {
                None => bail!("table {} has no column {column}, or user {} may not see it", table.name, settings.user),
                Some(found) if column == topic.id_column && found.type_ != "UUID" => {
                    bail!("table {}: column {column} is of type {}; expected UUID", table.name, found.type_);
                }
                Some(_) => {}
            }
        }
        let probe = format!(
            "SELECT {}, {PARTITION_COLUMN}, {OFFSET_COLUMN}, {INGESTED_AT_COLUMN} FROM {} LIMIT 0",
            table.id, table.qualified
        );
        match table.execute(&probe).await {
            Err(error) if code(&error).is_some_and(|code| SETTINGS_REFUSED.contains(&code)) => {
                table.gently = false;
                table.execute(&probe).await
            }
            other => other,
        }
        .map_err(|error| table.explain(error, "read the table"))?;
        Ok(table)
    }

    /// The table and its column of ids, quoted for a query.
    pub(crate) fn names(&self) -> (&str, &str) {
        (&self.qualified, &self.id)
    }

    /// Whether the server takes the settings that keep queries small.
    pub(crate) fn is_gentle(&self) -> bool {
        self.shards().all(|table| table.gently)
    }

    fn shards(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.more)
    }

    /// Ids that may be asked for at once.
    pub(super) fn ids_at_once(&self) -> usize {
        if self.is_gentle() { IDS_AT_ONCE.0 } else { IDS_AT_ONCE.1 }
    }

    /// The rule by which the table lets rows go, if it has one.
    ///
    /// # Errors
    /// Those of the server.
    pub(crate) async fn ttl(&self, topic: &Topic) -> Result<Option<String>> {
        let engine = self
            .client
            .query("SELECT engine_full FROM system.tables WHERE database = ? AND name = ?")
            .bind(&self.settings.database)
            .bind(&topic.table)
            .fetch_one::<String>();
        let engine = within(self.timeout, engine).await.map_err(|error| self.explain(error, "describe the table"))?;
        Ok(ttl(&engine).map(str::to_owned))
    }

    /// The smallest offset of a partition that has a row.
    ///
    /// # Errors
    /// Those of the server.
    pub(crate) async fn first_offset(&self, partition: i32) -> Result<Option<i64>> {
        let sql = format!(
            "SELECT toInt64(min({OFFSET_COLUMN})), count() FROM {} WHERE {PARTITION_COLUMN} = {partition}",
            self.qualified
        );
        let mut first = None;
        for table in self.shards() {
            let row: [u8; 16] = table.one(&sql).await?;
            let here = (int(&row, 8) > 0).then(|| int(&row, 0));
            first = first.into_iter().chain(here).min();
        }
        Ok(first)
    }

    /// What the table has of the ranges.
    ///
    /// # Errors
    /// Those of the server.
    pub(super) async fn extent(&self, ranges: &[Range]) -> Result<Extent> {
        let sql = format!(
            "SELECT count(), toInt64(toUnixTimestamp64Milli(toDateTime64(min({INGESTED_AT_COLUMN}), 3))) FROM {} WHERE {}",
            self.qualified,
            in_ranges(ranges)
        );
        let mut extent = Extent::default();
        for table in self.shards() {
            let row: [u8; 16] = table.one(&sql).await?;
            let (rows, first_ms) = (int(&row, 0).unsigned_abs(), int(&row, 8));
            if rows > 0 {
                let earlier = if extent.rows == 0 { first_ms } else { first_ms.min(extent.first_ingested_ms) };
                extent = Extent { rows: extent.rows + rows, first_ingested_ms: earlier };
            }
        }
        Ok(extent)
    }

    /// Streams the rows whose ids belong to a bucket and that have coordinates in the ranges, or the id of such a row
    /// and were inserted since `since_ms`.
    ///
    /// # Errors
    /// Those of the server; its silence.
    pub(super) async fn rows(
        &self,
        ranges: &[Range],
        extent: &Extent,
        since_ms: i64,
        (bucket, buckets): (u64, u64),
        mut each: impl FnMut(u128, Place),
    ) -> Result<()> {
        let in_bucket = if buckets > 1 {
            let number = format!("reinterpretAsUInt128({})", self.id);
            format!(
                "bitXor(toUInt64(bitShiftRight({number}, 64)), toUInt64({number})) % {BUCKET_PRIME} % {buckets} = {bucket}"
            )
        } else {
            "1".to_owned()
        };
        let in_ranges = in_ranges(ranges);
        // A shard does not know the ids of another.
        let known = if extent.rows <= KEPT_BY_SERVER && self.more.is_empty() {
            format!(
                "AND {id} IN (SELECT {id} FROM {} WHERE {in_bucket} AND ({in_ranges}))",
                self.qualified,
                id = self.id
            )
        } else {
            String::new()
        };
        let sql = format!(
            "SELECT {id}, toInt32({PARTITION_COLUMN}), toInt64({OFFSET_COLUMN}) FROM {} WHERE {in_bucket} \
             AND (({in_ranges}) OR ({INGESTED_AT_COLUMN} >= fromUnixTimestamp64Milli(toInt64({since_ms})) {known}))",
            self.qualified,
            id = self.id,
        );
        for table in self.shards() {
            let each = |row: &[u8; 28]| {
                let place = Place { partition: int32(row, 16), offset: int(row, 20) };
                each(uuid(row), place);
            };
            table.stream(&sql, each).await?;
        }
        Ok(())
    }

    /// All rows of some ids, at most [`Table::ids_at_once`], sorted by id.
    ///
    /// # Errors
    /// Those of the server; its silence.
    pub(super) async fn rows_of(&self, ids: &[u128]) -> Result<Vec<(u128, Row)>> {
        let list: Vec<String> = ids.iter().map(|id| format!("'{}'", uuid::Uuid::from_u128(*id))).collect();
        self.rows_where(format!("{} IN ({})", self.id, list.join(","))).await
    }

    async fn rows_where(&self, condition: String) -> Result<Vec<(u128, Row)>> {
        let sql = format!(
            "SELECT {id}, toInt32({PARTITION_COLUMN}), toInt64({OFFSET_COLUMN}), \
             toInt64(toUnixTimestamp64Milli(toDateTime64({INGESTED_AT_COLUMN}, 3))) FROM {} WHERE {condition}",
            self.qualified,
            id = self.id,
        );
        let mut rows = Vec::new();
        for table in self.shards() {
            let each = |row: &[u8; 36]| {
                let place = Place { partition: int32(row, 16), offset: int(row, 20) };
                rows.push((uuid(row), Row { place, ingested_at_ms: int(row, 28) }));
            };
            table.stream(&sql, each).await?;
        }
        rows.sort_unstable();
        Ok(rows)
    }

    /// All rows with an id or of coordinates, sorted by id.
    ///
    /// # Errors
    /// Those of the server; its silence.
    pub(crate) async fn rows_like(&self, id: Option<u128>, place: Option<Place>) -> Result<Vec<(u128, Row)>> {
        let by_id = id.map(|id| format!("{} = '{}'", self.id, uuid::Uuid::from_u128(id)));
        let by_place = place.map(|Place { partition, offset }| {
            format!("({PARTITION_COLUMN} = {partition} AND {OFFSET_COLUMN} = {offset})")
        });
        let either: Vec<String> = by_id.into_iter().chain(by_place).collect();
        self.rows_where(if either.is_empty() { "0".to_owned() } else { either.join(" OR ") }).await
    }

    fn query(&self, sql: &str) -> clickhouse::query::Query {
        let query = self.client.query_raw(sql);
        let settings = if self.gently { GENTLY } else { &[] };
        settings.iter().fold(query, |query, (name, value)| query.with_setting(*name, *value))
    }

    async fn execute(&self, sql: &str) -> Result<(), Error> {
        let mut rows = self.query(sql).fetch_bytes("RowBinary")?;
        while within(self.timeout, rows.next()).await?.is_some() {}
        Ok(())
    }

    /// The one row of a query, of the first shard.
    ///
    /// # Errors
    /// Those of the server, or there is none.
    pub(crate) async fn one<const LEN: usize>(&self, sql: &str) -> Result<[u8; LEN]> {
        let mut found = None;
        self.stream(sql, |row: &[u8; LEN]| found = Some(*row)).await?;
        found.context("ClickHouse answered a question for one row with none")
    }

    /// Streams the rows of a query of the first shard, all of one length in `RowBinary`.
    ///
    /// # Errors
    /// Those of the server; its silence.
    pub(crate) async fn stream<const LEN: usize>(&self, sql: &str, mut each: impl FnMut(&[u8; LEN])) -> Result<()> {
        let explain = |error| self.explain(error, "read the table");
        let mut chunks = self.query(sql).fetch_bytes("RowBinary").map_err(explain)?;
        let mut rest: Vec<u8> = Vec::new();
        while let Some(chunk) = within(self.timeout, chunks.next()).await.map_err(explain)? {
            rest.extend_from_slice(&chunk);
            let (rows, tail) = rest.as_chunks::<LEN>();
            rows.iter().for_each(&mut each);
            let whole = rest.len() - tail.len();
            rest.drain(..whole);
        }
        if rest.is_empty() { Ok(()) } else { Err(anyhow!("ClickHouse's answer ended inside a row")) }
    }

    fn explain(&self, error: Error, doing: &str) -> anyhow::Error {
        let config::ClickHouse { url, user, .. } = &self.settings;
        let name = &self.name;
        let hint = match classify(&error) {
            _ if is_connect(&error) => format!("{url} cannot be reached: is it running, and is clickhouse.url right?"),
            ErrorClass::Auth => format!(
                "user {user} may not: check clickhouse.user and its password, or run `GRANT SELECT ON {name} TO {user}` as an administrator"
            ),
            _ if matches!(error, Error::TimedOut) => format!(
                "{url} sent nothing for {} s: is it well? A longer wait is given by --timeout",
                self.timeout.as_secs_f64()
            ),
            _ => format!("{url}, table {name}"),
        };
        anyhow::Error::new(error).context(hint).context(format!("{doing} {name}"))
    }
}

fn in_ranges(ranges: &[Range]) -> String {
    let ranges = ranges.iter().filter(|range| range.offsets() > 0).map(|Range { partition, from, to, .. }| {
        format!("{PARTITION_COLUMN} = {partition} AND {OFFSET_COLUMN} >= {from} AND {OFFSET_COLUMN} < {to}")
    });
    let all = ranges.collect::<Vec<_>>().join(" OR ");
    if all.is_empty() { "0".to_owned() } else { all }
}

/// The `TTL` of an engine's definition, which stands before its settings.
fn ttl(engine_full: &str) -> Option<&str> {
    let (_, rest) = engine_full.split_once(" TTL ")?;
    Some(rest.split_once(" SETTINGS ").map_or(rest, |(ttl, _)| ttl))
}

/// A UUID as ClickHouse writes it: two little-endian halves, the high one first.
pub(crate) fn uuid(row: &[u8]) -> u128 {
    u128::from(int(row, 0) as u64) << 64 | u128::from(int(row, 8) as u64)
}

/// A number in a row.
pub(crate) fn int(row: &[u8], at: usize) -> i64 {
    row[at..].first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes))
}

fn int32(row: &[u8], at: usize) -> i32 {
    row[at..].first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_by_which_rows_expire_is_read_from_the_engine() {
        let engine = "MergeTree PARTITION BY toYYYYMM(timestamp) ORDER BY timestamp TTL toDateTime(timestamp) + toIntervalMonth(25) SETTINGS index_granularity = 8192";
        assert_eq!(ttl(engine), Some("toDateTime(timestamp) + toIntervalMonth(25)"));
        assert_eq!(ttl("MergeTree ORDER BY timestamp SETTINGS index_granularity = 8192"), None);
    }

    #[test]
    fn a_uuid_has_its_high_half_first() {
        let id = 0x0123_4567_89ab_cdef_0011_2233_4455_6677u128;
        let mut row = ((id >> 64) as u64).to_le_bytes().to_vec();
        row.extend((id as u64).to_le_bytes());
        assert_eq!(uuid(&row), id);
    }
}
