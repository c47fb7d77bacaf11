//! Completes rollups when a partition is taken over. A materialized view is not atomic with the table that it reads: a server
//! that dies between the two, or an insert that is given up, leaves rows that are in the table and not in the rollup, and
//! they will not be inserted again. Rows at or past the committed offset are all that this can be true of.
//!
//! A rollup tells by its own ledger what it has counted: rows with `_slice` > 0, whose `_counted` has a bit for each of 64
//! offsets of a Kafka partition, landed in the same part as the figures. What is in the table and not in the ledger is counted
//! by the query of the view itself. The partition is claimed and quiet then, so nobody else adds to either.

use std::time::Duration;

use clickhouse::{
    Row,
    error::{Error, Result},
    query::Query,
};
use millrace_pipeline::batch::Progress;
use serde::Deserialize;

use super::{
    claims::{Claims, identifier, quote},
    client::within,
    errors::{ErrorClass, classify, code},
    replicas::Replicas,
};
use crate::one_line;

/// Longest that completing one rollup may take at the first try; a further one may take as long more as it was tried in vain.
/// The partitions stand still meanwhile.
const PATIENCE: Duration = Duration::from_secs(60);
/// If it has been more than the server can do for so long, it is left to a person.
const IN_VAIN: Duration = Duration::from_secs(120);
/// `TIMEOUT_EXCEEDED`, `MEMORY_LIMIT_EXCEEDED`.
const TOO_MUCH: [u32; 2] = [159, 241];

/// How often it is looked whether a backfill has ended.
const BACKFILL_POLL: Duration = Duration::from_millis(100);

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
    /// A rollup that this user may not read or write, or whose query the server refuses, is told and passed over, and so is
    /// everything that is too much for the server after `in_vain`, the time since the first try that was: figures are not worth
    /// standing still for, and can be completed later.
    ///
    /// # Errors
    /// Those of ClickHouse that are worth another try; claim again before it, for the statement may run on.
    pub async fn complete(&self, claims: &Claims, from: &[Progress], in_vain: Duration) -> Result<()> {
        match self.try_complete(claims, from, PATIENCE + in_vain).await {
            Err(error) if in_vain >= IN_VAIN && is_too_much(&error) => {
                tracing::error!(
                    table = self.table,
                    error = one_line(&error),
                    "rollups are not completed and may lack rows; run `millrace migrate --backfill` when the server has room and time"
                );
                Ok(())
            }
            result => result,
        }
    }

    async fn try_complete(&self, claims: &Claims, from: &[Progress], patience: Duration) -> Result<()> {
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
            within(patience, self.servers.client().query_raw(&doubt).fetch_one::<Doubt>()).await?;
        if rows == 0 {
            return Ok(());
        }
        // The table has an index on the time, and none on offsets.
        let rows_in_doubt = format!("_ingested_at >= fromUnixTimestamp64Milli({since}, 'UTC') AND ({doubted})");
        let partitions: Vec<i32> = from.iter().map(|one| one.partition).collect();
        let fence = claims.fence(from, claims.lease());
        for rollup in &rollups {
            // A ledger that lags behind on this replica would have what it lacks counted again.
            match claims.bring_up_to_date(&rollup.target).await {
                Ok(()) => {}
                Err(error) if is_refused(&error) => {
                    rollup.is_left(&error);
                    continue;
                }
                Err(error) => return Err(error),
            }
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
                .with_setting("max_execution_time", patience.as_secs().to_string());
            match within(patience, one_block(statement).execute()).await {
                Ok(()) => {
                    tracing::debug!(view = rollup.view, rows, ?partitions, "a rollup has all that is in the table")
                }
                Err(error) if is_refused(&error) => rollup.is_left(&error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Has each rollup count what lies in the table and it has not counted, whatever the offset: what was inserted before
    /// the rollup was made, or was lost to it in some other way. Rows that were inserted within the last `settled` are left
    /// to those who insert them, so it may run beside them; it may be ended at any time and begun again, which ends what is left
    /// of an earlier one. Tells each rollup and how many rows it took, and returns the number of rollups.
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
            self.end_backfills(rollup).await?;
            for (done, Span { partition, span }) in spans.iter().enumerate() {
                let (first, end) = (span * SPAN, (span + 1) * SPAN);
                let rows = format!("{old} AND _partition = {partition} AND _offset >= {first} AND _offset < {end}");
                let id = format!("millrace-backfill-{}", uuid::Uuid::new_v4().simple());
                let Some(sql) = rollup.statement(&rows, &[*partition], &rollup.alone(&id)) else {
                    tell(&format!("{}: its query does not read the table once; nothing is done", rollup.view))?;
                    break;
                };
                let statement = self
                    .servers
                    .client()
                    .query_raw(&sql)
                    .with_setting("query_id", id)
                    .with_setting("log_comment", rollup.comment());
                one_block(statement).execute().await?;
                tell(&format!("{}: {} of {} spans of a million offsets", rollup.view, done + 1, spans.len()))?;
            }
        }
        Ok(rollups.len())
    }

    /// Ends a statement of a backfill whose client is gone or another's, and waits until it has ended: what it has landed is in the
    /// ledger then.
    async fn end_backfills(&self, rollup: &Rollup) -> Result<()> {
        let running = format!("SELECT query_id FROM system.processes WHERE {}", rollup.is_backfilled());
        loop {
            let ids = within(PATIENCE, self.servers.client().query_raw(&running).fetch_all::<String>()).await?;
            if ids.is_empty() {
                return Ok(());
            }
            let kill = "KILL QUERY WHERE query_id IN {ids:Array(String)} ASYNC FORMAT Null";
            within(PATIENCE, self.servers.client().query_raw(kill).param("ids", &ids).execute()).await?;
            tokio::time::sleep(BACKFILL_POLL).await;
        }
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
    /// Tells a person of it.
    fn is_left(&self, error: &Error) {
        tracing::error!(
            view = self.view,
            error = one_line(error),
            "a rollup is not completed and may lack rows; how to complete it by hand says docs/analytics.md"
        );
    }

    /// What a statement of a backfill says of itself in `log_comment`.
    fn comment(&self) -> String {
        serde_json::json!({ "millrace": "backfill", "rollup": self.target }).to_string()
    }

    /// A condition for the processes of the server that backfill it.
    fn is_backfilled(&self) -> String {
        format!("Settings['log_comment'] = {}", quote(&self.comment()))
    }

    /// A fence for one statement of a backfill: of two at once, each of which has not seen what the other counts, the later one
    /// throws, before any row lands.
    fn alone(&self, query_id: &str) -> String {
        let others =
            format!("SELECT count() FROM system.processes WHERE {} AND query_id != '{query_id}'", self.is_backfilled());
        format!("NOT throwIf(({others}) > 0, 'another backfill of this rollup is running')")
    }

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

/// Whether it is refused however often it is tried.
fn is_refused(error: &Error) -> bool {
    matches!(classify(error), ErrorClass::Permanent | ErrorClass::Auth)
}

/// Whether the server shows or says that this is more than it can do now.
fn is_too_much(error: &Error) -> bool {
    matches!(error, Error::TimedOut) || code(error).is_some_and(|code| TOO_MUCH.contains(&code))
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
