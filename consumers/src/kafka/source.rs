//! The topic that is read: a consumer whose rebalances wait for the pipeline.
//!
//! A rebalance is noted when librdkafka tells of it and completed by [`Source::complete_assign`] or
//! [`Source::complete_revoke`], once what it takes away is drained; librdkafka keeps the heart beating meanwhile.
//! Assigned partitions are paused until [`Source::start`] says from where they are read.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use millrace_pipeline::batch::Progress;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
    statistics::Statistics,
    types::RDKafkaRespErr,
};

use super::{client_config, tell_error, tell_log};
use crate::config;

/// Longest wait of one call for librdkafka's own threads; such calls do not leave the process.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What Kafka did to the assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rebalance {
    /// Partitions came.
    Assigned(Vec<i32>),
    /// Partitions are to be given up.
    Revoked {
        /// Which.
        partitions: Vec<i32>,
        /// Whether they are gone already, so that nothing can be committed any more.
        lost: bool,
    },
}

/// Queues rebalances for the thread that polls.
#[derive(Debug, Default)]
pub struct Rebalances {
    queue: Mutex<VecDeque<Rebalance>>,
    /// End of each partition, as last heard from the broker.
    ends: Mutex<BTreeMap<i32, i64>>,
    closing: AtomicBool,
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell_log("consumer", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error("consumer", &error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics.topics.values().flat_map(|topic| &topic.partitions);
        let ends = partitions.filter(|(_, partition)| partition.hi_offset >= 0);
        let mut known = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(ends.map(|(partition, state)| (*partition, state.hi_offset)));
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        if self.closing.load(Ordering::Relaxed) {
            // The consumer is being dropped: there is no thread any more to complete this.
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::debug!(%error, "partitions were not given up cleanly");
            }
            return;
        }
        let rebalance = if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Rebalance::Assigned(partitions)
        } else {
            Rebalance::Revoked { partitions, lost: consumer.assignment_lost() }
        };
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            // A commit is a hint of where to start reading; the next one carries it.
            tracing::warn!(%error, "offsets were not committed");
        }
    }
}

/// One topic, read as a member of the consumer group.
pub struct Source {
    consumer: Arc<BaseConsumer<Rebalances>>,
    topic: String,
}

/// A handle for asking about offsets from other threads.
#[derive(Clone)]
pub struct Reader {
    consumer: Arc<BaseConsumer<Rebalances>>,
    topic: String,
}

/// Where a partition stands in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Committed offset of the group.
    pub committed: Option<i64>,
    /// Whether the group has committed an offset of any partition of the topic.
    pub group_knows_topic: bool,
    /// Oldest offset that Kafka still has.
    pub low: i64,
    /// Offset of the next record to be written.
    pub high: i64,
}

impl Source {
    /// Joins the group and subscribes to the topic.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration. An unreachable broker is no error: it is tried for ever.
    pub fn subscribe(kafka: &config::Kafka, topic: &str) -> Result<Self> {
        let mut client = client_config(kafka, "consumer");
        client
            .set("group.id", &kafka.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Every partition is started by an explicit seek. Where that is out of range, the take-over decides anew.
            .set("auto.offset.reset", "error")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            .set("enable.partition.eof", "false")
            // Once its queue is full, librdkafka rests before it fetches on: a second by default, in which the queue runs
            // dry. Draining two million events: 114,000/s with the default, 274,000/s with this.
            .set("fetch.queue.backoff.ms", "10")
            .set("statistics.interval.ms", "1000")
            .set("queued.max.messages.kbytes", (kafka.queue_max_bytes / 1024).max(1).to_string());
        // Heartbeats come from librdkafka's own thread, however busy this process is, so a short session only means that the
        // partitions of one that was killed are read again after ten seconds and not after librdkafka's 45.
        if client.get("session.timeout.ms").is_none() {
            client.set("session.timeout.ms", "10000");
        }
        let consumer: BaseConsumer<Rebalances> =
            client.create_with_context(Rebalances::default()).context("set the Kafka consumer up")?;
        consumer.subscribe(&[topic]).with_context(|| format!("subscribe to topic {topic}"))?;
        Ok(Self { consumer: Arc::new(consumer), topic: topic.to_owned() })
    }

    /// The next record, or an error that Kafka tells of. `None` after `timeout`, or when a rebalance was noted.
    pub fn poll(&self, timeout: Duration) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
        self.consumer.poll(timeout)
    }

    /// The oldest rebalance that is not completed.
    pub fn next_rebalance(&self) -> Option<Rebalance> {
        self.consumer.context().queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Takes partitions on, paused. They are positioned at their end meanwhile, which needs no committed offset.
    ///
    /// # Errors
    /// When librdkafka refuses, which it does only once it is beyond repair.
    pub fn complete_assign(&self, partitions: &[i32]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.topic, *partition, Offset::End)?;
        }
        self.consumer.incremental_assign(&list)?;
        self.consumer.pause(&list)
    }

    /// Gives partitions up.
    ///
    /// # Errors
    /// As [`Source::complete_assign`].
    pub fn complete_revoke(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.consumer.incremental_unassign(&self.list(partitions))
    }

    /// Reads a partition from `offset` on. The seek comes after the resume because librdkafka forgets an offset that is
    /// set while it pauses (its issue 2190); nothing is polled in between.
    ///
    /// # Errors
    /// When the partition is not being fetched yet: try again.
    pub fn start(&self, partition: i32, offset: Offset) -> KafkaResult<()> {
        self.consumer.resume(&self.list(&[partition]))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, offset)?;
        let sought = self.consumer.seek_partitions(list, LOCAL_TIMEOUT)?;
        sought.elements().iter().try_for_each(|element| element.error())
    }

    /// Stops fetching partitions; their position is kept.
    pub fn pause(&self, partitions: &[i32]) {
        if let Err(error) = self.consumer.pause(&self.list(partitions)) {
            tracing::warn!(%error, ?partitions, "partitions were not paused");
        }
    }

    /// Fetches partitions again from where they stood.
    pub fn resume(&self, partitions: &[i32]) {
        if let Err(error) = self.consumer.resume(&self.list(partitions)) {
            tracing::warn!(%error, ?partitions, "partitions were not resumed");
        }
    }

    /// Commits offsets. A failure is logged and not an error: the next commit carries them, and rows are the truth.
    pub fn commit(&self, progress: &[Progress], mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for one in progress {
            if let Err(error) = list.add_partition_offset(&self.topic, one.partition, Offset::Offset(one.next_offset)) {
                tracing::error!(%error, partition = one.partition, "an offset cannot be committed");
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.commit(&list, mode) {
            tracing::warn!(%error, "offsets were not committed; they are with the next batch");
        }
    }

    /// End of a partition as librdkafka last heard of it, without asking the broker.
    pub fn known_high(&self, partition: i32) -> Option<i64> {
        self.consumer.context().ends.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// A handle for other threads.
    pub fn reader(&self) -> Reader {
        Reader { consumer: Arc::clone(&self.consumer), topic: self.topic.clone() }
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, *partition);
        }
        list
    }
}

/// Leaves the group once every handle is gone. A rebalance that is left open would keep librdkafka from ever closing
/// the consumer, so what is noted is completed here, and what comes later in the callback.
impl Drop for Source {
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        while let Some(rebalance) = self.next_rebalance() {
            let completed = match rebalance {
                Rebalance::Assigned(partitions) => self.complete_assign(&partitions),
                Rebalance::Revoked { partitions, .. } => self.complete_revoke(&partitions),
            };
            if let Err(error) = completed {
                tracing::debug!(%error, "a rebalance was not completed cleanly");
            }
        }
    }
}

impl Reader {
    /// Where a partition stands; asks the brokers, and blocks while it does.
    ///
    /// # Errors
    /// When they do not answer within `timeout`.
    pub fn position(&self, partition: i32, timeout: Duration) -> KafkaResult<Position> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), timeout)?;
        let mut list = TopicPartitionList::new();
        for other in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            list.add_partition(&self.topic, other.id());
        }
        let offsets = self.consumer.committed_offsets(list, timeout)?;
        let mut committed = None;
        let mut group_knows_topic = false;
        for element in offsets.elements() {
            // An offset that could not be told is not the same as none.
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                group_knows_topic = true;
                committed = if element.partition() == partition { Some(offset) } else { committed };
            }
        }
        let (low, high) = self.consumer.fetch_watermarks(&self.topic, partition, timeout)?;
        Ok(Position { committed, group_knows_topic, low, high })
    }
}
