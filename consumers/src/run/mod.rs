//! `millrace run`: the whole pipeline wired top-down, one topic after the other.
//!
//! What of it is to be trusted: a partition is read only once it is claimed, quiet and loaded ([`crate::takeover`]);
//! each insert is fenced by the claims of its partitions and carries a token ([`crate::clickhouse::insert`]); offsets
//! are committed only behind rows and dead letters that are acknowledged ([`worker`]).

pub mod crew;
mod haste;
mod limit;
mod lag;
mod lanes;
mod logs;
mod partitions;
mod probe;
mod process;
mod read;
mod renew;
mod shards;
mod signals;
mod status;
pub mod stop;
pub(crate) mod target;
mod tell;
pub mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use arrow_schema::SchemaRef;
use futures::stream::{FuturesUnordered, StreamExt};
use metrics::gauge;
use millrace_pipeline::topic::TopicPipeline;
use tokio::runtime::Handle;

use self::{
    crew::{Crew, Settings, Told},
    renew::KafkaCertificates,
    stop::{Stop, StopReason},
    worker::Worker,
};
use crate::{
    admin::{
        self,
        board::{Board, Cell, State},
    },
    build,
    config::{Config, Kafka, Retry, Topic},
    faults,
    http::{self, Health},
    kafka::{dead_letters::DeadLetters, reference::ReferenceReader, source::Source},
    random,
    registry::{Registry, own_schema},
    retry::Target,
    takeover::Held,
    telemetry::{
        metrics::{self as names, Rendering},
        spans::BatchSpans,
        stages::Stages,
        traces,
    },
    tls::expiry::{self, Expiries},
};

/// Without a round of the poll loop for this long, a topic counts as stuck; an insert never holds the loop up.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// Longest wait for the receiver of traces when everything else has ended.
const TRACES_DRAIN: Duration = Duration::from_secs(2);
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT, then drains and is gone 5 s after the time for that at the latest; a second
/// signal leaves at once. Topics share the process, not their fate:
/// one that stops says so and gives its partitions up, and the others go on.
///
/// # Errors
/// A taken port; or no topic is left, and why the last one stopped: a missing table or column, a schema that does not fit,
/// a lost position. Servers that cannot be reached are no error: they are tried until they can.
pub async fn run(config: Config, rendering: Rendering) -> Result<()> {
    faults::said();
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let starting = |topic: &Topic| Arc::new(Health::new(STUCK_AFTER, format!("topic {}: starting", topic.label())));
    let health: Vec<Arc<Health>> = config.topics.iter().map(starting).collect();
    let board = Arc::new(Board::new(&config.topics, &health));
    let port = http::bind(config.http.listen).await?;
    let (version, commit) = (build::VERSION, build::COMMIT);
    tracing::info!(address = %port.address()?, version, commit, "metrics and health are served");
    let config = Arc::new(config);
    let admin = match &config.admin {
        Some(admin) => Some(admin::serve(admin, &config, &board, rendering.readings()).await?),
        None => None,
    };
    let (stop_http, http_stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(port.serve(health.clone(), rendering, async { _ = http_stopped.await }));

    let traces = traces::start(&config.traces, &Handle::current())?;
    let mut signals = signals::Signals::listen()?;
    // Shared by the topics, and made once: files that are half replaced later stop no topic that is made anew. The registry
    // has one breaker for all of them.
    let guard = Arc::new(Target::new("registry", &config.retry));
    let registry = Registry::new(&config.registry)?.guarded(guard);
    let mut certificates = KafkaCertificates::new(&config.kafka)?;
    let expiries = tokio::spawn(expiry::follow(Expiries::of(&config)));
    // All at once: one that waits for its schema does not keep another from starting.
    let started = |at: usize, kafka: Arc<Kafka>| {
        let (config, topic, health, cell) = (&config, &config.topics[at], &health[at], &board.topics()[at]);
        let registry = registry.clone();
        async move { (at, start(config, topic, &kafka, registry, health, cell).await) }
    };
    let mut starts: FuturesUnordered<_> =
        (0..config.topics.len()).map(|at| started(at, certificates.kafka())).collect();
    let (ended, mut endings) = tokio::sync::mpsc::unbounded_channel();
    let mut workers: BTreeMap<usize, (mpsc::Sender<Told>, thread::JoinHandle<()>)> = BTreeMap::new();
    // Topics whose clients have to be made anew: they drain, or have not started yet.
    let mut renewing: BTreeSet<usize> = BTreeSet::new();
    let mut going = config.topics.len();
    let mut leaving = false;
    let mut to_decide = false;
    let mut outcome = Ok(());
    while going > 0 {
        let asked_to_leave = async {
            tokio::select! {
                () = signals.next() => {}
                // A second command to drain changes nothing; a second signal leaves at once.
                () = board.asked_to_drain(), if !leaving => {}
            }
        };
        let (at, ending) = tokio::select! {
            () = asked_to_leave => {
                if leaving {
                    // Nothing is waited for: not Kafka, not ClickHouse, not the threads. That is as safe as any crash.
                    tracing::warn!("leaving at once; what is on its way is settled by whoever reads next");
                    return Ok(());
                }
                leaving = true;
                tracing::info!("draining; a second signal leaves at once");
                health.iter().for_each(|part| part.not_ready("leaving"));
                board.drains();
                let longest = config.shutdown.drain_timeout + haste::LEAVING;
                haste::end_within(longest).context("start the thread that keeps the end in time")?;
                going -= starts.len();
                starts.clear();
                workers.values().for_each(|(tell, _)| _ = tell.send(Told::Leave));
                continue;
            }
            () = certificates.changed(), if !leaving => {
                tracing::info!("the certificates for Kafka have changed: topics drain and join again with the new ones");
                renewing = (0..config.topics.len()).collect();
                workers.values().for_each(|(tell, _)| _ = tell.send(Told::Leave));
                continue;
            }
            Some((at, started)) = starts.next() => match started {
                Ok((tell, worker)) => {
                    let ended = ended.clone();
                    board.topics()[at].listens(tell.clone());
                    let thread = thread::Builder::new().name(config.topics[at].label());
                    let thread = thread.spawn(move || _ = ended.send((at, worker())));
                    if renewing.contains(&at) {
                        // Its clients were made while the certificates changed.
                        _ = tell.send(Told::Leave);
                    }
                    workers.insert(at, (tell, thread.context("start the topic's thread")?));
                    continue;
                }
                Err(error) => (at, Err(Stop::new(StopReason::Start, error))),
            },
            // The sender lives as long as this function.
            Some(ending) = endings.recv() => ending,
        };
        if let (Ok(()), true, false) = (&ending, renewing.remove(&at), leaving) {
            starts.push(started(at, certificates.kafka()));
            continue;
        }
        going -= 1;
        board.topics()[at].update(|view| {
            view.state = State::Stopped;
            view.stopped = ending.as_ref().err().map(|stop| (stop.reason.code(), format!("{:#}", stop.error)));
        });
        let Err(stop) = ending else { continue };
        let topic = &config.topics[at].label();
        gauge!(names::TOPIC_STOPPED, "topic" => topic.clone(), "reason" => stop.reason.code()).set(1.0);
        health[at].stopped(format!("topic {topic}: {stop}"));
        to_decide |= stop.reason.waits_for_a_person();
        if going > 0 && !leaving {
            let (reason, error) = (stop.reason.code(), format!("{:#}", stop.error));
            tracing::error!(topic, reason, error, others = going, "the topic is stopped; the others go on");
        } else {
            outcome = Err(anyhow!("topic {topic} {stop}"));
        }
    }
    let stays = to_decide && !leaving && !config.shutdown.stay_stopped.is_zero();
    if let (Err(error), true) = (&outcome, stays) {
        let stay_s = config.shutdown.stay_stopped.as_secs();
        tracing::error!(
            error = format!("{error:#}"),
            stay_s,
            "no topic is left; metrics and readiness are served for a while"
        );
        tokio::select! {
            () = tokio::time::sleep(config.shutdown.stay_stopped) => {}
            () = signals.next() => {}
            () = board.asked_to_drain() => {}
        }
    }
    for (_, thread) in workers.into_values() {
        let _ = thread.join();
    }
    if let Some(admin) = admin {
        admin.stop().await;
    }
    if let Some(traces) = traces {
        traces.close(config.traces.timeout.min(TRACES_DRAIN)).await;
    }
    expiries.abort();
    let _ = stop_http.send(());
    served.await.context("stop serving metrics and health")??;
    outcome
}

/// Wires one topic, in the order in which data flow; what is returned is the body of its thread, and its ear.
async fn start(
    config: &Config,
    topic: &Topic,
    kafka: &Kafka,
    registry: Registry,
    health: &Arc<Health>,
    cell: &Arc<Cell>,
) -> Result<(mpsc::Sender<Told>, impl FnOnce() -> Result<(), Stop> + Send + use<>)> {
    let name = &topic.label();
    let kafka = topic.kafka(kafka);
    let runtime = Handle::current();
    let retry = &config.retry;

    // What there is: the table, the schemas.
    let replicas = shards::replicas(&config.clickhouse, retry)?;
    let find = replicas.iter().enumerate().map(|(shard, replicas)| {
        patiently(health, retry, "ClickHouse", move || shards::find(config, topic, shard, replicas))
    });
    let found = futures::future::try_join_all(find).await?;
    let reader_schema = match own_schema(topic)? {
        Some(schema) => schema,
        None => {
            patiently(health, retry, "the schema registry", async || Ok(Ok(registry.to_read_with(topic).await?)))
                .await?
        }
    };

    // Reference topics, each followed by a thread.
    let stop_references = Arc::new(AtomicBool::new(false));
    let mut schemas = Vec::new();
    for lookup in &topic.spec.lookups {
        let schema =
            patiently(health, retry, "the schema registry", async || Ok(Ok(registry.latest(&lookup.topic).await?)));
        schemas.push(schema.await?);
    }
    let (references, updates) =
        ReferenceReader::all(&kafka, &topic.spec.lookups, &schemas, &registry, &stop_references)?;
    let reference_schemas: Vec<SchemaRef> = references.iter().map(ReferenceReader::columns).collect();

    // The pipeline: decode, deduplicate, enrich, project, batch.
    let pipeline =
        TopicPipeline::new(topic.spec.clone(), &reader_schema, &reference_schemas, topic.limits)?.sharded(found.len());

    // Where batches go, and by what right.
    let owner = uuid::Uuid::new_v4().to_string();
    let shards = shards::open(config, topic, &owner, found, &pipeline, (&reference_schemas, &reader_schema))?;
    let (tell, told) = mpsc::channel();
    let crew = Crew {
        topic: name.clone(),
        stages: Stages::new(name),
        probed: None,
        settings: Settings {
            inserts_in_flight: config.clickhouse.inserts_in_flight,
            drain_timeout: config.shutdown.drain_timeout,
            dead_letter_limit: topic.dead_letter_limit,
            retry: *retry,
            probe_interval: topic.probe_interval,
        },
        runtime,
        tell: tell.clone(),
        shards,
        dead_letters: DeadLetters::new(&kafka, &topic.spec.topic, &topic.dead_letter_topic, name, retry)?,
        registry,
        health: Arc::clone(health),
        cell: Arc::clone(cell),
        owner: owner.clone(),
        held: Held::default(),
        started: Instant::now(),
        asked: BTreeSet::new(),
        jobs: Default::default(),
        errands: Default::default(),
    };

    // The source comes last: from here on the group counts on this process.
    let source = Source::subscribe(&kafka, &topic.spec.topic, name)?;
    tracing::info!(topic = name, table = topic.table, owner, "subscribed");
    let spans = BatchSpans::new(config.traces.endpoint.is_some(), &topic.spec.topic, &kafka.group_id);
    let worker = Worker::new(pipeline, source, crew, told, updates, spans);
    Ok((tell, move || {
        let readers: Vec<_> = references.into_iter().map(|reference| thread::spawn(move || reference.run())).collect();
        let outcome = catch_unwind(AssertUnwindSafe(|| worker.run()));
        stop_references.store(true, std::sync::atomic::Ordering::Relaxed);
        for reader in readers {
            let _ = reader.join();
        }
        outcome.unwrap_or_else(|panic| Err(Stop::of_panic(panic.as_ref())))
    }))
}

/// Asks until there is an answer: the inner result is one, the outer error is worth another try.
async fn patiently<T>(
    health: &Health,
    retry: &Retry,
    whom: &str,
    mut ask: impl AsyncFnMut() -> Result<Result<T>>,
) -> Result<T> {
    let mut attempt = 0;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error) => {
                attempt += 1;
                let delay = retry.backoff.delay(attempt, random());
                let error = format!("{error:#}");
                tracing::warn!(error, attempt, retry_in_ms = delay.as_millis() as u64, "waiting for {whom}");
                health.not_ready(format!("waiting for {whom}: {error}"));
                health.beat();
                tokio::time::sleep(delay).await;
            }
        }
    }
}
