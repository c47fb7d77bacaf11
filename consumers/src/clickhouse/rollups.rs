//! Completes rollups when a partition is taken over. A materialized view is not atomic with the table that it reads: a server
//! that dies between the two, or an insert that is given up, leaves rows that are in the table and not in the rollup, and
//! they will not be inserted again. Rows at or past the committed offset are all that this can be true of.
//!
//! A rollup tells by its own ledger what it has counted: rows with `_slice` > 0, whose `_counted` has a bit for each of 64
//! offsets of a Kafka partition, landed in the same part as the figures. What is in the table and not in the ledger is counted
//! by the query of the view itself. The partition is claimed and quiet then, so nobody else adds to either.

use std::time::Duration;

use clickhouse::{Row, error::Result, query::Query};
use millrace_pipeline::batch::Progress;
use serde::Deserialize;

use super::{
    claims::{Claims, identifier},
    client::within,
    errors::{ErrorClass, classify},
    replicas::Replicas,
};
use crate::one_line;

/// Longest that completing one rollup may take. The partition stands still meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many offsets of a Kafka partition are counted in one statement of a backfill.
const SPAN: i64 = 1 << 20;

/// The rollups of a table, on the servers of one shard.
pub struct Rollups {
    servers: Replicas,
    database: String,
    table: String,
}

/// A materialized view that feeds a table with a ledger; names as the server writes them, with their database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rollup {
    view: String,
    target: String,
    /// The table that the view reads.
    source: String,
    query: String,
}

#[derive(Row, Deserialize)]
struct Found {
    name: String,
    create: String,
    query: String,
}

/// Offsets of a partition that are counted at once.
#[derive(Row, Deserialize)]
struct Span {
    partition: i32,
    span: i64,
}

#[derive(Row, Deserialize)]
struct Ledger {
    database: String,
    table: String,
}

#[derive(Row, Deserialize)]
struct Doubt {
    rows: u64,
    /// In milliseconds since 1970.
    since: i64,
}

impl Rollups {
    /// Those that are fed out of a table.
    pub fn new(servers: impl Into<Replicas>, database: &str, table: &str) -> Self {
        Self { servers: servers.into(), database: database.to_owned(), table: table.to_owned() }
    }

    /// Has each rollup count what the table holds at or past an offset of each partition and it has not counted. The
    /// partitions have to be `claims`'s, under these epochs, and quiet.
    ///
    /// A rollup that this user may not read or write, or whose query the server refuses, is told and passed over: figures
    /// are not worth standing still for, and can be completed later.
    ///
    /// # Errors
    /// Those of ClickHouse that are worth another try; claim again before it, for the statement may run on.
    pub async fn complete(&self, claims: &Claims, from: &[Progress]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let rollups = self.all().await?;
        if rollups.is_empty() {
            return Ok(());
        }
        let doubted = doubted(from);
        let table = format!("{}.{}", identifier(&self.database), identifier(&self.table));
        let doubt = format!(
            "SELECT count() AS rows, toUnixTimestamp64Milli(min(_ingested_at)) AS since FROM {table} WHERE {doubted}"
        );
        let Doubt { rows, since } =
            within(PATIENCE, self.servers.client().query_raw(&doubt).fetch_one::<Doubt>()).await?;
        if rows == 0 {
            return Ok(());
        }
        // The table has an index on the time, and none on offsets.
        let rows_in_doubt = format!("_ingested_at >= fromUnixTimestamp64Milli({since}, 'UTC') AND ({doubted})");
        let partitions: Vec<i32> = from.iter().map(|one| one.partition).collect();
        let fence = claims.fence(from, claims.lease());
        for rollup in &rollups {
            let Some(sql) = rollup.statement(&rows_in_doubt, &partitions, &fence) else {
                tracing::error!(
                    view = rollup.view,
                    "a rollup is not completed, for its query does not read the table once; see docs/analytics.md"
                );
                continue;
            };
            let statement = self
                .servers
                .client()
                .query_raw(&sql)
                .with_setting("log_comment", claims.comment(from))
                .with_setting("allow_custom_error_code_in_throwif", "1")
                .with_setting("max_execution_time", PATIENCE.as_secs().to_string());
            match within(PATIENCE, one_block(statement).execute()).await {
                Ok(()) => {
                    tracing::debug!(view = rollup.view, rows, ?partitions, "a rollup has all that is in the table")
                }
                Err(error) if matches!(classify(&error), ErrorClass::Permanent | ErrorClass::Auth) => tracing::error!(
                    view = rollup.view,
                    error = one_line(&error),
                    "a rollup is not completed and may lack rows; how to complete it by hand says docs/analytics.md"
                ),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has each rollup count what lies in the table and it has not counted, whatever the offset: what was inserted before
    /// the rollup was made, or was lost to it in some other way. Rows that were inserted within the last `settled` are left
    /// to those who insert them, so it may run beside them; it may be ended at any time and begun again. Tells each rollup
    /// and how many rows it took, and returns the number of rollups.
    ///
    /// # Errors
    /// Those of ClickHouse.
    pub async fn backfill(
        &self,
        settled: Duration,
        tell: impl Fn(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let rollups = self.all().await?;
        let table = format!("{}.{}", identifier(&self.database), identifier(&self.table));
        let old = format!("_ingested_at < now64(3) - toIntervalMillisecond({})", settled.as_millis());
        let spans = format!(
            "SELECT _partition AS partition, intDiv(_offset, {SPAN}) AS span FROM {table} \
             WHERE _partition >= 0 AND {old} GROUP BY partition, span ORDER BY span, partition"
        );
        let spans = self.servers.client().query_raw(&spans).fetch_all::<Span>().await?;
        for rollup in &rollups {
            for (done, Span { partition, span }) in spans.iter().enumerate() {
                let (first, end) = (span * SPAN, (span + 1) * SPAN);
                let rows = format!("{old} AND _partition = {partition} AND _offset >= {first} AND _offset < {end}");
                let Some(sql) = rollup.statement(&rows, &[*partition], "1") else {
                    tell(&format!("{}: its query does not read the table once; nothing is done", rollup.view))?;
                    break;
                };
                one_block(self.servers.client().query_raw(&sql)).execute().await?;
                tell(&format!("{}: {} of {} spans of a million offsets", rollup.view, done + 1, spans.len()))?;
            }
        }
        Ok(rollups.len())
    }

    async fn all(&self) -> Result<Vec<Rollup>> {
        let views = self
            .servers
            .client()
            .query(
                "SELECT name, create_table_query AS create, as_select AS query FROM system.tables \
                 WHERE engine = 'MaterializedView' AND (database, name) IN (SELECT dependency.1, dependency.2 FROM (\
                 SELECT arrayJoin(arrayZip(dependencies_database, dependencies_table)) AS dependency \
                 FROM system.tables WHERE database = ? AND name = ?)) ORDER BY name",
            )
            .bind(&self.database)
            .bind(&self.table)
            .fetch_all::<Found>();
        let views = within(PATIENCE, views).await?;
        if views.is_empty() {
            return Ok(Vec::new());
        }
        let ledgers = "SELECT database, table FROM system.columns WHERE name = '_counted'";
        let ledgers = within(PATIENCE, self.servers.client().query_raw(ledgers).fetch_all::<Ledger>()).await?;
        let ledgers: Vec<String> = ledgers.iter().map(|one| written(&one.database, &one.table)).collect();
        let source = written(&self.database, &self.table);
        let rollups = views.into_iter().filter_map(|Found { name, create, query }| {
            let target = create.split_once(" TO ")?.1.split(' ').next()?.to_owned();
            Some(Rollup { view: name, target, source: source.clone(), query })
        });
        Ok(rollups.filter(|rollup| ledgers.contains(&rollup.target)).collect())
    }
}

impl Rollup {
    /// Counts the rows that meet a condition and that the ledger does not have of these partitions, if the fence lets it;
    /// `None` if the query does not read the table exactly once.
    fn statement(&self, rows: &str, partitions: &[i32], fence: &str) -> Option<String> {
        let Self { target, source, query, .. } = self;
        let from = format!(" FROM {source} ");
        if query.matches(&from).count() != 1 {
            return None;
        }
        let partitions = partitions.iter().map(i32::to_string).collect::<Vec<_>>().join(", ");
        let counted = format!(
            "SELECT _partition, 64 * (_slice - 1) + arrayJoin(bitPositionsToArray(_counted)) FROM {target} \
             WHERE _slice > 0 AND _partition IN ({partitions}) \
             AND (_slice, _partition) IN (SELECT 1 + intDiv(_offset, 64), _partition FROM {source} WHERE {rows})"
        );
        let missing =
            format!(" FROM (SELECT * FROM {source} WHERE {rows} AND (_partition, _offset) NOT IN ({counted})) ");
        Some(format!("INSERT INTO {target} SELECT * FROM ({}) WHERE {fence}", query.replacen(&from, &missing, 1)))
    }
}

/// One block is one part, which lands whole or not at all.
fn one_block(statement: Query) -> Query {
    statement
        .with_setting("async_insert", "0")
        .with_setting("insert_deduplicate", "0")
        .with_setting("max_insert_threads", "1")
        .with_setting("min_insert_block_size_rows", "0")
        .with_setting("min_insert_block_size_bytes", "1000000000")
}

/// A condition for the rows that may not be counted.
fn doubted(from: &[Progress]) -> String {
    let each = from.iter().map(|one| format!("_partition = {} AND _offset >= {}", one.partition, one.next_offset));
    each.collect::<Vec<_>>().join(" OR ")
}

/// A table as the server writes it in a query: names are quoted only where they have to be.
fn written(database: &str, table: &str) -> String {
    let name = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        match name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit()) {
            true => name.to_owned(),
            false => identifier(name),
        }
    };
    format!("{}.{}", name(database), name(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollup(query: &str) -> Rollup {
        Rollup { view: "v".into(), target: "d.r".into(), source: "d.t".into(), query: query.into() }
    }

    #[test]
    fn what_is_not_in_the_ledger_takes_the_place_of_the_table() {
        let from =
            [Progress { partition: 3, epoch: 1, next_offset: 70 }, Progress { partition: 4, epoch: 1, next_offset: 0 }];
        let rows = doubted(&from);
        assert_eq!(rows, "_partition = 3 AND _offset >= 70 OR _partition = 4 AND _offset >= 0");
        let sql =
            rollup("SELECT a FROM (SELECT sum(b) AS a FROM d.t WHERE c GROUP BY d)").statement(&rows, &[3, 4], "1");
        let sql = sql.unwrap();
        assert!(sql.starts_with(
            "INSERT INTO d.r SELECT * FROM (SELECT a FROM (SELECT sum(b) AS a FROM (SELECT * FROM d.t WHERE "
        ));
        assert!(sql.ends_with(") WHERE c GROUP BY d)) WHERE 1"), "{sql}");
    }

    #[test]
    fn a_view_that_reads_the_table_twice_or_another_one_is_not_completed() {
        assert_eq!(rollup("SELECT a FROM d.t2 WHERE b").statement("1", &[0], "1"), None);
        assert_eq!(rollup("SELECT a FROM d.t AS x, (SELECT b FROM d.t WHERE c)").statement("1", &[0], "1"), None);
    }

    #[test]
    fn names_are_quoted_where_the_server_does() {
        assert_eq!(written("d", "t_1"), "d.t_1");
        assert_eq!(written("my-db", "1t"), "`my-db`.`1t`");
    }
}
