//! `millrace run`: the whole pipeline wired top-down, one topic after the other.
//!
//! What of it is to be trusted: a partition is read only once it is claimed, quiet and loaded ([`crate::takeover`]);
//! each insert is fenced by the claims of its partitions and carries a token ([`crate::clickhouse::insert`]); offsets
//! are committed only behind rows and dead letters that are acknowledged ([`worker`]).

pub mod crew;
mod logs;
mod partitions;
mod process;
mod read;
mod signals;
pub mod worker;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use arrow_schema::SchemaRef;
use clickhouse::Client;
use millrace_pipeline::{
    decode::DecodeLimits,
    project::{OFFSET_COLUMN, PARTITION_COLUMN},
    retry::Backoff,
    topic::TopicPipeline,
};
use tokio::runtime::Handle;

use self::{
    crew::{Crew, Settings, Told},
    worker::Worker,
};
use crate::{
    clickhouse::{
        claims::{Claims, identifier},
        client::client,
        errors::{ErrorClass, classify},
        insert::Inserter,
        table::{Table, describe},
    },
    config::{Config, Topic},
    faults,
    http::{self, Health},
    kafka::{dead_letters::DeadLetters, reference::ReferenceReader, reference::Update, source::Source},
    random,
    registry::Registry,
    takeover::{Held, Ids, TakeOver},
    telemetry::metrics::Rendering,
};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };
/// Without a round of the poll loop for this long, a topic counts as stuck; an insert never holds the loop up.
const STUCK_AFTER: Duration = Duration::from_secs(60);
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
/// Chunks of reference records that may wait for a worker.
const UPDATES_QUEUED: usize = 64;

/// Runs until SIGTERM or SIGINT, then drains; a second signal leaves at once.
///
/// # Errors
/// What makes it senseless to start: a missing table or column, a schema that does not fit, a taken port; or a topic
/// that ended for good. Servers that cannot be reached are no error: they are tried until they can.
pub async fn run(config: Config, rendering: Rendering) -> Result<()> {
    faults::said();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let starting = |topic: &Topic| Arc::new(Health::new(STUCK_AFTER, format!("topic {}: starting", topic.spec.topic)));
    let health: Vec<Arc<Health>> = config.topics.iter().map(starting).collect();
    let port = http::bind(config.http.listen).await?;
    tracing::info!(address = %port.address()?, version = env!("CARGO_PKG_VERSION"), "metrics and health are served");
    let (stop_http, http_stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(port.serve(health.clone(), rendering, async { _ = http_stopped.await }));

    let (ended, mut endings) = tokio::sync::mpsc::unbounded_channel();
    let mut workers = Vec::new();
    let mut signals = signals::Signals::listen()?;
    for (topic, health) in config.topics.iter().zip(&health) {
        let started = start(&config, topic, health);
        let (tell, worker) = tokio::select! {
            started = started => started.with_context(|| format!("topic {}", topic.spec.topic))?,
            () = signals.next() => return Ok(()),
        };
        let ended = ended.clone();
        let thread = thread::Builder::new().name(topic.spec.topic.clone());
        let thread = thread.spawn(move || _ = ended.send(worker())).context("start the topic's thread")?;
        workers.push((tell, thread));
    }
    drop(ended);

    let mut outcome = Ok(());
    let mut signalled = 0;
    loop {
        tokio::select! {
            () = signals.next() => {
                signalled += 1;
                if signalled == 1 {
                    tracing::info!("draining; a second signal leaves at once");
                } else {
                    // Nothing is waited for: not Kafka, not ClickHouse, not the threads. That is as safe as any crash.
                    tracing::warn!("leaving at once; what is on its way is settled by whoever reads next");
                    return Ok(());
                }
                health.iter().for_each(|part| part.not_ready("leaving"));
            }
            ended = endings.recv() => match ended {
                None => break,
                Some(Ok(())) => continue,
                Some(Err(error)) => outcome = Err(error),
            },
        }
        // A topic that failed takes the process down: an orchestrator restarts it, and the others lose nothing.
        workers.iter().for_each(|(tell, _)| _ = tell.send(Told::Leave));
    }
    for (_, thread) in workers {
        if thread.join().is_err() {
            outcome = Err(anyhow!("a topic's thread panicked"));
        }
    }
    let _ = stop_http.send(());
    served.await.context("stop serving metrics and health")??;
    outcome
}

/// Wires one topic, in the order in which data flow; what is returned is the body of its thread, and its ear.
async fn start(
    config: &Config,
    topic: &Topic,
    health: &Arc<Health>,
) -> Result<(mpsc::Sender<Told>, impl FnOnce() -> Result<()> + Send + use<>)> {
    let name = &topic.spec.topic;
    let runtime = Handle::current();
    let registry = Registry::new(&config.registry)?;
    let clickhouse = client(&config.clickhouse)?;
    let database = &config.clickhouse.database;
    let qualified = |table: &str| format!("{}.{}", identifier(database), identifier(table));

    // What there is: the table, the schemas.
    let table = patiently(health, "ClickHouse", || described(config, &clickhouse, &topic.table)).await?;
    let reader_schema = match &topic.reader_schema {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("read reader_schema {}", file.display()))?
        }
        None => patiently(health, "the schema registry", async || Ok(Ok(registry.latest(name).await?))).await?,
    };

    // Reference topics, each followed by a thread.
    let (updates_in, updates) = mpsc::sync_channel::<Update>(UPDATES_QUEUED);
    let stop_references = Arc::new(AtomicBool::new(false));
    let mut references = Vec::new();
    for (at, lookup) in topic.spec.lookups.iter().enumerate() {
        let schema = patiently(health, "the schema registry", async || Ok(Ok(registry.latest(&lookup.topic).await?)));
        references.push(ReferenceReader::new(
            &config.kafka,
            &lookup.topic,
            at,
            &schema.await?,
            registry.clone(),
            runtime.clone(),
            updates_in.clone(),
            Arc::clone(&stop_references),
        )?);
    }
    let reference_schemas: Vec<SchemaRef> = references.iter().map(ReferenceReader::columns).collect();

    // The pipeline: decode, deduplicate, enrich, project, batch.
    let pipeline = TopicPipeline::new(topic.spec.clone(), &reader_schema, &reference_schemas, DecodeLimits::default())?;
    let columns: Vec<String> = pipeline.row_schema().fields().iter().map(|field| field.name().clone()).collect();
    require_columns(&topic.table, &table, &columns)?;

    // Where batches go, and by what right.
    let owner = uuid::Uuid::new_v4().to_string();
    let claims = Claims::new(
        clickhouse.clone(),
        qualified(&config.clickhouse.claims_table),
        name,
        &owner,
        config.clickhouse.query_timeout,
    );
    let inserter = Inserter::new(
        clickhouse.clone(),
        claims.clone(),
        name,
        &qualified(&topic.table),
        &table,
        &columns,
        config.clickhouse.insert_timeout,
    );
    let ids = Ids {
        client: clickhouse,
        topic: name.clone(),
        table: qualified(&topic.table),
        id_column: topic.id_column.clone(),
        window: topic.spec.dedup.window,
        unacknowledged_rows: topic.spec.batch.max_rows * config.clickhouse.inserts_in_flight,
    };
    let take_over = TakeOver {
        claims,
        ids,
        topic: name.clone(),
        start: topic.start,
        on_lost_position: topic.on_lost_position,
        kafka_timeout: KAFKA_TIMEOUT,
    };
    let (tell, told) = mpsc::channel();
    let crew = Crew {
        topic: name.clone(),
        settings: Settings {
            inserts_in_flight: config.clickhouse.inserts_in_flight,
            drain_timeout: config.shutdown.drain_timeout,
        },
        runtime,
        tell: tell.clone(),
        inserter: Arc::new(inserter),
        dead_letters: DeadLetters::new(&config.kafka, name, &topic.dead_letter_topic)?,
        take_over: Arc::new(take_over),
        registry,
        health: Arc::clone(health),
        held: Held::default(),
        started: Instant::now(),
        asked: BTreeSet::new(),
        jobs: Default::default(),
    };

    // The source comes last: from here on the group counts on this process.
    let source = Source::subscribe(&config.kafka, name)?;
    tracing::info!(topic = name, table = topic.table, owner, "subscribed");
    let worker = Worker::new(pipeline, source, crew, told, updates);
    Ok((tell, move || {
        let readers: Vec<_> = references.into_iter().map(|reference| thread::spawn(move || reference.run())).collect();
        let outcome = worker.run();
        stop_references.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            let _ = reader.join();
        }
        outcome
    }))
}

/// Asks until there is an answer: the inner result is one, the outer error is worth another try.
async fn patiently<T>(health: &Health, whom: &str, mut ask: impl AsyncFnMut() -> Result<Result<T>>) -> Result<T> {
    let mut attempt = 0;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                attempt += 1;
                let delay = BACKOFF.delay(attempt, random());
                let error = format!("{error:#}");
                tracing::warn!(error, attempt, retry_in_ms = delay.as_millis() as u64, "waiting for {whom}");
                health.not_ready(format!("waiting for {whom}: {error}"));
                health.beat();
                tokio::time::sleep(delay).await;
            }
        }
    }
}

/// The table, or why there is none; the outer error says that ClickHouse could not tell.
async fn described(config: &Config, client: &Client, table: &str) -> Result<Result<Table>> {
    let clickhouse = &config.clickhouse;
    match describe(client, &clickhouse.database, table, clickhouse.query_timeout).await {
        // The quiet step looks at the queries of one server, and the load at what that server has.
        Ok(Some(found)) if found.is_replicated() => Ok(Err(anyhow!(
            "table {}.{table} is {}: exactly once on replicated tables is not there yet; use a MergeTree on one server",
            clickhouse.database,
            found.engine
        ))),
        Ok(Some(table)) => Ok(Ok(table)),
        Ok(None) => Ok(Err(anyhow!(
            "ClickHouse shows user {} no table {}.{table}; create it with `millrace migrate --apply`, or grant SELECT and INSERT on it",
            clickhouse.user,
            clickhouse.database
        ))),
        Err(error) if matches!(classify(&error), ErrorClass::Auth | ErrorClass::Permanent) => {
            Ok(Err(anyhow::Error::new(error).context(format!("describe table {}.{table}", clickhouse.database))))
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("reach ClickHouse at {}", clickhouse.url))),
    }
}

fn require_columns(name: &str, table: &Table, columns: &[String]) -> Result<()> {
    let missing: Vec<&str> =
        columns.iter().filter(|column| table.column(column).is_none()).map(String::as_str).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let ours: Vec<&&str> = missing.iter().filter(|column| [PARTITION_COLUMN, OFFSET_COLUMN].contains(column)).collect();
    let hint = if ours.is_empty() {
        "; add them with `millrace migrate --apply` or ALTER TABLE, or take them out of [topics.columns]"
    } else {
        "; add them with `millrace migrate --apply`: the delivery protocol rests on them"
    };
    bail!("table {name} has no column {}{hint}", missing.join(", "));
}
