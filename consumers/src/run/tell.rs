//! What a worker tells of its topic: gauges, how far behind it is, how fresh rows are, and whether it is ready.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use millrace_pipeline::spec::TopicSpec;

use super::crew::Crew;
use crate::{
    retry,
    telemetry::{metrics as names, series::SERIES},
    time::now_ms,
};

/// Without an insert acknowledged for so long while all are in use, ClickHouse counts as taking no rows.
const PATIENCE: Duration = Duration::from_secs(10);

impl Crew {
    pub(super) fn count_misses(&self, spec: &TopicSpec, misses: &[usize]) {
        for (lookup, misses) in spec.lookups.iter().zip(misses) {
            counter!(names::LOOKUP_MISSES, "topic" => self.topic.clone(), "lookup" => lookup.name.clone())
                .increment(*misses as u64);
        }
    }

    /// How far a partition is behind: events not yet read, and the age of the oldest that is not committed.
    pub(super) fn tell_lag(&self, partition: i32, events: i64, seconds: Option<f64>) {
        let partition = partition.to_string();
        let labels = [("topic", &*self.topic), ("partition", &*partition)];
        SERIES.set(names::LAG, &labels, events as f64);
        match seconds {
            Some(seconds) => SERIES.set(names::LAG_SECONDS, &labels, seconds),
            None => SERIES.end(names::LAG_SECONDS, &labels),
        }
    }

    /// A gauge of the topic.
    pub(super) fn tell(&self, name: &'static str, value: usize) {
        gauge!(name, "topic" => self.topic.clone()).set(value as f64);
    }

    /// How much waits in a queue of the topic.
    pub(super) fn tell_queue(&self, queue: &'static str, waiting: usize) {
        gauge!(names::QUEUE_DEPTH, "topic" => self.topic.clone(), "queue" => queue).set(waiting as f64);
    }

    /// The topic has ended here: whoever reads its partitions next tells how far they are.
    pub(super) fn tell_nothing_held<'p>(&mut self, partitions: impl Iterator<Item = &'p i32>) {
        self.probed.take().into_iter().for_each(|(_, probe)| probe.abort());
        partitions.for_each(|partition| self.end_series(*partition));
        SERIES.end(names::KAFKA_BROKER_RTT, &[("topic", &self.topic)]);
        for held in [
            names::PARTITIONS_ASSIGNED,
            names::PARTITIONS_RUNNING,
            names::INSERTS_IN_FLIGHT,
            names::DEDUP_IDS,
            names::PROBE_PENDING,
            names::KAFKA_FETCH_QUEUE_BYTES,
            names::KAFKA_BROKERS_UP,
        ] {
            self.tell(held, 0);
        }
        ["librdkafka", "stash", "waiting", "inserts"].into_iter().for_each(|queue| self.tell_queue(queue, 0));
    }

    /// A partition is somebody else's now, who tells how far it is.
    pub(super) fn end_series(&self, partition: i32) {
        for name in [names::LAG, names::LAG_SECONDS] {
            SERIES.end(name, &[("topic", &self.topic), ("partition", &partition.to_string())]);
        }
    }

    /// Why a shard takes no rows, as far as that is known by now; `blocked` is for how long no insert was free.
    pub(super) fn trouble(&self, shard: usize, blocked: Option<Duration>) -> Option<String> {
        let shard = &self.shards[shard];
        let dead_letters = || shard.dead_letter_table.as_ref().and_then(|table| table.trouble());
        shard.inserter.trouble().or_else(dead_letters).or_else(|| {
            let seconds = blocked.filter(|blocked| *blocked >= PATIENCE)?.as_secs();
            Some(format!("no insert has been acknowledged for {seconds} s"))
        })
    }

    /// Why the registry does not tell a schema that events wait for.
    fn registry_trouble(&self) -> Option<String> {
        self.registry.target().filter(|_| !self.asked.is_empty())?.trouble()
    }

    /// Circuit breakers of all that the topic calls.
    pub(super) fn breakers(&self) -> Vec<retry::Status> {
        let registry = self.registry.target().map(retry::Target::status);
        let inserts = self.shards.iter().map(|shard| shard.inserter.status());
        let tables = self.shards.iter().filter_map(|shard| shard.dead_letter_table.as_ref());
        let tables = tables.map(|table| table.status());
        inserts.chain([self.dead_letters.status()]).chain(tables).chain(registry).collect()
    }

    pub(super) fn set_ready(&self, complete: bool, settled: bool, held: bool, trouble: Option<String>) {
        if held {
            self.health.not_ready(format!("topic {}: paused by command", self.topic));
        } else if !complete {
            self.health.not_ready(format!("topic {}: reference topics are still being read", self.topic));
        } else if let Some(trouble) = trouble {
            self.health.not_ready(format!("topic {}: ClickHouse takes no rows: {trouble}", self.topic));
        } else if let Some(trouble) = self.dead_letters.trouble() {
            self.health.not_ready(format!("topic {}: offsets wait for dead letters: {trouble}", self.topic));
        } else if let Some(trouble) = self.registry_trouble() {
            self.health.not_ready(format!("topic {}: events wait for the schema registry: {trouble}", self.topic));
        } else if !settled {
            self.health.not_ready(format!("topic {}: partitions are being taken over", self.topic));
        } else {
            self.health.ready();
        }
    }
}

/// Age of each event as its row became visible; ages within 1/256 of each other count as the same.
pub(super) fn observe_freshness(topic: &str, mut published_ms: Vec<i64>) {
    let now = now_ms();
    published_ms.sort_unstable();
    let freshness = histogram!(names::FRESHNESS, "topic" => topic.to_owned());
    let mut rest = &published_ms[..];
    while let [oldest, ..] = rest {
        let age = (now - oldest).max(0);
        let alike = rest.partition_point(|at| at - oldest <= age >> 8);
        freshness.record_many(age as f64 / 1000.0, alike);
        rest = &rest[alike..];
    }
}
