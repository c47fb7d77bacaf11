//! Where a topic writes, shard by shard: the tables that are there, and who talks to them.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use arrow_schema::SchemaRef;
use millrace_pipeline::topic::TopicPipeline;

use super::{
    KAFKA_TIMEOUT,
    crew::Shard,
    probe::Probe,
    target::{described, landing, look, qualified, refusals},
};
use crate::{
    clickhouse::{
        dead_letters::DeadLetterTable, replicas::Replicas, replication::Replication, rollups::Rollups, table::Table,
    },
    config::{ClickHouse, Config, Retry, Topic},
    takeover::{Elsewhere, Ids, TakeOver},
};

/// A shard as one of its replicas shows it.
pub(super) struct Found {
    replicas: Replicas,
    /// Of the replica that was looked at.
    settings: ClickHouse,
    table: Table,
    /// Whether table and claims are replicated.
    replicated: bool,
    dead_letter_table: Option<Arc<DeadLetterTable>>,
}

/// Looks at the tables of a shard, at the replica that is to be asked; makes them first where the configuration says so. The
/// outer error is worth another try, perhaps at another replica.
///
/// # Errors
/// The inner one: a table is not there, or is not one that may be written to.
pub(super) async fn find(config: &Config, topic: &Topic, shard: usize, replicas: &Replicas) -> Result<Result<Found>> {
    let at = replicas.current();
    let found = find_at(config, topic, shard, replicas, at).await;
    if found.is_err() {
        replicas.failed(at);
    }
    found
}

async fn find_at(
    config: &Config,
    topic: &Topic,
    shard: usize,
    replicas: &Replicas,
    at: usize,
) -> Result<Result<Found>> {
    let clickhouse = &config.clickhouse;
    let settings = clickhouse.at(replicas.url_of(at));
    let there = Config { clickhouse: settings.clone(), ..config.clone() };
    let client = replicas.at(at);
    // A table that is made here is plain, and rows of a plain one are on one replica only.
    let make = (replicas.count() == 1).then_some(topic);
    let table = match described(&there, client, &topic.table, make, !clickhouse.shards.is_empty()).await? {
        Ok(table) => table,
        Err(why) => return Ok(Err(of_shard(clickhouse, shard, why))),
    };
    let mut replicated = table.is_replicated();
    if replicated || replicas.count() > 1 {
        let claims = look(&there, client, &settings.claims_table, None).await??;
        replicated &= claims.is_some_and(|claims| claims.is_replicated());
    }
    if replicas.count() > 1 && !replicated {
        let (table, claims) = (&topic.table, &settings.claims_table);
        return Ok(Err(of_shard(
            clickhouse,
            shard,
            anyhow!(
                "it has {} replicas, so tables {table} and {claims} must both be replicated, or one would not have what another \
                 has; {table} is {}: make them with `millrace migrate --engine replicated --apply`, or name one replica",
                replicas.count(),
                if replicated { "replicated and the other is not" } else { "not, or the other is not" },
            ),
        )));
    }
    let dead_letter_table = match &topic.dead_letter_table {
        None => None,
        Some(table) => {
            let found = look(&there, client, table, make).await?;
            let label = topic.label();
            let target = if clickhouse.shard_count() == 1 { label.clone() } else { format!("{label}/{shard}") };
            let (replicas, retry) = (replicas.apart(), &config.retry);
            let opened =
                DeadLetterTable::open(&replicas, &settings, &topic.spec.topic, (&label, &target), retry, table, found)?;
            match opened {
                Ok(table) => Some(Arc::new(table)),
                Err(why) => return Ok(Err(of_shard(clickhouse, shard, why))),
            }
        }
    };
    Ok(Ok(Found { replicas: replicas.clone(), settings, table, replicated, dead_letter_table }))
}

fn of_shard(clickhouse: &ClickHouse, shard: usize, why: anyhow::Error) -> anyhow::Error {
    if clickhouse.is_cluster() { why.context(format!("clickhouse.shards[{shard}]")) } else { why }
}

/// Those who talk to the shards, all under the name `owner`.
///
/// # Errors
/// A table does not take what the topic sends.
pub(super) fn open(
    config: &Config,
    topic: &Topic,
    owner: &str,
    found: Vec<Found>,
    pipeline: &TopicPipeline,
    (references, avro): (&[SchemaRef], &str),
) -> Result<Vec<Shard>> {
    let shards = found.len();
    let mut opened = Vec::with_capacity(shards);
    for (shard, found) in found.into_iter().enumerate() {
        let Found { replicas, settings, table, replicated, dead_letter_table } = found;
        let refuses = refusals(topic, pipeline.event_schema(), references, avro);
        let replication = replicated.then(|| Replication {
            table: qualified(&settings, &topic.table),
            insert_timeout: settings.insert_timeout,
        });
        let of = (shards > 1).then_some(shard);
        let landed =
            landing(&settings, topic, (&replicas, replication, of), owner, &table, pipeline.row_schema(), refuses);
        let (claims, inserter) = landed.map_err(|why| of_shard(&config.clickhouse, shard, why))?;
        let inserter = Arc::new(inserter.retrying(&config.retry));
        let probe = Arc::new(Probe::new(&replicas, &settings, topic));
        let rollups = Rollups::new(replicas.clone(), &settings.database, &topic.table);
        let ids = Ids {
            replicas,
            topic: topic.label(),
            table: qualified(&settings, &topic.table),
            id_column: topic.id_column.clone(),
            window: topic.spec.dedup.window,
            unacknowledged_rows: topic.spec.batch.max_rows * settings.inserts_in_flight,
        };
        opened.push((claims, ids, rollups, inserter, probe, dead_letter_table));
    }
    let claims: Vec<_> = opened.iter().map(|(claims, ..)| claims.clone()).collect();
    let shard = |(shard, (own, ids, rollups, inserter, probe, dead_letter_table))| {
        let take_over = TakeOver {
            claims: own,
            ids,
            rollups,
            elsewhere: Elsewhere::new(shard, &claims),
            label: topic.label(),
            topic: topic.spec.topic.clone(),
            start: topic.start,
            on_lost_position: topic.on_lost_position,
            kafka_timeout: KAFKA_TIMEOUT,
        };
        Shard { inserter, dead_letter_table, take_over: Arc::new(take_over), probe }
    };
    Ok(opened.into_iter().enumerate().map(shard).collect())
}

/// The servers of every shard.
///
/// # Errors
/// As [`Replicas::of_shard`].
pub(super) fn replicas(settings: &ClickHouse, retry: &Retry) -> Result<Vec<Replicas>> {
    (0..settings.shard_count()).map(|shard| Replicas::of_shard(settings, shard, retry)).collect()
}
