//! The topic that is read: a consumer whose rebalances wait for the pipeline.
//!
//! A rebalance is noted when librdkafka tells of it and completed by [`Source::complete_assign`] or
//! [`Source::complete_revoke`], once what it takes away is drained; librdkafka keeps the heart beating meanwhile.
//! Assigned partitions are paused until [`Source::start`] says from where they are read.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use millrace_identity::Tokens;
use millrace_pipeline::batch::Progress;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
    topic_partition_list::TopicPartitionListElem,
};

use super::{
    client_config,
    mark::{self, Mark, Seen},
    oauth,
    rebalance::{Rebalance, Rebalances},
};
use crate::config;

/// Longest wait of one call for librdkafka's own threads; such calls do not leave the process.
const LOCAL_TIMEOUT: Duration = Duration::from_secs(5);

/// So soon after its assignment librdkafka fetches a partition, unless it has ended its fetch.
const STARTS_WITHIN: Duration = Duration::from_secs(5);

/// How the members of a group share partitions out. All of them must have it, those of an earlier version too.
pub(crate) const ASSIGNMENT_STRATEGY: &str = "cooperative-sticky";

/// One topic, read as a member of the consumer group.
pub struct Source {
    reader: Reader,
    /// Since when librdkafka refuses to seek in partitions: it has not begun to fetch them, or has ended that for good.
    refused_since: RefCell<BTreeMap<i32, Instant>>,
}

/// A handle for asking about offsets from other threads.
#[derive(Clone)]
pub struct Reader {
    consumer: Arc<BaseConsumer<Rebalances>>,
    client: ClientConfig,
    tokens: Option<Arc<Tokens>>,
    topic: String,
}

/// Where a partition stands in Kafka.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Committed offset of the group.
    pub committed: Option<i64>,
    /// Mark of a record before it, if the commit carries one.
    pub mark: Option<Mark>,
    /// First record at or past that mark, or else just before the committed offset, if there is one.
    pub found: Option<Mark>,
    /// Whether the group has committed an offset of any partition of the topic.
    pub group_knows_topic: bool,
    /// Oldest offset that Kafka still has.
    pub low: i64,
    /// Offset of the next record to be written.
    pub high: i64,
}

impl Source {
    /// Joins the group and subscribes to the topic, which metrics call `label`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration. An unreachable broker is no error: it is tried for ever.
    pub fn subscribe(kafka: &config::Kafka, topic: &str, label: &str) -> Result<Self> {
        let mut client = client_config(kafka, "consumer");
        client
            .set("group.id", &kafka.group_id)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Every partition is started by an explicit seek. Where that is out of range, the take-over decides anew.
            .set("auto.offset.reset", "error")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("partition.assignment.strategy", ASSIGNMENT_STRATEGY)
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
        let tokens = oauth::tokens(kafka)?;
        let consumer: BaseConsumer<Rebalances> =
            client.create_with_context(Rebalances::new(label, tokens.clone())).context("set the Kafka consumer up")?;
        consumer.subscribe(&[topic]).with_context(|| format!("subscribe to topic {topic}"))?;
        Ok(Self {
            reader: Reader { consumer: Arc::new(consumer), client, tokens, topic: topic.to_owned() },
            refused_since: RefCell::default(),
        })
    }

    /// The next record, or an error that Kafka tells of. `None` after `timeout`, or when a rebalance was noted.
    pub fn poll(&self, timeout: Duration) -> Option<Result<BorrowedMessage<'_>, KafkaError>> {
        self.reader.consumer.poll(timeout)
    }

    /// The oldest rebalance that is not completed.
    pub fn next_rebalance(&self) -> Option<Rebalance> {
        self.reader.consumer.context().queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Takes partitions on, paused. They are positioned at their beginning meanwhile, which needs no committed offset: should
    /// librdkafka ever read from there and not from where it is told to by [`Source::start`], records come that are not
    /// wanted. From any other place there might be some that do not come.
    ///
    /// # Errors
    /// When librdkafka refuses, which it does only once it is beyond repair.
    pub fn complete_assign(&self, partitions: &[i32]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition_offset(&self.reader.topic, *partition, Offset::Beginning)?;
        }
        self.reader.consumer.incremental_assign(&list)?;
        self.reader.consumer.pause(&list)
    }

    /// Gives partitions up.
    ///
    /// # Errors
    /// As [`Source::complete_assign`].
    pub fn complete_revoke(&self, partitions: &[i32]) -> KafkaResult<()> {
        self.reader.consumer.incremental_unassign(&self.list(partitions))
    }

    /// Reads a partition from `offset` on. The seek comes after the resume because librdkafka forgets an offset that is
    /// set while it pauses (its issue 2190); nothing is polled in between.
    ///
    /// # Errors
    /// When the partition is not being fetched yet: try again.
    pub fn start(&self, partition: i32, offset: Offset) -> KafkaResult<()> {
        self.reader.consumer.resume(&self.list(&[partition]))?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.reader.topic, partition, offset)?;
        let sought = self.reader.consumer.seek_partitions(list, LOCAL_TIMEOUT)?;
        let sought = sought.elements().iter().try_for_each(|element| element.error());
        let mut refused = self.refused_since.borrow_mut();
        if !sought.as_ref().is_err_and(|error| error.rdkafka_error_code() == Some(RDKafkaErrorCode::State)) {
            refused.remove(&partition);
        } else if refused.entry(partition).or_insert_with(Instant::now).elapsed() > STARTS_WITHIN {
            // librdkafka has ended the fetch of a partition whose offset was out of range, and seeks in it no more: it has
            // to be assigned anew (rd_kafka_offset_reset, rd_kafka_toppar_seek), and the seek comes with the next try.
            refused.remove(&partition);
            self.complete_revoke(&[partition])?;
            self.complete_assign(&[partition])?;
        }
        sought
    }

    /// Stops fetching partitions; their position is kept.
    pub fn pause(&self, partitions: &[i32]) {
        if let Err(error) = self.reader.consumer.pause(&self.list(partitions)) {
            tracing::warn!(%error, ?partitions, "partitions were not paused");
        }
    }

    /// Fetches partitions again from where they stood.
    pub fn resume(&self, partitions: &[i32]) {
        if let Err(error) = self.reader.consumer.resume(&self.list(partitions)) {
            tracing::warn!(%error, ?partitions, "partitions were not resumed");
        }
    }

    /// Commits offsets, each with the mark of its log if there is one. A failure is logged and not an error: the next
    /// commit carries them, and rows are the truth.
    pub fn commit(&self, progress: &[Progress], mark: impl Fn(i32) -> Option<Mark>, mode: CommitMode) {
        let mut list = TopicPartitionList::new();
        for one in progress {
            let mut element = list.add_partition(&self.reader.topic, one.partition);
            if let Err(error) = element.set_offset(Offset::Offset(one.next_offset)) {
                tracing::error!(%error, partition = one.partition, "an offset cannot be committed");
            }
            mark(one.partition).into_iter().for_each(|mark| element.set_metadata(mark.to_string()));
        }
        if list.count() == 0 {
            return;
        }
        self.reader.consumer.context().commit_begins(progress);
        match (self.reader.consumer.commit(&list, mode), mode) {
            (Err(error), _) => self.reader.consumer.context().commit_failed(&error),
            (Ok(()), CommitMode::Sync) => self.reader.consumer.context().commit_confirmed(&list),
            (Ok(()), CommitMode::Async) => {}
        }
    }

    /// Whether a commit has failed since this was asked last, or one of these was not confirmed: on a topic that has gone
    /// quiet no other would carry it. librdkafka may drop a commit between two generations of the group without a word.
    pub fn lacks_commit<'a>(&self, mut committed: impl Iterator<Item = &'a Progress>) -> bool {
        let context = self.reader.consumer.context();
        let confirmed = context.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        let has_failed = context.uncommitted.swap(false, Ordering::Relaxed);
        has_failed || committed.any(|one| confirmed.get(&one.partition) != Some(&one.next_offset))
    }

    /// End of a partition as last heard of, without asking the broker.
    pub fn known_high(&self, partition: i32) -> Option<i64> {
        self.reader.consumer.context().ends.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    /// Whether everything of a partition up to its end had been handed out, when librdkafka last told, even if its last
    /// offsets are no records.
    pub fn is_drained(&self, partition: i32) -> bool {
        let drained = &self.reader.consumer.context().drained;
        drained.lock().unwrap_or_else(PoisonError::into_inner).contains(&partition)
    }

    /// A handle for other threads.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.reader.topic, *partition);
        }
        list
    }
}

/// Leaves the group once every handle is gone. A rebalance that is left open would keep librdkafka from ever closing
/// the consumer, so what is noted is completed here, and what comes later in the callback.
impl Drop for Source {
    fn drop(&mut self) {
        self.reader.consumer.context().closing.store(true, Ordering::Relaxed);
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
    /// Where partitions stand, as far as they have a leader; asks the brokers, once for all of them, and blocks while it does.
    ///
    /// # Errors
    /// When they do not answer within a few times `timeout`.
    pub fn positions(&self, partitions: &[i32], timeout: Duration) -> Result<BTreeMap<i32, Position>> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), timeout)?;
        let mut all = TopicPartitionList::new();
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            all.add_partition(&self.topic, partition.id());
        }
        anyhow::ensure!(all.count() > 0, "topic {} does not exist", self.topic);
        let mut committed = BTreeMap::new();
        for element in self.consumer.committed_offsets(all, timeout)?.elements() {
            // An offset that could not be told is not the same as none.
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                committed.insert(element.partition(), (offset, element.metadata().parse::<Mark>().ok()));
            }
        }
        let ends = self.ends(partitions, timeout)?;
        let marked = ends.iter().filter_map(|(partition, (low, high))| {
            let (committed, mark) = committed.get(partition)?;
            let at = mark.map_or(committed - 1, |mark| mark.offset);
            (*low..*high).contains(&at).then_some((*partition, at))
        });
        let found = self.read_at(&marked.collect(), timeout)?;
        let position = |(partition, (low, high)): (i32, (i64, i64))| {
            let (offset, mark) = committed.get(&partition).copied().map_or((None, None), |(at, mark)| (Some(at), mark));
            let position = Position {
                committed: offset,
                mark,
                found: found.get(&partition).copied().flatten(),
                group_knows_topic: !committed.is_empty(),
                low,
                high,
            };
            (partition, position)
        };
        Ok(ends.into_iter().map(position).collect())
    }

    /// Oldest and next offset of partitions; asks their brokers once each, and blocks while it does. One that has no leader now is
    /// left out, and does not hold the others up.
    ///
    /// # Errors
    /// When a broker does not answer within `timeout`.
    pub fn ends(&self, partitions: &[i32], timeout: Duration) -> Result<BTreeMap<i32, (i64, i64)>> {
        let ask = |offset| -> Result<BTreeMap<i32, i64>> {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition_offset(&self.topic, *partition, offset)?;
            }
            // librdkafka hands -2 and -1, which its offsets Beginning and End are, through as the protocol's own
            // timestamps for the ends of a partition.
            let answer = self.consumer.offsets_for_times(list, timeout)?;
            let offset = |element: TopicPartitionListElem<'_>| {
                let (partition, found) = (element.partition(), element.error());
                match (found, element.offset().to_raw().filter(|offset| *offset >= 0)) {
                    (Ok(()), Some(offset)) => Some((partition, offset)),
                    (error, _) => {
                        tracing::debug!(topic = self.topic, partition, ?error, "a partition has no ends now");
                        None
                    }
                }
            };
            Ok(answer.elements().into_iter().filter_map(offset).collect())
        };
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let (lows, highs) = (ask(Offset::Beginning)?, ask(Offset::End)?);
        let mut known = self.consumer.context().ends.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(&highs);
        Ok(lows.into_iter().filter_map(|(partition, low)| Some((partition, (low, *highs.get(&partition)?)))).collect())
    }

    /// What became of marks; reads the records at them, and blocks while it does.
    ///
    /// # Errors
    /// When a broker does not answer within a few times `timeout`.
    pub fn look(&self, marks: &BTreeMap<i32, Mark>, timeout: Duration) -> Result<BTreeMap<i32, Seen>> {
        let partitions: Vec<i32> = marks.keys().copied().collect();
        let ends = self.ends(&partitions, timeout)?;
        let readable = marks.iter().filter_map(|(partition, mark)| {
            let (low, high) = ends.get(partition)?;
            (*low..*high).contains(&mark.offset).then_some((*partition, mark.offset))
        });
        let found = self.read_at(&readable.collect(), timeout)?;
        let seen = |(partition, (low, high)): (i32, (i64, i64))| {
            let mark = marks.get(&partition)?;
            Some((partition, mark.seen(low, high, found.get(&partition).copied().flatten())))
        };
        Ok(ends.into_iter().filter_map(seen).collect())
    }

    fn read_at(&self, offsets: &BTreeMap<i32, i64>, timeout: Duration) -> Result<BTreeMap<i32, Option<Mark>>> {
        mark::read_at(&self.client, self.tokens.as_ref(), &self.topic, offsets, timeout)
            .context("read the records that logs are known by")
    }
}
