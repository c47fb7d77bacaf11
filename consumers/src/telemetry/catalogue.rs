//! Every metric that Millrace has: name, kind, labels, buckets and what it means. `docs/metrics.md` is made of it, and a test
//! on real parts finds no series that is not in it. It records nothing.
//!
//! Labels are bounded: topics, partitions, lookups and brokers are as many as somebody has configured; all else is a closed
//! list of words or error codes of a server's protocol. No schema id, key or error text ever is a label.

use metrics::Unit;

use super::metrics::*;

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// As Prometheus shows it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts or measures.
    pub unit: Unit,
    /// For a person.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows; begins at 0 with the process.
    Counter,
    /// The present value.
    Gauge,
    /// How many values were at most so large, by these upper edges.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The word of Prometheus for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, unit: Unit::Count, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], unit: Unit, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, unit, help }
}

const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    unit: Unit,
    buckets: &'static [f64],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Histogram(buckets), labels, unit, help }
}

/// Between 50 ms and 5 s no edge is more than a tenth above the one before it, so that any quantile there is told to a
/// tenth; the objective, 0.5 s, is an edge.
const FRESHNESS_SECONDS: &[f64] = &[
    0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.055, 0.06, 0.066, 0.072, 0.079, 0.086, 0.094, 0.1, 0.11, 0.12, 0.13,
    0.14, 0.15, 0.165, 0.18, 0.19, 0.2, 0.22, 0.24, 0.26, 0.28, 0.3, 0.33, 0.36, 0.39, 0.42, 0.46, 0.5, 0.55, 0.6,
    0.66, 0.72, 0.79, 0.86, 0.94, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.65, 1.8, 1.9, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0, 3.3, 3.6,
    3.9, 4.2, 4.6, 5.0, 6.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// Chunks take from a tenth of a millisecond, inserts up to a minute.
const STAGE_SECONDS: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
const INSERT_SECONDS: &[f64] =
    &[0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0];
const ROWS: &[f64] = &[
    1.0,
    10.0,
    100.0,
    1_000.0,
    5_000.0,
    10_000.0,
    25_000.0,
    50_000.0,
    75_000.0,
    100_000.0,
    150_000.0,
    200_000.0,
    300_000.0,
    500_000.0,
    1_000_000.0,
];
const TAKE_OVER_SECONDS: &[f64] =
    &[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0];
const FIRST_ROW_SECONDS: &[f64] =
    &[0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// All of them, in the order of the documentation.
pub const CATALOGUE: &[Metric] = &[
    // What became of events.
    counter(
        EVENTS,
        &["topic"],
        "Events read from Kafka; those that are read again after a restart or a batch that was given up count again.",
    ),
    counter(
        PASSED_OVER,
        &["topic"],
        "Records of a topic with several types of event that are another section's, or ignored by configuration.",
    ),
    counter(ROWS_INSERTED, &["topic"], "Rows that ClickHouse acknowledged."),
    counter(
        DUPLICATES_DROPPED,
        &["topic"],
        "Events dropped because a row with their id is in the table or on its way: intended, never a loss.",
    ),
    counter(
        DEAD_LETTERS,
        &["topic", "reason"],
        "Events written to the dead-letter topic and acknowledged there, by reason.",
    ),
    gauge(
        DEAD_LETTER_SHARE,
        &["topic"],
        Unit::Count,
        "Share, 0 to 1, of the events of the last dead_letters.window that could not be read; above dead_letters.max_share the topic stops.",
    ),
    counter(LOOKUP_MISSES, &["topic", "lookup"], "Lookups in reference topics that found nothing."),
    // How fresh, how far behind.
    histogram(
        FRESHNESS,
        &["topic"],
        Unit::Seconds,
        FRESHNESS_SECONDS,
        "Age of an event when its row is acknowledged, from its Kafka timestamp, in seconds.",
    ),
    histogram(
        PROBE_FRESHNESS,
        &["topic"],
        Unit::Seconds,
        FRESHNESS_SECONDS,
        "Age of an event, from its Kafka timestamp, when a SELECT first saw its row: one event every topics.probe.interval, in seconds.",
    ),
    gauge(
        PROBE_PENDING,
        &["topic"],
        Unit::Seconds,
        "Age of the event whose row the probe is waiting to see, in seconds; 0 if it waits for none.",
    ),
    counter(
        PROBES,
        &["topic", "outcome"],
        "Probes that ended, by outcome: visible, given_up (not seen for 15 minutes).",
    ),
    gauge(
        LAG,
        &["topic", "partition"],
        Unit::Count,
        "Events of the partition not yet read, by its high watermark; ends when the partition is revoked.",
    ),
    gauge(
        LAG_SECONDS,
        &["topic", "partition"],
        Unit::Seconds,
        "Age of the next event of the partition to be committed, from its Kafka timestamp, in seconds; 0 if all are; ends when the partition is revoked.",
    ),
    // Stages: rate, errors, duration.
    counter(
        STAGE_EVENTS,
        &["topic", "stage"],
        "Events that came out of the stage: poll, decode, dedup, enrich, batch, encode, insert, dead_letter, commit.",
    ),
    counter(
        STAGE_ERRORS,
        &["topic", "stage", "reason"],
        "Errors of the stage by reason: a reason of dead letters, an error code of ClickHouse or Kafka, or connect, timeout, network, http, other.",
    ),
    histogram(
        STAGE_DURATION,
        &["topic", "stage"],
        Unit::Seconds,
        STAGE_SECONDS,
        "Time of the stage for one chunk (poll, which includes waiting for its first record, decode, dedup, enrich) or one batch (batch, encode, insert, dead_letter, commit), in seconds.",
    ),
    gauge(
        QUEUE_DEPTH,
        &["topic", "queue"],
        Unit::Count,
        "What waits: records in librdkafka, records in stash (for a schema), events in waiting (for a lookup), batches in inserts.",
    ),
    // Batches and inserts.
    counter(BATCHES, &["topic", "trigger"], "Batches closed, by trigger: rows, bytes, age, drain."),
    histogram(BATCH_ROWS, &["topic"], Unit::Count, ROWS, "Rows of a batch sent to ClickHouse."),
    counter(
        BATCHES_GIVEN_UP,
        &["topic", "reason"],
        "Batches whose events are read again, by reason: refused (claimed by another), unsettled (outcome unknown), drifted (table altered). No event of them is lost.",
    ),
    histogram(
        INSERT_DURATION,
        &["topic"],
        Unit::Seconds,
        INSERT_SECONDS,
        "Time from sending an insert to its acknowledgement, in seconds.",
    ),
    counter(INSERT_RETRIES, &["topic"], "Inserts sent again under the same token."),
    counter(
        INSERT_FAILURES,
        &["topic", "code"],
        "Attempts to insert that failed, by the error code of ClickHouse, or connect, timeout, network, http, other.",
    ),
    counter(
        FENCE_REFUSALS,
        &["topic"],
        "Inserts that ClickHouse refused because a claim was lost to another consumer.",
    ),
    gauge(INSERTS_IN_FLIGHT, &["topic"], Unit::Count, "Inserts under way."),
    // Targets: breakers and retries.
    gauge(
        BREAKER_STATE,
        &["target"],
        Unit::Count,
        "Circuit breaker of the target (clickhouse/<topic>, with a shard's number behind it if there are several, registry, dead_letters/<topic>, dead_letter_table/<topic>): 0 closed, 1 half open, 2 open.",
    ),
    counter(BREAKER_OPENINGS, &["target"], "Times that the circuit breaker of the target opened."),
    counter(
        TARGET_FAILURES,
        &["target"],
        "Attempts at the target that failed in a way that says it is in trouble, and are made again.",
    ),
    // Deduplication.
    gauge(DEDUP_IDS, &["topic"], Unit::Count, "Ids held by the deduplication index."),
    gauge(DEDUP_MAX_IDS, &["topic"], Unit::Count, "Most ids that it may hold: dedup.max_ids."),
    counter(
        DEDUP_EARLY_EXPIRATIONS,
        &["topic"],
        "Ids forgotten before the end of the deduplication window because max_ids was reached; duplicates of them would land.",
    ),
    // Partitions.
    counter(REBALANCES, &[], "Rebalances of the consumer group seen by this process."),
    gauge(PARTITIONS_ASSIGNED, &["topic"], Unit::Count, "Partitions assigned to this process."),
    gauge(
        PARTITIONS_RUNNING,
        &["topic"],
        Unit::Count,
        "Partitions that are read; fewer than assigned while some are taken over.",
    ),
    histogram(
        TAKE_OVER,
        &["topic"],
        Unit::Seconds,
        TAKE_OVER_SECONDS,
        "Time from the assignment of a partition until it is read: claim, quiet and load, in seconds.",
    ),
    histogram(
        FIRST_ROW,
        &["topic"],
        Unit::Seconds,
        FIRST_ROW_SECONDS,
        "Time from the assignment of a partition that had events waiting to its first batch in ClickHouse, in seconds.",
    ),
    counter(
        POSITIONS_LOST,
        &["topic", "cause"],
        "Partitions whose committed offset could not be used and that were read on from their oldest event, by cause: retention, recreated, expired.",
    ),
    gauge(
        TOPIC_STOPPED,
        &["topic", "reason"],
        Unit::Count,
        "1 if this process has stopped the topic until somebody decides, by reason: start, position_lost, shards_changed, dead_letters, table_altered, failed.",
    ),
    gauge(REFERENCE_ROWS, &["lookup"], Unit::Count, "Reference records held in memory for the lookup."),
    // What librdkafka says of the topic's consumer, once a second.
    gauge(KAFKA_FETCH_QUEUE_BYTES, &["topic"], Unit::Bytes, "Bytes that librdkafka has fetched ahead."),
    gauge(KAFKA_BROKERS_UP, &["topic"], Unit::Count, "Brokers to which there is a connection."),
    gauge(
        KAFKA_BROKER_RTT,
        &["topic", "broker", "quantile"],
        Unit::Seconds,
        "Round trip of requests to the broker over the last second, by quantile, in seconds; ends when there was no request.",
    ),
    counter(KAFKA_RECEIVED_BYTES, &["topic"], "Bytes received from brokers."),
    counter(KAFKA_SENT_BYTES, &["topic"], "Bytes sent to brokers."),
    counter(
        KAFKA_REQUEST_ERRORS,
        &["topic"],
        "Requests to brokers that could not be sent, or whose answers could not be received.",
    ),
    counter(KAFKA_REQUEST_TIMEOUTS, &["topic"], "Requests to brokers that timed out."),
    counter(KAFKA_REBALANCES, &["topic"], "Rebalances of this member of the group as librdkafka counts them."),
    gauge(KAFKA_REBALANCE_AGE, &["topic"], Unit::Seconds, "Time since the last of them, in seconds."),
    // Encryption.
    gauge(
        CERTIFICATE_EXPIRY,
        &["part", "file_kind"],
        Unit::Seconds,
        "Time until the first certificate in the file expires, negative once it has, by part (kafka.tls, kafka.sasl.oauth, registry, clickhouse) and file_kind (ca, client), in seconds.",
    ),
    // Traces, if any are sent.
    counter(SPANS_EXPORTED, &[], "Spans that the receiver of traces took."),
    counter(
        SPANS_DROPPED,
        &["reason"],
        "Spans that the receiver of traces did not get, by reason: queue_full, refused, closed.",
    ),
    // The process.
    gauge(BUILD_INFO, &["version", "commit"], Unit::Count, "Always 1; version and commit are labels."),
    gauge(RESIDENT_MEMORY, &[], Unit::Bytes, "Resident memory of this process, in bytes."),
    Metric {
        name: CPU_SECONDS,
        kind: Kind::Counter,
        labels: &[],
        unit: Unit::Seconds,
        help: "Processor time of this process, user and system, in seconds.",
    },
];

/// What is known of a metric.
pub fn metric(name: &str) -> Option<&'static Metric> {
    CATALOGUE.iter().find(|metric| metric.name == name)
}

#[cfg(test)]
mod tests;
