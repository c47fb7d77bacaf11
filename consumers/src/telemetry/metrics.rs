//! Every metric by name, with its help and buckets, and the recorder that renders them for Prometheus. It opens no port.
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units, `_total` on counters.

use anyhow::{Context, Result};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::process;
use crate::{config::Topic, takeover::Cause};

/// Counter by `topic`.
pub const EVENTS: &str = "millrace_events_total";
/// Counter by `topic`.
pub const ROWS_INSERTED: &str = "millrace_rows_inserted_total";
/// Counter by `topic`.
pub const DUPLICATES_DROPPED: &str = "millrace_duplicates_dropped_total";
/// Counter by `topic` and `reason`.
pub const DEAD_LETTERS: &str = "millrace_dead_letters_total";
/// Counter by `topic` and `lookup`.
pub const LOOKUP_MISSES: &str = "millrace_lookup_misses_total";
/// Counter by `topic`.
pub const INSERT_RETRIES: &str = "millrace_insert_retries_total";
/// Counter by `topic`.
pub const FENCE_REFUSALS: &str = "millrace_fence_refusals_total";
/// Counter.
pub const REBALANCES: &str = "millrace_rebalances_total";
/// Counter by `topic`.
pub const DEDUP_EARLY_EXPIRATIONS: &str = "millrace_dedup_early_expirations_total";
/// Counter by `topic` and `cause`.
pub const POSITIONS_LOST: &str = "millrace_positions_lost_total";
/// Counter by `topic` and `code`.
pub const INSERT_FAILURES: &str = "millrace_insert_failures_total";
/// Histogram by `topic`.
pub const FRESHNESS: &str = "millrace_freshness_seconds";
/// Histogram by `topic`.
pub const INSERT_DURATION: &str = "millrace_insert_duration_seconds";
/// Histogram by `topic`.
pub const BATCH_ROWS: &str = "millrace_batch_rows";
/// Histogram by `topic`.
pub const TAKE_OVER: &str = "millrace_take_over_seconds";
/// Histogram by `topic`.
pub const FIRST_ROW: &str = "millrace_first_row_seconds";
/// Gauge by `topic` and `partition`.
pub const LAG: &str = "millrace_lag_events";
/// Gauge by `topic`.
pub const DEDUP_IDS: &str = "millrace_dedup_ids";
/// Gauge by `topic`.
pub const INSERTS_IN_FLIGHT: &str = "millrace_inserts_in_flight";
/// Gauge by `target`.
pub const BREAKER_STATE: &str = "millrace_breaker_state";
/// Gauge by `topic`.
pub const PARTITIONS_ASSIGNED: &str = "millrace_partitions_assigned";
/// Gauge by `lookup`.
pub const REFERENCE_ROWS: &str = "millrace_reference_rows";
/// Gauge by `version`, always 1.
pub const BUILD_INFO: &str = "millrace_build_info";
const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
const CPU_SECONDS: &str = "process_cpu_seconds_total";

/// (name, unit, help).
const COUNTERS: &[(&str, Unit, &str)] = &[
    (EVENTS, Unit::Count, "Events read from Kafka."),
    (ROWS_INSERTED, Unit::Count, "Rows that ClickHouse acknowledged."),
    (DUPLICATES_DROPPED, Unit::Count, "Events dropped because a row with their id is in the table or on its way."),
    (DEAD_LETTERS, Unit::Count, "Events written to the dead-letter topic and acknowledged there, by reason."),
    (LOOKUP_MISSES, Unit::Count, "Lookups in reference topics that found nothing."),
    (INSERT_RETRIES, Unit::Count, "Inserts sent again under the same token."),
    (FENCE_REFUSALS, Unit::Count, "Inserts that ClickHouse refused because a claim was lost to another consumer."),
    (REBALANCES, Unit::Count, "Rebalances of the consumer group seen by this process."),
    (
        DEDUP_EARLY_EXPIRATIONS,
        Unit::Count,
        "Ids forgotten before the end of the deduplication window because max_ids was reached; duplicates of them would land.",
    ),
    (
        POSITIONS_LOST,
        Unit::Count,
        "Partitions whose committed offset could not be used and that were read on from their oldest event, by cause: retention, recreated, expired.",
    ),
    (
        INSERT_FAILURES,
        Unit::Count,
        "Attempts to insert that failed, by the error code of ClickHouse, or connect, timeout, network, http, other.",
    ),
    (CPU_SECONDS, Unit::Seconds, "Processor time of this process, user and system, in seconds."),
];

const GAUGES: &[(&str, Unit, &str)] = &[
    (LAG, Unit::Count, "Events of the partition not yet read, by its high watermark."),
    (DEDUP_IDS, Unit::Count, "Ids held by the deduplication index."),
    (INSERTS_IN_FLIGHT, Unit::Count, "Inserts under way."),
    (BREAKER_STATE, Unit::Count, "Circuit breaker of the target: 0 closed, 1 half open, 2 open."),
    (PARTITIONS_ASSIGNED, Unit::Count, "Partitions assigned to this process."),
    (REFERENCE_ROWS, Unit::Count, "Reference records held in memory for the lookup."),
    (BUILD_INFO, Unit::Count, "Always 1; the version is a label."),
    (RESIDENT_MEMORY, Unit::Bytes, "Resident memory of this process, in bytes."),
];

/// (name, unit, buckets, help).
const HISTOGRAMS: &[(&str, Unit, &[f64], &str)] = &[
    (
        FRESHNESS,
        Unit::Seconds,
        &[
            0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0,
            2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0,
        ],
        "Age of an event when its row is acknowledged, from its Kafka timestamp, in seconds.",
    ),
    (
        INSERT_DURATION,
        Unit::Seconds,
        &[
            0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0,
            60.0,
        ],
        "Time from sending an insert to its acknowledgement or failure, in seconds.",
    ),
    (
        BATCH_ROWS,
        Unit::Count,
        &[
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
        ],
        "Rows of a batch sent to ClickHouse.",
    ),
    (
        TAKE_OVER,
        Unit::Seconds,
        &[0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0],
        "Time from the assignment of a partition until it is read: claim, quiet and load, in seconds.",
    ),
    (
        FIRST_ROW,
        Unit::Seconds,
        &[0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0],
        "Time from the assignment of a partition that had events waiting to its first batch in ClickHouse, in seconds.",
    ),
];

/// Renders all metrics in the text format of Prometheus.
#[derive(Clone)]
pub struct Rendering(PrometheusHandle);

impl Rendering {
    /// The text format, with this process's memory and time as of now.
    pub fn render(&self) -> String {
        if let Some(bytes) = process::resident_bytes() {
            gauge!(RESIDENT_MEMORY).set(bytes as f64);
        }
        let mut text = self.0.render();
        // Seconds are a fraction, and a counter of this recorder is a whole number; so it is written out by hand.
        if let Some(seconds) = process::cpu_seconds() {
            let help = COUNTERS.iter().find(|(name, ..)| *name == CPU_SECONDS).map_or("", |(_, _, help)| help);
            text.push_str(&format!(
                "# HELP {CPU_SECONDS} {help}\n# TYPE {CPU_SECONDS} counter\n{CPU_SECONDS} {seconds}\n"
            ));
        }
        text
    }

    /// Folds histogram samples that came since the last rendering; to be called every few seconds, so that memory
    /// stays bounded when nobody scrapes.
    pub fn fold(&self) {
        self.0.run_upkeep();
    }
}

/// Makes this process's recorder, once, and describes every metric.
///
/// # Errors
/// Somebody has installed a recorder before.
pub fn install() -> Result<Rendering> {
    let recorder = recorder()?;
    let rendering = Rendering(recorder.handle());
    metrics::set_global_recorder(recorder).context("set up metrics")?;
    describe();
    Ok(rendering)
}

fn recorder() -> Result<PrometheusRecorder> {
    let mut builder = PrometheusBuilder::new();
    for (name, _, buckets, _) in HISTOGRAMS {
        builder = builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), buckets)?;
    }
    Ok(builder.build_recorder())
}

fn describe() {
    for (name, unit, help) in COUNTERS {
        describe_counter!(*name, *unit, *help);
    }
    for (name, unit, help) in GAUGES {
        describe_gauge!(*name, *unit, *help);
    }
    for (name, unit, _, help) in HISTOGRAMS {
        describe_histogram!(*name, *unit, *help);
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}

/// Makes the series of these topics appear as 0 from the start, so that a rate sees their first increase.
pub fn start_at_zero(topics: &[Topic]) {
    counter!(REBALANCES).absolute(0);
    for topic in topics {
        let name = &topic.spec.topic;
        for counter in
            [EVENTS, ROWS_INSERTED, DUPLICATES_DROPPED, INSERT_RETRIES, FENCE_REFUSALS, DEDUP_EARLY_EXPIRATIONS]
        {
            counter!(counter, "topic" => name.clone()).absolute(0);
        }
        for cause in Cause::ALL {
            counter!(POSITIONS_LOST, "topic" => name.clone(), "cause" => cause.code()).absolute(0);
        }
        for lookup in &topic.spec.lookups {
            counter!(LOOKUP_MISSES, "topic" => name.clone(), "lookup" => lookup.name.clone()).absolute(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_rendered_with_help_type_and_its_own_buckets() {
        let recorder = recorder().unwrap();
        let rendering = Rendering(recorder.handle());
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            for (name, ..) in COUNTERS.iter().filter(|(name, ..)| *name != CPU_SECONDS) {
                counter!(*name, "topic" => "orders").increment(1);
            }
            for (name, ..) in GAUGES {
                gauge!(*name).set(1.0);
            }
            for (name, ..) in HISTOGRAMS {
                metrics::histogram!(*name).record(0.7);
            }
            rendering.render()
        });
        for (name, _, help) in COUNTERS.iter().chain(GAUGES) {
            assert!(text.contains(&format!("# HELP {name} {help}")), "{name} in {text}");
        }
        for (name, _, buckets, _) in HISTOGRAMS {
            assert!(text.contains(&format!("# TYPE {name} histogram")), "{name} in {text}");
            let lines = text.lines().filter(|line| line.starts_with(&format!("{name}_bucket")));
            assert_eq!(lines.count(), buckets.len() + 1, "{name} in {text}");
        }
        assert!(text.contains("millrace_events_total{topic=\"orders\"} 1"), "{text}");
        assert!(text.contains("millrace_freshness_seconds_bucket{le=\"0.75\"} 1"), "{text}");
    }

    #[test]
    fn names_follow_the_conventions() {
        for (name, ..) in COUNTERS {
            assert!(name.ends_with("_total"), "{name}");
        }
        for (name, ..) in GAUGES {
            assert!(!name.ends_with("_total"), "{name}");
        }
        for (name, unit, buckets, _) in HISTOGRAMS {
            assert_eq!(*unit == Unit::Seconds, name.ends_with("_seconds"), "{name}");
            assert!(buckets.is_sorted(), "{name}");
        }
    }
}
