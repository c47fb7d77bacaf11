//! Reference topics: read whole at the start, then followed, on a thread of their own.
//!
//! Each consumer holds a reference topic whole, so it is read without a group and from the beginning. What is read goes
//! to the pipeline as decoded rows in the order of the topic; the end of what there was at the start is the gate behind
//! which the first event is processed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, SyncSender},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use arrow_array::RecordBatch;
use millrace_pipeline::{
    decode::{DecodeLimits, Decoder},
    record::Record,
    retry::Backoff,
    spec::LookupSpec,
    topic::TopicPipeline,
    wire,
};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
};
use tokio::runtime::Handle;

use super::{Telling, client_config, oauth, tell_error};
use crate::{
    config, random,
    registry::{Answer, Registry},
};

/// Chunks of reference records that may wait for whoever takes them in.
const UPDATES_QUEUED: usize = 64;
/// Records decoded at once.
const CHUNK: usize = 4096;
const POLL: Duration = Duration::from_millis(100);
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(15) };
/// How often an id that the registry does not know is asked for before its records are given up.
const ABSENT_ATTEMPTS: u32 = 5;
const FORGET_REFUSED: Duration = Duration::from_secs(60);
/// How often partitions are looked for that were added to the topic.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What a reference topic says.
#[derive(Debug)]
pub enum Update {
    /// Records, in the order of the topic.
    Upsert {
        /// Position of the lookup.
        lookup: usize,
        /// Decoded records.
        records: RecordBatch,
    },
    /// A tombstone.
    Delete {
        /// Position of the lookup.
        lookup: usize,
        /// The key.
        key: String,
    },
    /// Everything that was in the topic at the start has been sent.
    Complete {
        /// Position of the lookup.
        lookup: usize,
    },
}

impl Update {
    /// Takes it into the pipeline; the lookup that it is about, and whether that has been read to the end that it had.
    pub fn apply(self, pipeline: &mut TopicPipeline) -> (usize, bool) {
        let (lookup, applied) = match self {
            Self::Upsert { lookup, records } => (lookup, pipeline.reference(lookup).upsert(&records)),
            Self::Delete { lookup, key } => {
                pipeline.reference(lookup).delete(&key);
                (lookup, Ok(()))
            }
            Self::Complete { lookup } => return (lookup, true),
        };
        if let Err(error) = applied {
            let lookup = &pipeline.spec().lookups[lookup].name;
            tracing::error!(%error, lookup, "reference records were not taken in");
        }
        (lookup, false)
    }
}

/// Reads one reference topic.
pub struct ReferenceReader {
    consumer: BaseConsumer<Telling>,
    topic: String,
    lookup: usize,
    decoder: Decoder,
    registry: Registry,
    runtime: Handle,
    updates: SyncSender<Update>,
    stop: Arc<AtomicBool>,
    /// High watermarks at the start; emptied as they are reached.
    behind: BTreeMap<i32, i64>,
    assigned: BTreeSet<i32>,
    complete: bool,
    read: u64,
}

impl ReferenceReader {
    /// A reader for each lookup, which reads with the schema (Avro JSON) at its position, and what they tell.
    ///
    /// # Errors
    /// When a schema has no columns, or librdkafka refuses the configuration.
    pub fn all(
        kafka: &config::Kafka,
        lookups: &[LookupSpec],
        schemas: &[String],
        registry: &Registry,
        stop: &Arc<AtomicBool>,
    ) -> Result<(Vec<Self>, Receiver<Update>)> {
        let (updates_in, updates) = mpsc::sync_channel(UPDATES_QUEUED);
        let reader = |(at, (lookup, schema)): (usize, (&LookupSpec, &String))| {
            let (registry, updates, stop) = (registry.clone(), updates_in.clone(), Arc::clone(stop));
            Self::new(kafka, &lookup.topic, at, schema, registry, Handle::current(), updates, stop)
        };
        let readers = lookups.iter().zip(schemas).enumerate().map(reader).collect::<Result<Vec<Self>>>()?;
        Ok((readers, updates))
    }

    /// A reader of `topic`, for the lookup at position `lookup`, that reads with `schema` (Avro JSON).
    ///
    /// # Errors
    /// When the schema has no columns or librdkafka refuses the configuration.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the process that the reader talks to")]
    fn new(
        kafka: &config::Kafka,
        topic: &str,
        lookup: usize,
        schema: &str,
        registry: Registry,
        runtime: Handle,
        updates: SyncSender<Update>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let mut client = client_config(kafka, "reference");
        client
            .set("group.id", format!("{}-reference", kafka.group_id))
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("queued.max.messages.kbytes", "8192")
            // The end of a partition has to be heard of: compaction and transactions leave gaps before it.
            .set("enable.partition.eof", "true");
        let tokens = oauth::tokens(kafka)?;
        let consumer: BaseConsumer<Telling> = client
            .create_with_context(Telling { role: "reference", tokens: tokens.clone() })
            .with_context(|| format!("set the consumer of reference topic {topic} up"))?;
        oauth::serve(&consumer, tokens.as_ref());
        let decoder =
            Decoder::new(schema, DecodeLimits::default()).with_context(|| format!("read reference topic {topic}"))?;
        Ok(Self {
            consumer,
            topic: topic.to_owned(),
            lookup,
            decoder,
            registry,
            runtime,
            updates,
            stop,
            behind: BTreeMap::new(),
            assigned: BTreeSet::new(),
            complete: false,
            read: 0,
        })
    }

    /// Arrow schema of the records that will be sent.
    pub fn columns(&self) -> arrow_schema::SchemaRef {
        Arc::clone(self.decoder.columns())
    }

    /// Reads until told to stop, or until nobody listens.
    ///
    /// # Errors
    /// When the topic does not exist.
    pub fn run(mut self) -> Result<()> {
        if !self.assign()? {
            return Ok(());
        }
        let (mut said, mut forgot_refused, mut looked) = (Instant::now(), Instant::now(), Instant::now());
        while !self.stop.load(Ordering::Relaxed) {
            if !self.complete && said.elapsed() >= PROGRESS_EVERY {
                said = Instant::now();
                tracing::info!(topic = self.topic, records = self.read, "reading reference topic");
            }
            if forgot_refused.elapsed() >= FORGET_REFUSED {
                forgot_refused = Instant::now();
                self.decoder.forget_refused();
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                if let Err(error) = self.assign_added() {
                    tracing::debug!(error = format!("{error:#}"), topic = self.topic, "partitions were not looked for");
                }
            }
            if !self.read_chunk() {
                break;
            }
        }
        Ok(())
    }

    /// Assigns every partition from its beginning; `false` when told to stop meanwhile.
    fn assign(&mut self) -> Result<bool> {
        let mut attempt = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.try_assign() {
                Ok(()) => return Ok(true),
                Err(error) => {
                    attempt += 1;
                    tracing::warn!(
                        error = format!("{error:#}"),
                        attempt,
                        topic = self.topic,
                        "reference topic not ready"
                    );
                    rest(attempt, &self.stop);
                }
            }
        }
        Ok(false)
    }

    fn try_assign(&mut self) -> Result<()> {
        let partitions = self.partitions()?;
        if partitions.is_empty() {
            bail!("topic {} does not exist; create it with cleanup.policy=compact", self.topic);
        }
        let mut behind = BTreeMap::new();
        for partition in &partitions {
            let (low, high) = self
                .consumer
                .fetch_watermarks(&self.topic, *partition, METADATA_TIMEOUT)
                .with_context(|| format!("ask Kafka how far {}[{partition}] reaches", self.topic))?;
            if low < high {
                behind.insert(*partition, high);
            }
        }
        self.read_from_beginning(partitions)?;
        self.behind = behind;
        Ok(())
    }

    /// Reads partitions that were added to the topic from their beginning.
    fn assign_added(&mut self) -> Result<()> {
        let added: BTreeSet<i32> = self.partitions()?.difference(&self.assigned).copied().collect();
        if !added.is_empty() {
            tracing::info!(topic = self.topic, partitions = ?added, "partitions were added to a reference topic");
            self.read_from_beginning(added)?;
        }
        Ok(())
    }

    fn partitions(&self) -> Result<BTreeSet<i32>> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), METADATA_TIMEOUT);
        let metadata = metadata.with_context(|| format!("ask Kafka about reference topic {}", self.topic))?;
        Ok(metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect())
    }

    fn read_from_beginning(&mut self, partitions: BTreeSet<i32>) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition_offset(&self.topic, *partition, Offset::Beginning)?;
        }
        self.consumer.incremental_assign(&list).with_context(|| format!("read reference topic {}", self.topic))?;
        self.assigned.extend(partitions);
        Ok(())
    }

    /// Reads and sends some records; `false` when nobody listens any more.
    fn read_chunk(&mut self) -> bool {
        let mut messages = Vec::new();
        let mut ended = Vec::new();
        let mut timeout = POLL;
        // The consumer lives as long as `self`; the borrow ends with this function.
        let consumer = &self.consumer;
        while messages.len() < CHUNK {
            match consumer.poll(timeout) {
                None => break,
                Some(Ok(message)) => messages.push(message),
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => ended.push(partition),
                Some(Err(error)) => tell_error("reference", &error, &self.topic),
            }
            timeout = Duration::ZERO;
        }
        self.read += messages.len() as u64;
        for message in &messages {
            ended.extend(
                self.behind
                    .get(&message.partition())
                    .filter(|high| message.offset() + 1 >= **high)
                    .map(|_| message.partition()),
            );
        }
        let updates =
            decode(&mut self.decoder, &messages, self.lookup, &self.topic, &self.registry, &self.runtime, &self.stop);
        drop(messages);
        if !updates.into_iter().all(|update| self.updates.send(update).is_ok()) {
            return false;
        }
        self.behind.retain(|partition, _| !ended.contains(partition));
        if self.behind.is_empty() && !self.complete {
            self.complete = true;
            tracing::info!(topic = self.topic, records = self.read, "reference topic is read whole; following it");
            return self.updates.send(Update::Complete { lookup: self.lookup }).is_ok();
        }
        true
    }
}

/// The messages as updates: runs of records between tombstones, each decoded at once.
fn decode(
    decoder: &mut Decoder,
    messages: &[BorrowedMessage<'_>],
    lookup: usize,
    topic: &str,
    registry: &Registry,
    runtime: &Handle,
    stop: &AtomicBool,
) -> Vec<Update> {
    let mut updates = Vec::new();
    let mut run: Vec<Record<'_>> = Vec::new();
    for message in messages {
        match message.payload() {
            Some(value) => {
                if let Ok((id, _)) = wire::split(Some(value))
                    && !decoder.knows(id)
                {
                    learn(decoder, id, registry, runtime, stop);
                }
                run.push(record(message));
            }
            None => {
                flush(decoder, &mut run, lookup, topic, &mut updates);
                match message.key().map(std::str::from_utf8) {
                    Some(Ok(key)) => updates.push(Update::Delete { lookup, key: key.to_owned() }),
                    _ => tracing::warn!(
                        topic,
                        partition = message.partition(),
                        offset = message.offset(),
                        "a tombstone without a text key is ignored"
                    ),
                }
            }
        }
    }
    flush(decoder, &mut run, lookup, topic, &mut updates);
    updates
}

fn flush(decoder: &mut Decoder, run: &mut Vec<Record<'_>>, lookup: usize, topic: &str, updates: &mut Vec<Update>) {
    if run.is_empty() {
        return;
    }
    let decoded = decoder.decode(run);
    for (at, rejection) in &decoded.rejected {
        let record = &run[*at as usize];
        tracing::error!(
            topic, partition = record.partition, offset = record.offset, %rejection,
            "a reference record cannot be read and is ignored; publish it again"
        );
    }
    updates.push(Update::Upsert { lookup, records: decoded.rows });
    run.clear();
}

/// Asks the registry until it answers; reference data are not worth having in part.
fn learn(decoder: &mut Decoder, id: u32, registry: &Registry, runtime: &Handle, stop: &AtomicBool) {
    let mut attempt = 0;
    while !stop.load(Ordering::Relaxed) {
        match runtime.block_on(registry.by_id(id)) {
            Ok(Answer::Schema(schema)) => return decoder.learn(id, &schema),
            // A registry may lag behind what is written with its schemas; an id that stays unknown is nobody's.
            Ok(Answer::Absent) if attempt >= ABSENT_ATTEMPTS => return decoder.learn_absent(id),
            Ok(Answer::Absent) => tracing::warn!(schema_id = id, attempt, "the registry does not know a schema yet"),
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), attempt, "the registry does not answer");
            }
        }
        attempt += 1;
        rest(attempt, stop);
    }
}

/// Backs off, but not past the word to stop.
fn rest(attempt: u32, stop: &AtomicBool) {
    let until = Instant::now() + BACKOFF.delay(attempt, random());
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(POLL);
    }
}

/// A Kafka message as the core sees it.
pub(crate) fn record<'a, M: Message>(message: &'a M) -> Record<'a> {
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
        value: message.payload(),
    }
}
