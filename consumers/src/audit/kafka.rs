//! Reads Kafka for an audit or a replay: where partitions stand, records of a range of offsets, and whence dead letters
//! came. It is a member of no group and commits nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use millrace_identity::Tokens;
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::KafkaError,
    message::{BorrowedHeaders, BorrowedMessage, Headers},
    types::RDKafkaErrorCode,
};

use super::{marks::Place, range::Position};
use crate::{
    config,
    kafka::{dead_letters::header, oauth},
};

/// Rest before a group's coordinator is asked for again.
const COORDINATOR_REST: Duration = Duration::from_millis(200);

/// Whether a group's coordinator is on its way to a broker.
fn is_moving(error: &KafkaError) -> bool {
    let moving = [
        RDKafkaErrorCode::NotCoordinator,
        RDKafkaErrorCode::CoordinatorNotAvailable,
        RDKafkaErrorCode::CoordinatorLoadInProgress,
    ];
    error.rdkafka_error_code().is_some_and(|code| moving.contains(&code))
}

/// Messages handed over at once.
const CHUNK: usize = 4096;
/// Longest wait before the word to stop is looked for.
const POLL: Duration = Duration::from_millis(100);
/// Fetched ahead of the decoder. The rate is the decoder's, so more would only cost memory.
const QUEUE_KIB: &str = "16384";

/// Keeps the last reason that librdkafka told of; its calls themselves often say only that they failed.
#[derive(Clone)]
struct LastReason(Arc<Mutex<Option<String>>>, Option<Arc<Tokens>>);

impl ClientContext for LastReason {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::answer(self.1.as_ref())
    }

    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for LastReason {}

/// A reader of one cluster.
pub(crate) struct Reader {
    client: ClientConfig,
    /// For questions.
    consumer: BaseConsumer<LastReason>,
    reason: LastReason,
    timeout: Duration,
    group: String,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// A reader for `purpose` that waits no longer than `timeout` for anything, and gives up when told to `stop`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub(crate) fn new(kafka: &config::Kafka, purpose: &str, timeout: Duration, stop: Arc<AtomicBool>) -> Result<Self> {
        let reason = LastReason(Arc::default(), oauth::tokens(kafka)?);
        let mut client: ClientConfig = kafka.client_properties().into_iter().collect();
        client
            .set("client.id", format!("millrace-{purpose}"))
            // Only to ask what the group has committed; partitions are assigned by hand.
            .set("group.id", &kafka.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Retention may overtake the reader: it goes on with the oldest there is.
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "true")
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.max.messages.kbytes", QUEUE_KIB);
        let consumer: BaseConsumer<LastReason> =
            client.create_with_context(reason.clone()).context("set the Kafka consumer up")?;
        oauth::serve(&consumer, reason.1.as_ref());
        Ok(Self { client, consumer, reason, timeout, group: kafka.group_id.clone(), stop })
    }

    /// Where every partition of a topic stands.
    ///
    /// # Errors
    /// When the topic does not exist, or the brokers do not answer or refuse.
    pub(crate) fn positions(&self, topic: &str) -> Result<Vec<Position>> {
        let partitions = self.partitions(topic)?;
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition(topic, *partition);
        }
        oauth::serve(&self.consumer, self.reason.1.as_ref());
        let asked = Instant::now();
        let committed = loop {
            match self.consumer.committed_offsets(list.clone(), self.timeout) {
                // The broker is making the group's coordinator, or moving it.
                Err(error) if is_moving(&error) && asked.elapsed() < self.timeout => {
                    std::thread::sleep(COORDINATOR_REST)
                }
                answer => break answer,
            }
        };
        let committed = committed.map_err(|error| {
            let hint = "does this user have READ on the group?";
            self.explain(
                error,
                &format!("ask for the committed offsets of group {} on topic {topic}; {hint}", self.group),
            )
        })?;
        let mut offsets = BTreeMap::new();
        for element in committed.elements() {
            element.error().with_context(|| {
                format!(
                    "ask for the committed offset of group {}, topic {topic}, partition {}",
                    self.group,
                    element.partition()
                )
            })?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        let position = |partition| {
            let (low, high) = self.watermarks(topic, partition)?;
            Ok(Position { partition, committed: offsets.get(&partition).copied(), low, high })
        };
        partitions.into_iter().map(position).collect()
    }

    /// Every partition of a topic with its oldest and its next offset.
    ///
    /// # Errors
    /// When the topic does not exist, or the brokers do not answer or refuse.
    pub(crate) fn extents(&self, topic: &str) -> Result<Vec<(i32, i64, i64)>> {
        let extent = |partition| self.watermarks(topic, partition).map(|(low, high)| (partition, low, high));
        self.partitions(topic)?.into_iter().map(extent).collect()
    }

    /// Oldest and next offset of a partition.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub(crate) fn watermarks(&self, topic: &str, partition: i32) -> Result<(i64, i64)> {
        let marks = self.consumer.fetch_watermarks(topic, partition, self.timeout);
        marks.map_err(|error| self.explain(error, &format!("ask how far topic {topic}, partition {partition} reaches")))
    }

    /// The first offset of each of some partitions whose record is not older than a time, in milliseconds since 1970; a
    /// partition that has none is left out.
    ///
    /// # Errors
    /// When the brokers do not answer.
    pub(crate) fn offsets_at(&self, topic: &str, partitions: &[i32], time_ms: i64) -> Result<BTreeMap<i32, i64>> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(topic, *partition, Offset::Offset(time_ms))?;
        }
        oauth::serve(&self.consumer, self.reason.1.as_ref());
        let found = self.consumer.offsets_for_times(list, self.timeout);
        let found =
            found.map_err(|error| self.explain(error, &format!("ask topic {topic} for the offsets of a time")))?;
        let mut offsets = BTreeMap::new();
        for element in found.elements() {
            element.error().with_context(|| {
                format!("ask topic {topic}, partition {} for the offset of a time", element.partition())
            })?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self.consumer.fetch_metadata(Some(topic), self.timeout);
        let metadata = metadata.map_err(|error| self.explain(error, &format!("ask about topic {topic}")))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            bail!("topic {topic} does not exist");
        };
        match found.error().map(RDKafkaErrorCode::from) {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                bail!("topic {topic}: this user may not see it; grant it DESCRIBE and READ")
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                bail!("topic {topic} does not exist")
            }
            Some(error) => bail!("topic {topic}: {error}"),
            None => {}
        }
        let mut partitions: Vec<i32> = found.partitions().iter().map(|partition| partition.id()).collect();
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// Hands over the records of the ranges (partition, first offset, the offset after the last), some at a time. Each
    /// partition is read until its end offset is reached or Kafka says that there is no more.
    ///
    /// # Errors
    /// When Kafka is silent for too long or refuses, when told to stop, or the error of `each`.
    pub(crate) fn read(
        &self,
        topic: &str,
        ranges: &[(i32, i64, i64)],
        mut each: impl FnMut(&[BorrowedMessage<'_>]) -> Result<()>,
    ) -> Result<()> {
        // A consumer for each reading: the end of a partition that an earlier one was told of must not end this one.
        let consumer: BaseConsumer<LastReason> =
            self.client.create_with_context(self.reason.clone()).context("set the Kafka consumer up")?;
        // The partitions not read to their end, with the offset to read next, and the end.
        let mut open: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for (partition, from, to) in ranges.iter().filter(|(_, from, to)| from < to) {
            open.insert(*partition, (*from, *to));
            list.add_partition_offset(topic, *partition, Offset::Offset(*from))?;
        }
        consumer.assign(&list).with_context(|| format!("read topic {topic}"))?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            let mut messages = Vec::new();
            let mut ended = Vec::new();
            let mut timeout = POLL;
            while messages.len() < CHUNK {
                match consumer.poll(timeout) {
                    None => break,
                    Some(Ok(message)) => {
                        heard = Instant::now();
                        let (partition, offset) = (message.partition(), message.offset());
                        if let Some((next, to)) = open.get_mut(&partition) {
                            *next = offset + 1;
                            if offset + 1 >= *to {
                                ended.push(partition);
                            }
                            if offset < *to {
                                messages.push(message);
                            }
                        }
                    }
                    Some(Err(KafkaError::PartitionEOF(partition))) => {
                        heard = Instant::now();
                        ended.push(partition);
                    }
                    Some(Err(error)) => self.endure(topic, error)?,
                }
                timeout = Duration::ZERO;
            }
            if !messages.is_empty() {
                each(&messages)?;
                heard = Instant::now();
            }
            for partition in ended {
                if open.remove(&partition).is_some() {
                    let mut list = TopicPartitionList::new();
                    list.add_partition(topic, partition);
                    consumer.pause(&list).with_context(|| format!("stop reading topic {topic}"))?;
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                bail!("interrupted");
            }
            if heard.elapsed() >= self.timeout
                && let Some((partition, (next, _))) = open.first_key_value()
            {
                let reason = self.last_reason().map_or_else(String::new, |reason| format!(" ({reason})"));
                bail!(
                    "Kafka sent nothing for {} s, at topic {topic}, partition {partition}, offset {next}{reason}: is it well? A longer wait is given by --timeout",
                    self.timeout.as_secs_f64()
                );
            }
        }
        Ok(())
    }

    /// Errors that librdkafka tells of while it goes on by itself pass; others do not.
    fn endure(&self, topic: &str, error: KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::TopicAuthorizationFailed) => {
                bail!("topic {topic}: this user may not read it; grant it READ")
            }
            Some(
                Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::BadMessage
                | Code::SaslAuthenticationFailed
                | Code::Authentication
                | Code::AutoOffsetReset
                | Code::Fatal,
            ) => Err(self.explain(error, &format!("read topic {topic}"))),
            _ => Ok(()),
        }
    }

    fn explain(&self, error: KafkaError, doing: &str) -> anyhow::Error {
        // What librdkafka tells of waits until somebody polls.
        self.consumer.poll(Duration::from_millis(1));
        let reason = self.last_reason().map_or_else(String::new, |reason| format!(" ({reason})"));
        let hint = match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::OperationTimedOut,
            ) => ": is it running, and are kafka.bootstrap_servers and kafka.security_protocol right?",
            _ => "",
        };
        anyhow!("{doing}: {error}{reason}{hint}")
    }

    fn last_reason(&self) -> Option<String> {
        self.reason.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Whence a dead letter came, if it says that it came from `topic`.
pub(super) fn source<M: Message<Headers = BorrowedHeaders>>(message: &M, topic: &str) -> Option<Place> {
    if last_header(message, header::SOURCE_TOPIC)? != topic {
        return None;
    }
    let partition = last_header(message, header::SOURCE_PARTITION)?.parse().ok()?;
    Some(Place { partition, offset: last_header(message, header::SOURCE_OFFSET)?.parse().ok()? })
}

/// The last header of a name, if it is text. Headers that a dead letter brought along from an earlier life stand before
/// those that count.
fn last_header<'a, M: Message<Headers = BorrowedHeaders>>(message: &'a M, name: &str) -> Option<&'a str> {
    let header = message.headers()?.iter().filter(|header| header.key == name).last()?;
    std::str::from_utf8(header.value?).ok()
}
