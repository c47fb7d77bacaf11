//! Those who talk on a worker's behalf, on tokio: inserts, dead letters, take-overs and questions to the registry.
//! Each job ends with a word to the worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use millrace_pipeline::{
    assignment::Attempt,
    batch::Batch,
    dedup::{Millis, PartitionIndex},
    share::ShareLimit,
    topic::TopicPipeline,
    wire,
};
use opentelemetry::{Context, trace::FutureExt};
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle, JoinSet},
};

use super::{
    probe::{Expected, Probe},
    stop::{Stop, StopReason},
    tell::observe_freshness,
};
use crate::{
    admin::board::Cell,
    clickhouse::{
        dead_letters::DeadLetterTable,
        insert::{Inserter, Outcome},
    },
    config::Retry,
    faults::{self, Point},
    http::Health,
    kafka::{
        dead_letters::DeadLetters,
        mark::{Mark, Seen},
        source::Reader,
    },
    random,
    registry::{Answer, Registry},
    takeover::{Held, Refused, Request, TakeOver, TakenOver},
    telemetry::{
        metrics as names, spans,
        stages::{Stage, Stages},
    },
};

/// Most questions to the registry at once: garbage names as many schemas as it likes.
const ASKED_AT_ONCE: usize = 32;
/// Longest wait for one answer of Kafka while the logs are looked at.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker is told.
#[derive(Debug)]
pub enum Told {
    /// A partition can be read.
    TakenOver(TakenOver),
    /// A batch's rows are in the table and its dead letters in their topic.
    Durable {
        /// The shard.
        shard: usize,
        /// Number of the batch.
        seq: u64,
        /// How long its rows took, in milliseconds; `None` if it had none.
        insert_ms: Option<Millis>,
    },
    /// What became of a batch cannot be known by trying.
    Unsettled {
        /// The shard.
        shard: usize,
        /// Number of the batch.
        seq: u64,
        /// Whether ClickHouse refused it because somebody else has claimed a partition of it.
        refused: bool,
    },
    /// The table was altered and does not take a batch any more: none of its offsets may pass, and a person has to decide.
    Drifted {
        /// The shard.
        shard: usize,
        /// Number of the batch.
        seq: u64,
        /// How it was altered, and what to do.
        why: String,
    },
    /// What the registry says of a schema id; `None` when there is none.
    Schema {
        /// The id.
        id: u32,
        /// Avro JSON.
        schema: Option<String>,
    },
    /// What became of the logs of partitions.
    Looked {
        /// By partition, with the mark that was looked for.
        seen: BTreeMap<i32, (Mark, Seen)>,
    },
    /// Something that a person has to decide: drain, leave and say so. Other topics go on.
    Stop(Stop),
    /// Read nothing from now on, or read on; somebody has said so.
    Hold(bool),
    /// Drain and leave.
    Leave,
}

/// What a worker goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Inserts into one shard under way at once.
    pub inserts_in_flight: usize,
    /// Longest drain.
    pub drain_timeout: Duration,
    /// How large a share of the events may become dead letters.
    pub dead_letter_limit: ShareLimit,
    /// When something that failed is tried again.
    pub retry: Retry,
    /// How often a row is looked for; `None` for never.
    pub probe_interval: Option<Duration>,
}

/// Those who talk on a worker's behalf.
pub struct Crew {
    /// What log lines and metrics call the topic.
    pub(super) topic: String,
    pub(super) settings: Settings,
    pub(super) stages: Stages,
    /// When a row was last looked for, and whether that has ended.
    pub(super) probed: Option<(Instant, AbortHandle)>,
    pub(super) runtime: Handle,
    pub(super) tell: Sender<Told>,
    /// At least one.
    pub(super) shards: Vec<Shard>,
    pub(super) dead_letters: DeadLetters,
    pub(super) registry: Registry,
    pub(super) health: Arc<Health>,
    /// Where the status of the topic is told.
    pub(super) cell: Arc<Cell>,
    /// Name in the claims.
    pub(super) owner: String,
    pub(super) started: Instant,
    pub(super) held: Held,
    pub(super) asked: BTreeSet<u32>,
    pub(super) jobs: BTreeMap<(Attempt, usize), JoinHandle<()>>,
    /// What is landing and what is asked; ends with the worker, while other topics of the process go on.
    pub(super) errands: JoinSet<()>,
}

/// Those who talk to one shard.
pub struct Shard {
    pub(super) inserter: Arc<Inserter>,
    pub(super) dead_letter_table: Option<Arc<DeadLetterTable>>,
    pub(super) take_over: Arc<TakeOver>,
    pub(super) probe: Arc<Probe>,
}

impl Crew {
    /// The pipeline's clock.
    pub(super) fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    pub(super) fn beat(&self) {
        self.health.beat();
    }

    /// Lands a batch on its shard: its rows, then its dead letters, so that a batch that is read again leaves none of these twice.
    /// What is told of it is told within the span of `context`, if there is one.
    pub(super) fn land(&mut self, shard: usize, mut batch: Batch, context: Context) {
        while self.errands.try_join_next().is_some() {}
        let (inserter, dead_letters, tell, topic) = (
            Arc::clone(&self.shards[shard].inserter),
            self.dead_letters.clone(),
            self.tell.clone(),
            self.topic.clone(),
        );
        let dead_letter_table = self.shards[shard].dead_letter_table.clone();
        let stages = self.stages.clone();
        let labels = [("topic", topic.clone()), ("trigger", batch.trigger.code().to_owned())];
        counter!(names::BATCHES, &labels).increment(1);
        self.look_for_a_row(shard, &batch);
        let landing = async move {
            let mut pledge = Pledge { tell, told: Some(Told::Unsettled { shard, seq: batch.seq, refused: false }) };
            let seq = batch.seq;
            let rows = batch.rows.num_rows();
            histogram!(names::BATCH_ROWS, "topic" => topic.clone()).record(rows as f64);
            let begun = Instant::now();
            pledge.told = Some(match inserter.land(&mut batch).await {
                Outcome::Refused => Told::Unsettled { shard, seq, refused: true },
                Outcome::Unsettled => Told::Unsettled { shard, seq, refused: false },
                Outcome::Drifted(why) => Told::Drifted { shard, seq, why },
                Outcome::Durable => {
                    let insert_ms = (rows > 0).then(|| begun.elapsed().as_millis() as Millis);
                    faults::at(Point::Acknowledged);
                    observe_freshness(&topic, batch.published_ms);
                    counter!(names::ROWS_INSERTED, "topic" => topic.clone()).increment(rows as u64);
                    tracing::debug!(topic, seq, rows, trigger = batch.trigger.code(), "batch is in the table");
                    let into_table = async {
                        if let Some(table) = dead_letter_table {
                            table.write(&batch.dead_letters).await;
                        }
                    };
                    let (writing, sending) =
                        (Instant::now(), spans::dead_letters(dead_letters.topic(), batch.dead_letters.len()));
                    futures::future::join(dead_letters.write(&batch.dead_letters), into_table).await;
                    drop(sending);
                    if !batch.dead_letters.is_empty() {
                        stages.passed(Stage::DeadLetter, batch.dead_letters.len(), writing.elapsed());
                    }
                    for letter in &batch.dead_letters {
                        let reason = letter.rejection.reason.code();
                        counter!(names::DEAD_LETTERS, "topic" => topic.clone(), "reason" => reason).increment(1);
                    }
                    faults::at(Point::Durable);
                    Told::Durable { shard, seq, insert_ms }
                }
            });
            spans::landed(match &pledge.told {
                Some(Told::Unsettled { refused: true, .. }) => Some(("fenced", "claimed by another consumer")),
                Some(Told::Unsettled { .. }) => Some(("unsettled", "what became of it cannot be known by trying")),
                Some(Told::Drifted { why, .. }) => Some(("drifted", why)),
                _ => None,
            });
        }
        .with_context(context);
        self.errands.spawn_on(landing, &self.runtime);
    }

    /// Has one row of the batch looked for in the table, if it is time to.
    fn look_for_a_row(&mut self, shard: usize, batch: &Batch) {
        let Some(interval) = self.settings.probe_interval else { return };
        let rests = |(begun, probe): &(Instant, AbortHandle)| begun.elapsed() < interval || !probe.is_finished();
        if self.probed.as_ref().is_some_and(rests) {
            return;
        }
        if let Some(expected) = Expected::of(batch) {
            let probe = Arc::clone(&self.shards[shard].probe);
            let task = self.errands.spawn_on(async move { probe.watch(expected).await }, &self.runtime);
            self.probed = Some((Instant::now(), task));
        }
    }

    /// Takes partitions of one shard over after a rest; the worker is told of each as it becomes ready.
    pub(super) fn take_over(
        &mut self,
        (shard, attempt): (usize, Attempt),
        partitions: Vec<i32>,
        rest: Duration,
        room: usize,
        reader: Reader,
        new_index: impl Fn() -> PartitionIndex + Send + Sync + 'static,
    ) {
        let (take_over, tell, started) = (Arc::clone(&self.shards[shard].take_over), self.tell.clone(), self.started);
        let request = Request { attempt, partitions, held: self.held.clone(), room };
        let now = move || started.elapsed().as_millis() as Millis;
        let job = self.runtime.spawn(async move {
            tokio::time::sleep(rest).await;
            let ready = |taken_over| _ = tell.send(Told::TakenOver(taken_over));
            if let Err(refused) = take_over.run(request, reader, new_index, now, ready).await {
                let stop = match refused {
                    Refused::Lost(why) => Stop::new(StopReason::PositionLost, why),
                    Refused::Misplaced(why) => Stop::new(StopReason::ShardsChanged, why),
                };
                let _ = tell.send(Told::Stop(stop));
            }
        });
        self.jobs.retain(|_, job| !job.is_finished());
        self.jobs.insert((attempt, shard), job);
    }

    /// Gives the take-overs up that no partition waits for any more.
    pub(super) fn keep_jobs(&mut self, wanted: impl Fn(Attempt) -> bool) {
        self.jobs.retain(|(attempt, _), job| {
            let keep = wanted(*attempt) && !job.is_finished();
            if !keep {
                job.abort();
            }
            keep
        });
    }

    /// Looks, on a thread that may block, whether the logs of partitions are still those that the marks are of, and how
    /// far those that are held reach; the worker is told what was found, if only that it was nothing.
    pub(super) fn look(&self, marks: BTreeMap<i32, Mark>, held: Vec<i32>, reader: Reader) {
        let (tell, topic) = (self.tell.clone(), self.topic.clone());
        self.runtime.spawn_blocking(move || {
            let looked = reader.look(&marks, LOOK_TIMEOUT).and_then(|seen| {
                reader.ends(&held, LOOK_TIMEOUT)?;
                Ok(seen)
            });
            let seen = looked.unwrap_or_else(|error| {
                tracing::debug!(topic, error = format!("{error:#}"), "the logs were not looked at");
                BTreeMap::new()
            });
            let marked = |(partition, seen)| Some((partition, (*marks.get(&partition)?, seen)));
            let _ = tell.send(Told::Looked { seen: seen.into_iter().filter_map(marked).collect() });
        });
    }

    /// Whether a value names a writer-schema id that the pipeline has not been told of.
    pub(super) fn unknown_schema(&self, pipeline: &TopicPipeline, value: Option<&[u8]>) -> Option<u32> {
        schema_id(value).filter(|id| !pipeline.knows(*id))
    }

    /// Asks the registry for a schema until it answers; a second question while the first is open is none, and neither is
    /// one while many are open.
    pub(super) fn ask_schema(&mut self, id: u32) {
        if self.asked.len() >= ASKED_AT_ONCE || !self.asked.insert(id) {
            return;
        }
        tracing::info!(topic = self.topic, schema_id = id, "asking the registry for a new schema");
        let (registry, tell, topic) = (self.registry.clone(), self.tell.clone(), self.topic.clone());
        let backoff = self.settings.retry.backoff;
        let asking = async move {
            let mut attempt = 0;
            loop {
                match registry.by_id(id).await {
                    Ok(answer) => {
                        let schema = match answer {
                            Answer::Schema(schema) => Some(schema),
                            Answer::Absent => None,
                        };
                        let _ = tell.send(Told::Schema { id, schema });
                        return;
                    }
                    Err(error) => {
                        attempt += 1;
                        let delay = backoff.delay(attempt, random());
                        tracing::warn!(
                            topic,
                            schema_id = id,
                            attempt,
                            error = format!("{error:#}"),
                            "the registry does not answer; events of this schema wait, others go on"
                        );
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        };
        self.errands.spawn_on(asking, &self.runtime);
    }
}

/// The word to the worker about a batch, given also when the job dies on the way: a batch without one would hold its slot
/// for ever.
struct Pledge {
    tell: Sender<Told>,
    told: Option<Told>,
}

impl Drop for Pledge {
    fn drop(&mut self) {
        // The worker is gone only when its topic has ended.
        self.told.take().into_iter().for_each(|told| _ = self.tell.send(told));
    }
}

/// The writer-schema id of a value, if it has one.
fn schema_id(value: Option<&[u8]>) -> Option<u32> {
    wire::split(value).ok().map(|(id, _)| id)
}
