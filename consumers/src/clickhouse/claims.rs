//! Claims: who may write which Kafka partition, kept in ClickHouse, and the fence that makes the server itself refuse
//! everybody else.
//!
//! A claim is a row (topic, partition, epoch, owner). The holder of a partition is the row with the greatest (epoch,
//! owner): a new claim takes the next epoch, and two that are made at once are told apart by the owner, so that all see
//! the same holder. No clock decides anything.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use clickhouse::{Client, Row, error::Result};
use millrace_pipeline::batch::Progress;
use serde::{Deserialize, Serialize};

use super::client::within;
use crate::faults::{self, Guard};

/// How often running inserts of an earlier owner are looked at until they are gone.
const QUIET_POLL: Duration = Duration::from_millis(50);

/// For how long after it was sent for the first time an insert may begin on the server. The longest that it then runs
/// comes on top; so long has its token to be remembered.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// Code of the exception by which the server refuses an insert that comes in another of its lives, or too late. The
/// server's own codes are below.
pub const TOO_LATE: u32 = 70_395;

/// The claims of one topic, as one owner makes them.
#[derive(Clone)]
pub struct Claims {
    client: Client,
    table: String,
    topic: String,
    owner: String,
    timeout: Duration,
    life: Arc<Mutex<Option<Life>>>,
}

/// A life of the server, as last heard of.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// Seconds since 1970 by the server's clock; it may differ by one from one reading to the next.
    started: i64,
    /// Seconds since then.
    uptime: u64,
    /// The server was asked no earlier.
    asked: Instant,
}

/// What an insert may rely on when it is sent again: it is the same life of the server, which remembers the tokens of
/// that life for sure, and it is soon enough for its token to be remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    started: i64,
    until_uptime: u64,
}

/// What an insert says of itself in `log_comment`, for whoever claims one of its partitions next.
#[derive(Debug, Serialize)]
struct InsertComment<'a> {
    millrace: &'static str,
    /// Table of the claims: two installations on one server may read topics of the same name.
    claims: &'a str,
    topic: &'a str,
    owner: &'a str,
    partitions: Vec<i32>,
}

#[derive(Row, Deserialize)]
struct Holder {
    partition: i32,
    epoch: u64,
    owner: String,
    started: i64,
    uptime: u32,
}

impl Lease {
    /// The lease of an insert that was sent before the server was started anew.
    #[must_use]
    pub fn in_another_life(self) -> Self {
        Self { started: self.started - 60, ..self }
    }

    /// A lease that ended long ago.
    #[must_use]
    pub fn run_out(self) -> Self {
        Self { until_uptime: 0, ..self }
    }
}

impl Claims {
    /// Claims of `topic` in `table` (quoted, with its database) by `owner`, which no other process ever was.
    pub fn new(client: Client, table: String, topic: &str, owner: &str, timeout: Duration) -> Self {
        Self { client, table, topic: topic.to_owned(), owner: owner.to_owned(), timeout, life: Arc::default() }
    }

    /// Claims partitions: the epoch of each claim that stands. One that is missing was taken by somebody else at the
    /// same moment.
    ///
    /// # Errors
    /// Those of ClickHouse; claims may or may not have been made then, which harms nobody but earlier owners.
    pub async fn claim(&self, partitions: &[i32]) -> Result<BTreeMap<i32, u64>> {
        let insert = format!(
            "INSERT INTO {table} (topic, partition, epoch, owner) \
             SELECT {{topic:String}}, wanted.partition, max(held.epoch) + 1, {{owner:String}} \
             FROM (SELECT arrayJoin({{partitions:Array(Int32)}}) AS partition) AS wanted \
             LEFT JOIN (SELECT partition, epoch FROM {table} WHERE topic = {{topic:String}}) AS held \
             ON held.partition = wanted.partition GROUP BY wanted.partition",
            table = self.table
        );
        let insert = self
            .client
            .query_raw(&insert)
            .param("topic", &self.topic)
            .param("owner", &self.owner)
            .param("partitions", partitions)
            .with_setting("async_insert", "0")
            // A claim is made anew each time, and must never be taken for a repetition of an earlier one.
            .with_setting("insert_deduplicate", "0");
        within(self.timeout, insert.execute()).await?;
        let asked = Instant::now();
        let holders = self.holders(partitions).await?;
        if let Some(Holder { started, uptime, .. }) = holders.first() {
            let life = Life { started: *started, uptime: u64::from(*uptime), asked };
            *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life);
        }
        let holders = holders.into_iter();
        Ok(holders.filter(|holder| holder.owner == self.owner).map(|holder| (holder.partition, holder.epoch)).collect())
    }

    /// Stops the inserts that hold one of `partitions`, and waits until none runs. Whatever of them landed is in the
    /// table then, and nothing more will land: an insert that starts later meets the fence.
    ///
    /// # Errors
    /// Those of ClickHouse.
    pub async fn quiet(&self, partitions: &[i32]) -> Result<usize> {
        let mut stopped = 0;
        loop {
            let running = self
                .client
                .query_raw(
                    "SELECT query_id FROM system.processes WHERE \
                     JSONExtractString(Settings['log_comment'], 'millrace') = 'insert' \
                     AND JSONExtractString(Settings['log_comment'], 'claims') = {claims:String} \
                     AND JSONExtractString(Settings['log_comment'], 'topic') = {topic:String} \
                     AND hasAny(JSONExtract(Settings['log_comment'], 'partitions', 'Array(Int32)'), {partitions:Array(Int32)})",
                )
                .param("claims", &self.table)
                .param("topic", &self.topic)
                .param("partitions", partitions)
                .fetch_all::<String>();
            let running = within(self.timeout, running).await?;
            if running.is_empty() {
                return Ok(stopped);
            }
            if stopped == 0 {
                tracing::info!(
                    topic = self.topic,
                    ?partitions,
                    inserts = running.len(),
                    "waiting for inserts of an earlier owner to end; one that is half sent ends with the server's receive timeout (30 s by default)"
                );
            }
            stopped = stopped.max(running.len());
            let kill = self
                .client
                .query_raw("KILL QUERY WHERE query_id IN {ids:Array(String)} ASYNC FORMAT Null")
                .param("ids", &running);
            within(self.timeout, kill.execute()).await?;
            tokio::time::sleep(QUIET_POLL).await;
        }
    }

    /// The lease of an insert that is sent for the first time now; `None` before the first claim.
    pub fn lease(&self) -> Option<Lease> {
        let life = (*self.life.lock().unwrap_or_else(PoisonError::into_inner))?;
        // At the latest: the server was asked some time after `asked`, and seconds are counted whole.
        let uptime = life.uptime + life.asked.elapsed().as_secs() + 1;
        Some(Lease { started: life.started, until_uptime: uptime + BEGINS_WITHIN.as_secs() })
    }

    /// A condition that is true for every row while each of `progress` is claimed by this owner under its epoch and the
    /// lease holds, and throws otherwise (code 395, or [`TOO_LATE`] for the lease), before any row lands.
    pub fn fence(&self, progress: &[Progress], lease: Option<Lease>) -> String {
        if faults::without(Guard::Fence) {
            return "1".to_owned();
        }
        let partitions: Vec<String> = progress.iter().map(|one| one.partition.to_string()).collect();
        let owner = quote(&self.owner);
        let held: Vec<String> =
            progress.iter().map(|one| format!("({}, ({}, {owner}))", one.partition, one.epoch)).collect();
        // In another life of the server a token may be remembered whose rows are not there, or rows may be there whose token
        // is not: it was ended between the two.
        let leased = lease.map_or(String::new(), |Lease { started, until_uptime }| {
            format!(
                " AND throwIf(abs(toInt64(toUnixTimestamp(now())) - toInt64(uptime()) - {started}) > 1 \
                 OR uptime() > {until_uptime}, 'millrace: too late to tell whether this insert has landed before', \
                 toInt32({TOO_LATE})) = 0"
            )
        });
        format!(
            "throwIf((SELECT count() FROM (SELECT partition, max((epoch, owner)) AS holder FROM {table} \
             WHERE topic = {topic} AND partition IN ({partitions}) GROUP BY partition) \
             WHERE (partition, holder) IN ({held})) != {count}, 'millrace: a claim of this batch is lost') = 0{leased}",
            table = self.table,
            topic = quote(&self.topic),
            partitions = partitions.join(", "),
            held = held.join(", "),
            count = progress.len(),
        )
    }

    /// What an insert says of itself, so that the next owner finds it.
    pub fn comment(&self, progress: &[Progress]) -> String {
        let partitions = progress.iter().map(|one| one.partition).collect();
        let comment = InsertComment {
            millrace: "insert",
            claims: &self.table,
            topic: &self.topic,
            owner: &self.owner,
            partitions,
        };
        serde_json::to_string(&comment).unwrap_or_default()
    }

    async fn holders(&self, partitions: &[i32]) -> Result<Vec<Holder>> {
        let holders = format!(
            "SELECT partition, holder.1 AS epoch, holder.2 AS owner, \
             toInt64(toUnixTimestamp(now())) - toInt64(uptime()) AS started, uptime() AS uptime FROM (\
             SELECT partition, max((epoch, owner)) AS holder FROM {} \
             WHERE topic = {{topic:String}} AND partition IN {{partitions:Array(Int32)}} GROUP BY partition)",
            self.table
        );
        let holders = self.client.query_raw(&holders).param("topic", &self.topic).param("partitions", partitions);
        within(self.timeout, holders.fetch_all::<Holder>()).await
    }
}

/// A string literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A quoted identifier.
pub fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_identifiers_cannot_be_left_early() {
        assert_eq!(quote(r"it's \ here"), r"'it\'s \\ here'");
        assert_eq!(identifier("a`b"), r"`a\`b`");
    }

    #[test]
    fn the_fence_names_every_partition_with_its_epoch() {
        let claims = Claims::new(Client::default(), "`d`.`claims`".into(), "orders", "me", Duration::ZERO);
        let progress = [
            Progress { partition: 1, epoch: 7, next_offset: 10 },
            Progress { partition: 4, epoch: 9, next_offset: 20 },
        ];
        let fence = claims.fence(&progress, None);
        assert!(fence.contains("IN ((1, (7, 'me')), (4, (9, 'me')))"), "{fence}");
        assert!(fence.contains("!= 2"), "{fence}");
        assert!(claims.comment(&progress).contains(r#""partitions":[1,4]"#));
    }
}
