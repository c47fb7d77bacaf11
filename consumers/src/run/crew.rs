//! Those who talk on a worker's behalf, on tokio: inserts, dead letters, take-overs and questions to the registry.
//! Each job ends with a word to the worker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc::Sender},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use metrics::{counter, gauge, histogram};
use millrace_pipeline::{
    assignment::Attempt,
    batch::Batch,
    decode::Decoder,
    dedup::{Millis, PartitionIndex},
    retry::Backoff,
    spec::TopicSpec,
    wire,
};
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    clickhouse::insert::{Inserter, Outcome},
    faults::{self, Point},
    http::Health,
    kafka::{
        dead_letters::DeadLetters,
        mark::{Mark, Seen},
        source::{Reader, Source},
    },
    random,
    registry::{Answer, Registry},
    takeover::{Held, Request, TakeOver, TakenOver},
    telemetry::metrics as names,
};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(15) };
/// Without an insert acknowledged for so long while all are in use, ClickHouse counts as taking no rows.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest wait for one answer of Kafka while the logs are looked at.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What a worker is told.
#[derive(Debug)]
pub enum Told {
    /// A partition can be read.
    TakenOver(TakenOver),
    /// A batch's rows are in the table and its dead letters in their topic.
    Durable {
        /// Number of the batch.
        seq: u64,
        /// How long its rows took, in milliseconds; `None` if it had none.
        insert_ms: Option<Millis>,
    },
    /// What became of a batch cannot be known by trying.
    Unsettled {
        /// Number of the batch.
        seq: u64,
        /// Whether ClickHouse refused it because somebody else has claimed a partition of it.
        refused: bool,
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
    /// Something that a person has to decide: drain, leave and say so.
    Stop(anyhow::Error),
    /// Drain and leave.
    Leave,
}

/// What a worker goes by.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Inserts under way at once.
    pub inserts_in_flight: usize,
    /// Longest drain.
    pub drain_timeout: Duration,
}

/// Those who talk on a worker's behalf.
pub struct Crew {
    pub(super) topic: String,
    pub(super) settings: Settings,
    pub(super) runtime: Handle,
    pub(super) tell: Sender<Told>,
    pub(super) inserter: Arc<Inserter>,
    pub(super) dead_letters: DeadLetters,
    pub(super) take_over: Arc<TakeOver>,
    pub(super) registry: Registry,
    pub(super) health: Arc<Health>,
    pub(super) started: Instant,
    pub(super) held: Held,
    pub(super) asked: BTreeSet<u32>,
    pub(super) jobs: BTreeMap<Attempt, JoinHandle<()>>,
}

impl Crew {
    /// The pipeline's clock.
    pub(super) fn now(&self) -> Millis {
        self.started.elapsed().as_millis() as Millis
    }

    pub(super) fn beat(&self) {
        self.health.beat();
    }

    /// Lands a batch: its rows, then its dead letters, so that a batch that is read again leaves none of these twice.
    pub(super) fn land(&self, mut batch: Batch) {
        let (inserter, dead_letters, tell, topic) =
            (Arc::clone(&self.inserter), self.dead_letters.clone(), self.tell.clone(), self.topic.clone());
        self.runtime.spawn(async move {
            let mut pledge = Pledge { tell, told: Some(Told::Unsettled { seq: batch.seq, refused: false }) };
            let seq = batch.seq;
            let rows = batch.rows.num_rows();
            histogram!(names::BATCH_ROWS, "topic" => topic.clone()).record(rows as f64);
            let begun = Instant::now();
            pledge.told = Some(match inserter.land(&mut batch).await {
                Outcome::Refused => Told::Unsettled { seq, refused: true },
                Outcome::Unsettled => Told::Unsettled { seq, refused: false },
                Outcome::Durable => {
                    let insert_ms = (rows > 0).then(|| begun.elapsed().as_millis() as Millis);
                    faults::at(Point::Acknowledged);
                    observe_freshness(&topic, batch.published_ms);
                    counter!(names::ROWS_INSERTED, "topic" => topic.clone()).increment(rows as u64);
                    tracing::debug!(topic, seq, rows, trigger = batch.trigger.code(), "batch is in the table");
                    dead_letters.write(&batch.dead_letters).await;
                    for letter in &batch.dead_letters {
                        let reason = letter.rejection.reason.code();
                        counter!(names::DEAD_LETTERS, "topic" => topic.clone(), "reason" => reason).increment(1);
                    }
                    faults::at(Point::Durable);
                    Told::Durable { seq, insert_ms }
                }
            });
        });
    }

    /// Takes partitions over after a rest; the worker is told of each as it becomes ready.
    pub(super) fn take_over(
        &mut self,
        attempt: Attempt,
        partitions: Vec<i32>,
        rest: Duration,
        room: usize,
        reader: Reader,
        new_index: impl Fn() -> PartitionIndex + Send + Sync + 'static,
    ) {
        let (take_over, tell, started) = (Arc::clone(&self.take_over), self.tell.clone(), self.started);
        let request = Request { attempt, partitions, held: self.held.clone(), room };
        let now = move || started.elapsed().as_millis() as Millis;
        let job = self.runtime.spawn(async move {
            tokio::time::sleep(rest).await;
            let ready = |taken_over| _ = tell.send(Told::TakenOver(taken_over));
            if let Err(stopped) = take_over.run(request, reader, new_index, now, ready).await {
                let _ = tell.send(Told::Stop(stopped.into()));
            }
        });
        self.jobs.retain(|_, job| !job.is_finished());
        self.jobs.insert(attempt, job);
    }

    /// Gives the take-overs up that no partition waits for any more.
    pub(super) fn keep_jobs(&mut self, wanted: impl Fn(Attempt) -> bool) {
        self.jobs.retain(|attempt, job| {
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

    /// Whether a value names a writer-schema id that the decoder has not been told of.
    pub(super) fn unknown_schema(&self, decoder: &Decoder, value: Option<&[u8]>) -> Option<u32> {
        schema_id(value).filter(|id| !decoder.knows(*id))
    }

    /// Asks the registry for a schema until it answers; a second question while the first is open is none.
    pub(super) fn ask_schema(&mut self, id: u32) {
        if !self.asked.insert(id) {
            return;
        }
        tracing::info!(topic = self.topic, schema_id = id, "asking the registry for a new schema");
        let (registry, tell, topic) = (self.registry.clone(), self.tell.clone(), self.topic.clone());
        self.runtime.spawn(async move {
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
                        let delay = BACKOFF.delay(attempt, random());
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
        });
    }

    pub(super) fn count_misses(&self, spec: &TopicSpec, misses: &[usize]) {
        for (lookup, misses) in spec.lookups.iter().zip(misses) {
            counter!(names::LOOKUP_MISSES, "topic" => self.topic.clone(), "lookup" => lookup.name.clone())
                .increment(*misses as u64);
        }
    }

    pub(super) fn observe(&self, positions: &BTreeMap<i32, i64>, source: &Source, ids: usize, in_flight: usize) {
        for (partition, next_offset) in positions {
            if let Some(high) = source.known_high(*partition) {
                self.set_lag(*partition, (high - next_offset).max(0));
            }
        }
        gauge!(names::DEDUP_IDS, "topic" => self.topic.clone()).set(ids as f64);
        gauge!(names::INSERTS_IN_FLIGHT, "topic" => self.topic.clone()).set(in_flight as f64);
    }

    /// Events of a partition not yet read; 0 for one that is somebody else's now, who counts them.
    pub(super) fn set_lag(&self, partition: i32, events: i64) {
        let labels = [("topic", self.topic.clone()), ("partition", partition.to_string())];
        gauge!(names::LAG, &labels).set(events as f64);
    }

    /// Why ClickHouse takes no rows, as far as that is known by now; `blocked` is for how long no insert was free.
    pub(super) fn trouble(&self, blocked: Option<Duration>) -> Option<String> {
        self.inserter.trouble().or_else(|| {
            let seconds = blocked.filter(|blocked| *blocked >= PATIENCE)?.as_secs();
            Some(format!("no insert has been acknowledged for {seconds} s"))
        })
    }

    pub(super) fn set_ready(&self, complete: bool, settled: bool, trouble: Option<String>) {
        if !complete {
            self.health.not_ready(format!("topic {}: reference topics are still being read", self.topic));
        } else if let Some(trouble) = trouble {
            self.health.not_ready(format!("topic {}: ClickHouse takes no rows: {trouble}", self.topic));
        } else if !settled {
            self.health.not_ready(format!("topic {}: partitions are being taken over", self.topic));
        } else {
            self.health.ready();
        }
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
        // The worker is gone only when the process is leaving.
        self.told.take().into_iter().for_each(|told| _ = self.tell.send(told));
    }
}

/// Age of each event as its row became visible.
fn observe_freshness(topic: &str, mut published_ms: Vec<i64>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    published_ms.sort_unstable();
    let freshness = histogram!(names::FRESHNESS, "topic" => topic.to_owned());
    for same in published_ms.chunk_by(|a, b| a == b) {
        freshness.record_many((now - same[0]).max(0) as f64 / 1000.0, same.len());
    }
}

/// The writer-schema id of a value, if it has one.
fn schema_id(value: Option<&[u8]>) -> Option<u32> {
    wire::split(value).ok().map(|(id, _)| id)
}
