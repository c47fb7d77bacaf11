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

use clickhouse::{Row, error::Result, query::Query};
use millrace_pipeline::batch::Progress;
use serde::{Deserialize, Serialize};

use super::{client::within, replicas::Replicas, replication::Replication};
use crate::faults::{self, Guard};

/// How often running inserts of an earlier owner are looked at until they are gone.
const QUIET_POLL: Duration = Duration::from_millis(50);

/// For how long after it was sent for the first time an insert may begin on the server. The longest that it then runs
/// comes on top; so long has its token to be remembered.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);

/// Code of the exception by which the server refuses an insert that comes in another of its lives, or too late. The
/// server's own codes are below.
pub const TOO_LATE: u32 = 70_395;

/// Code of the exception by which an insert refuses itself when the table's columns are not those that it was made for.
pub const ALTERED: u32 = 70_396;

/// The claims of one topic on one shard, as one owner makes them.
#[derive(Clone)]
pub struct Claims {
    pub(super) replicas: Replicas,
    pub(super) replication: Option<Replication>,
    /// Which of several shards.
    pub(super) shard: Option<usize>,
    pub(super) table: String,
    pub(super) topic: String,
    owner: String,
    pub(super) timeout: Duration,
    life: Arc<Mutex<Option<Life>>>,
}

/// A life of the server, as last heard of.
#[derive(Clone, Copy, Debug)]
struct Life {
    /// Of which replica.
    replica: usize,
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
    pub(super) replica: usize,
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
    pub fn new(servers: impl Into<Replicas>, table: String, topic: &str, owner: &str, timeout: Duration) -> Self {
        Self {
            replicas: servers.into(),
            replication: None,
            shard: None,
            table,
            topic: topic.to_owned(),
            owner: owner.to_owned(),
            timeout,
            life: Arc::default(),
        }
    }

    /// Tables are replicated: what is claimed and written needs a quorum, and a replica is brought up to date before what it
    /// has is believed.
    #[must_use]
    pub fn replicated(self, replication: Replication) -> Self {
        Self { replication: Some(replication), ..self }
    }

    /// They are those of one of several shards.
    #[must_use]
    pub fn of_shard(self, shard: usize) -> Self {
        Self { shard: Some(shard), ..self }
    }

    /// The servers that are claimed on.
    pub fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Claims partitions: the epoch of each claim that stands. One that is missing was taken by somebody else at the
    /// same moment.
    ///
    /// # Errors
    /// Those of ClickHouse; claims may or may not have been made then, which harms nobody but earlier owners.
    pub async fn claim(&self, partitions: &[i32]) -> Result<BTreeMap<i32, u64>> {
        let replica = self.replicas.current();
        self.sync_claims(replica).await?;
        let insert = format!(
            "INSERT INTO {table} (topic, partition, epoch, owner) \
             SELECT {{topic:String}}, wanted.partition, max(held.epoch) + 1, {{owner:String}} \
             FROM (SELECT arrayJoin({{partitions:Array(Int32)}}) AS partition) AS wanted \
             LEFT JOIN (SELECT partition, epoch FROM {table} WHERE topic = {{topic:String}}) AS held \
             ON held.partition = wanted.partition GROUP BY wanted.partition",
            table = self.table
        );
        let insert = self
            .ask(replica, &insert)
            .param("topic", &self.topic)
            .param("owner", &self.owner)
            .param("partitions", partitions)
            .with_setting("async_insert", "0")
            // A claim is made anew each time, and must never be taken for a repetition of an earlier one.
            .with_setting("insert_deduplicate", "0");
        within(self.timeout, insert.execute()).await?;
        let asked = Instant::now();
        let holders = self.holders(replica, partitions).await?;
        self.replicas.answered(replica);
        if let Some(Holder { started, uptime, .. }) = holders.first() {
            let life = Life { replica, started: *started, uptime: u64::from(*uptime), asked };
            *self.life.lock().unwrap_or_else(PoisonError::into_inner) = Some(life);
        }
        let holders = holders.into_iter();
        Ok(holders.filter(|holder| holder.owner == self.owner).map(|holder| (holder.partition, holder.epoch)).collect())
    }

    /// How long ago, by the server's clock, each of `partitions` that somebody else holds was claimed.
    ///
    /// # Errors
    /// Those of ClickHouse.
    pub async fn claimed_by_others(&self, partitions: &[i32]) -> Result<Vec<Duration>> {
        let ages = format!(
            "SELECT toInt64(abs(dateDiff('millisecond', claimed, now64(3)))) FROM (\
             SELECT argMax(owner, (epoch, owner)) AS holder, argMax(claimed_at, (epoch, owner)) AS claimed FROM {} \
             WHERE topic = {{topic:String}} AND partition IN {{partitions:Array(Int32)}} GROUP BY partition) \
             WHERE holder != {{owner:String}}",
            self.table
        );
        let ages = self.ask(self.replicas.current(), &ages).param("topic", &self.topic).param("partitions", partitions);
        let ages = ages.param("owner", &self.owner).fetch_all::<i64>();
        let ages = within(self.timeout, ages).await?;
        Ok(ages.into_iter().map(|age| Duration::from_millis(age.unsigned_abs())).collect())
    }

    /// Stops the inserts that hold one of `partitions`, and waits until none runs. Whatever of them landed is in the
    /// table then, and nothing more will land: an insert that starts later meets the fence. `since` is no earlier than the
    /// claim: where tables are replicated, it is seen to that the inserts of every replica have ended, and the replica that is
    /// asked has what they landed.
    ///
    /// # Errors
    /// Those of ClickHouse.
    pub async fn quiet(&self, partitions: &[i32], since: Instant) -> Result<usize> {
        match &self.replication {
            None => self.quiet_at(self.replicas.current(), partitions).await,
            Some(replication) => self.quiet_everywhere(replication, partitions, since).await,
        }
    }

    /// As [`Claims::quiet`], for one replica and without regard to others.
    pub(super) async fn quiet_at(&self, replica: usize, partitions: &[i32]) -> Result<usize> {
        let client = self.replicas.at(replica);
        let mut stopped = 0;
        loop {
            let running = client
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
            let kill = client
                .query_raw("KILL QUERY WHERE query_id IN {ids:Array(String)} ASYNC FORMAT Null")
                .param("ids", &running);
            within(self.timeout, kill.execute()).await?;
            tokio::time::sleep(QUIET_POLL).await;
        }
    }

    /// The lease of an insert that is sent for the first time now; `None` before the first claim.
    pub fn lease(&self) -> Option<Lease> {
        let life = self.life()?;
        // At the latest: the server was asked some time after `asked`, and seconds are counted whole.
        let uptime = life.uptime + life.asked.elapsed().as_secs() + 1;
        Some(Lease { replica: life.replica, started: life.started, until_uptime: uptime + BEGINS_WITHIN.as_secs() })
    }

    /// Whether claims were made on a replica that is not asked any more: nothing is written under them, for it is not known
    /// what the one that is asked now has seen of them.
    pub fn are_left(&self) -> bool {
        self.life().is_some_and(|life| life.replica != self.replicas.current())
    }

    /// The greatest epoch of each partition of the topic that was ever claimed here, whoever did.
    ///
    /// # Errors
    /// Those of ClickHouse.
    pub async fn epochs(&self) -> Result<BTreeMap<i32, u64>> {
        let epochs = format!(
            "SELECT partition, max(epoch) FROM {} WHERE topic = {{topic:String}} GROUP BY partition",
            self.table
        );
        let epochs = self.ask(self.replicas.current(), &epochs).param("topic", &self.topic);
        Ok(within(self.timeout, epochs.fetch_all::<(i32, u64)>()).await?.into_iter().collect())
    }

    /// A question to one replica, which it answers only if it has every claim that a quorum has.
    fn ask(&self, replica: usize, sql: &str) -> Query {
        let query = self.replicas.at(replica).query_raw(sql);
        match &self.replication {
            None => query,
            Some(_) => {
                let settings = Replication::CLAIMED.iter();
                let query = settings.fold(query, |query, (name, value)| query.with_setting(*name, *value));
                query.with_setting("insert_quorum_timeout", self.timeout.as_millis().to_string())
            }
        }
    }

    fn life(&self) -> Option<Life> {
        *self.life.lock().unwrap_or_else(PoisonError::into_inner)
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
        let leased = lease.map_or(String::new(), |Lease { started, until_uptime, .. }| {
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

    async fn holders(&self, replica: usize, partitions: &[i32]) -> Result<Vec<Holder>> {
        let holders = format!(
            "SELECT partition, holder.1 AS epoch, holder.2 AS owner, \
             toInt64(toUnixTimestamp(now())) - toInt64(uptime()) AS started, uptime() AS uptime FROM (\
             SELECT partition, max((epoch, owner)) AS holder FROM {} \
             WHERE topic = {{topic:String}} AND partition IN {{partitions:Array(Int32)}} GROUP BY partition)",
            self.table
        );
        let holders = self.ask(replica, &holders).param("topic", &self.topic).param("partitions", partitions);
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
        let claims = Claims::new(clickhouse::Client::default(), "`d`.`claims`".into(), "orders", "me", Duration::ZERO);
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
