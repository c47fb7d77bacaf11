//! Wires a replay: the same pipeline, schemas, reference topics and inserts as `millrace run` has.

use std::{
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use arrow_schema::SchemaRef;
use millrace_pipeline::{
    dedup::Millis,
    field::Extract,
    spec::{BatchLimits, MissPolicy, TopicSpec},
    topic::TopicPipeline,
};

use super::{
    Options,
    gather::{Gather, Open},
    land::Lander,
    report::Tally,
};
use crate::{
    audit::{progress::Progress, table::Table},
    clickhouse::{claims::Claims, replicas::Replicas, replication::Replication, rollups::Rollups},
    config::{Config, Topic},
    kafka::reference::ReferenceReader,
    registry::Registry,
    run::target::{described, landing, qualified, refusals},
    takeover::Elsewhere,
};

/// Values in one insert.
const BATCH_BYTES: usize = 96 << 20;

/// Everything that finds and lands what is missing of a topic, once its reference topics are read.
///
/// # Errors
/// A server cannot be reached or refuses; the table or the schema does not fit the configuration.
pub(super) async fn open(
    config: &Config,
    topic: &Topic,
    (shard, partition): (usize, Option<i32>),
    options: &Options,
    progress: &Progress,
    stop: &Arc<AtomicBool>,
) -> Result<Gather> {
    let replicas = Replicas::of_shard_standing(&config.clickhouse, shard)?;
    let settings = &config.clickhouse.at(replicas.url_of(0));
    let there = Config { clickhouse: settings.clone(), ..config.clone() };
    let named = !config.clickhouse.shards.is_empty();
    let description = described(&there, replicas.at(0), &topic.table, None, named).await??;
    let replication = description
        .is_replicated()
        .then(|| Replication { table: qualified(settings, &topic.table), insert_timeout: settings.insert_timeout });
    let table = Arc::new(Table::open(settings, topic, options.timeout).await?);
    let registry = Registry::new(&config.registry)?.patient(&config.retry);
    let reader_schema = registry.to_read_with(topic).await?;

    let mut schemas = Vec::new();
    for lookup in &topic.spec.lookups {
        schemas.push(registry.latest(&lookup.topic).await?);
    }
    let (references, updates) =
        ReferenceReader::all(&topic.kafka(&config.kafka), &topic.spec.lookups, &schemas, &registry, stop)?;
    let reference_schemas: Vec<SchemaRef> = references.iter().map(ReferenceReader::columns).collect();
    let spec = spec(&topic.spec, options.batch_rows);
    let pipeline = TopicPipeline::new(spec, &reader_schema, &reference_schemas, topic.limits)?;
    let id = Extract::resolve(&topic.spec.id, pipeline.event_schema())?;
    let refuses = refusals(topic, pipeline.event_schema(), &reference_schemas, &reader_schema);
    let owner = format!("replay-{}", uuid::Uuid::new_v4());
    let (claims, inserter) =
        landing(settings, topic, (&replicas, replication, None), &owner, &description, pipeline.row_schema(), refuses)?;
    at_home(config, topic, (shard, partition), &claims).await?;
    for reference in references {
        // Each ends with the word to stop, or when nobody listens.
        thread::spawn(move || _ = reference.run());
    }

    let lander = (!options.dry_run).then(|| Lander {
        claims,
        inserter,
        table: Arc::clone(&table),
        id_column: topic.id_column.clone(),
        insert_timeout: settings.insert_timeout,
        rows_at_once: options.batch_rows,
        pause: options.pause,
        progress: progress.clone(),
        stop: Arc::clone(stop),
        hand_overs: 0,
        rollups: Rollups::new(replicas.clone(), &settings.database, &topic.table),
        rollups_in_doubt: false,
    });
    Ok(Gather {
        pipeline,
        id,
        registry,
        updates,
        table,
        lander,
        rate: options.rate,
        stop: Arc::clone(stop),
        tally: Tally::new(options.samples),
        open: Open::new(),
    })
}

/// Nothing, unless another shard holds the partition: then the shards are not those that it was landed on.
///
/// # Errors
/// One does, or one does not answer.
async fn at_home(
    config: &Config,
    topic: &Topic,
    (shard, partition): (usize, Option<i32>),
    claims: &Claims,
) -> Result<()> {
    let settings = &config.clickhouse;
    let (Some(partition), true) = (partition, settings.shard_count() > 1) else { return Ok(()) };
    let mut all = Vec::with_capacity(settings.shard_count());
    for shard in 0..settings.shard_count() {
        let (servers, table) =
            (Replicas::of_shard_standing(settings, shard)?, qualified(settings, &settings.claims_table));
        all.push(Claims::new(servers, table, &topic.label(), "", settings.query_timeout));
    }
    let answered = Elsewhere::new(shard, &all).allows(claims, &[partition]).await?;
    ensure!(answered, "not every shard has answered whether it holds partition {partition}: are all of them up?");
    Ok(())
}

/// What the pipeline is told: batches are as large as they may be, and nothing waits for a reference record, for the
/// reference topics have been read to their end.
fn spec(topic: &TopicSpec, batch_rows: usize) -> TopicSpec {
    let mut spec = topic.clone();
    spec.batch = BatchLimits {
        max_rows: batch_rows.clamp(1, BatchLimits::MAX_ROWS),
        max_bytes: BATCH_BYTES,
        max_age: Duration::from_millis(Millis::MAX),
    };
    for lookup in &mut spec.lookups {
        if matches!(lookup.miss, MissPolicy::Wait { .. }) {
            lookup.miss = MissPolicy::Null;
        }
    }
    spec
}
