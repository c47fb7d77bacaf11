//! What librdkafka tells the topic's consumer: rebalances, which wait here for the thread that polls, ends of partitions, and
//! what became of commits.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use millrace_identity::Tokens;
use millrace_pipeline::batch::Progress;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult},
    statistics::{Partition, Statistics},
    types::RDKafkaRespErr,
};

use super::{client_metrics, code, oauth, tell_error, tell_log};
use crate::telemetry::stages::{Stage, Stages};

/// librdkafka may drop a commit without a word: then another one is timed.
const COMMIT_FORGOTTEN: Duration = Duration::from_secs(60);

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
pub struct Rebalances {
    /// What metrics call the topic.
    label: String,
    stages: Stages,
    /// Where tokens come from, if any are needed.
    tokens: Option<Arc<Tokens>>,
    /// One commit under way, to be timed: a partition and offset of it, and when it was asked for.
    timed: Mutex<Option<(i32, i64, Instant)>>,
    pub(super) queue: Mutex<VecDeque<Rebalance>>,
    /// End of each partition, as last heard of.
    pub(super) ends: Mutex<BTreeMap<i32, i64>>,
    /// Partitions that are handed out up to their end, as last heard of.
    pub(super) drained: Mutex<BTreeSet<i32>>,
    pub(super) closing: AtomicBool,
    /// Whether a commit has failed.
    pub(super) uncommitted: AtomicBool,
    /// The offset of each partition that the broker has last said is committed.
    pub(super) confirmed: Mutex<BTreeMap<i32, i64>>,
}

impl Rebalances {
    /// Nothing has happened yet; metrics call the topic `label`.
    pub(super) fn new(label: &str, tokens: Option<Arc<Tokens>>) -> Self {
        Self {
            label: label.to_owned(),
            stages: Stages::new(label),
            tokens,
            timed: Mutex::default(),
            queue: Mutex::default(),
            ends: Mutex::default(),
            drained: Mutex::default(),
            closing: AtomicBool::default(),
            uncommitted: AtomicBool::default(),
            confirmed: Mutex::default(),
        }
    }

    /// Offsets are about to be committed.
    pub(super) fn commit_begins(&self, progress: &[Progress]) {
        let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
        if timed.is_none_or(|(_, _, since)| since.elapsed() > COMMIT_FORGOTTEN) {
            *timed = progress.first().map(|one| (one.partition, one.next_offset, Instant::now()));
        }
    }

    /// A commit is a hint of where to start reading, and rows are the truth: it is made again with the next batch, or by
    /// the housekeeping.
    pub(super) fn commit_failed(&self, error: &KafkaError) {
        tracing::warn!(%error, "offsets were not committed; they will be in a moment");
        self.stages.failed(Stage::Commit, code(error), 1);
        *self.timed.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.uncommitted.store(true, Ordering::Relaxed);
    }

    /// The broker says that these offsets are committed.
    pub(super) fn commit_confirmed(&self, offsets: &TopicPartitionList) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        for element in offsets.elements() {
            if let (Ok(()), Offset::Offset(offset)) = (element.error(), element.offset()) {
                confirmed.insert(element.partition(), offset);
                let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((partition, at, since)) = *timed
                    && (partition, at) == (element.partition(), offset)
                {
                    self.stages.took(Stage::Commit, since.elapsed());
                    *timed = None;
                }
            }
        }
    }
}

impl ClientContext for Rebalances {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::answer(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell_log("consumer", level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error("consumer", &error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        client_metrics::tell(&self.label, &statistics);
        let partitions = || statistics.topics.values().flat_map(|topic| &topic.partitions);
        // The position of the fetch passes what is no record: the end of a transaction, what was aborted or compacted.
        let is_drained = |of: &Partition| of.hi_offset >= 0 && of.next_offset >= of.hi_offset && of.fetchq_cnt == 0;
        *self.drained.lock().unwrap_or_else(PoisonError::into_inner) =
            partitions().filter(|(_, of)| is_drained(of)).map(|(partition, _)| *partition).collect();
        let partitions = partitions();
        let ends = partitions.filter(|(_, partition)| partition.hi_offset >= 0);
        let mut known = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, state) in ends {
            // Of a partition that is not fetched librdkafka repeats what it last knew: less than has been asked for since.
            known.entry(*partition).and_modify(|end| *end = state.hi_offset.max(*end)).or_insert(state.hi_offset);
        }
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

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        match result {
            Ok(()) => self.commit_confirmed(offsets),
            Err(error) => self.commit_failed(&error),
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::RDKafkaErrorCode;

    use super::*;

    #[test]
    fn a_commit_counts_once_the_broker_has_confirmed_it() {
        let rebalances = Rebalances::new("orders", None);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("orders", 3, Offset::Offset(70)).unwrap();
        rebalances.commit_callback(Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::RebalanceInProgress)), &list);
        assert!(rebalances.uncommitted.load(Ordering::Relaxed));
        assert!(rebalances.confirmed.lock().unwrap().is_empty());
        rebalances.commit_callback(Ok(()), &list);
        assert_eq!(rebalances.confirmed.lock().unwrap().get(&3), Some(&70));
    }
}
