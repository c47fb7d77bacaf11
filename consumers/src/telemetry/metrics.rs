//! Every metric by name, and the recorder that renders them for Prometheus. It opens no port; what each of them means is in
//! [`super::catalogue`].
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units, `_total` on counters.

use anyhow::{Context, Result};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use millrace_pipeline::{batch::Trigger, reason::Reason};
pub use millrace_telemetry::traces::{DROPPED as SPANS_DROPPED, EXPORTED as SPANS_EXPORTED};

use super::{
    catalogue::{CATALOGUE, Kind, metric},
    process,
    readings::{Readings, Remembering},
    series::SERIES,
};
use crate::{build, config::Topic, run::stop::StopReason, takeover::Cause};

/// Counter by `topic`.
pub const EVENTS: &str = "millrace_events_total";
/// Counter by `topic`.
pub const PASSED_OVER: &str = "millrace_records_passed_over_total";
/// Counter by `topic`.
pub const ROWS_INSERTED: &str = "millrace_rows_inserted_total";
/// Counter by `topic`.
pub const DUPLICATES_DROPPED: &str = "millrace_duplicates_dropped_total";
/// Counter by `topic` and `reason`.
pub const DEAD_LETTERS: &str = "millrace_dead_letters_total";
/// Gauge by `topic`.
pub const DEAD_LETTER_SHARE: &str = "millrace_dead_letter_share";
/// Counter by `topic` and `lookup`.
pub const LOOKUP_MISSES: &str = "millrace_lookup_misses_total";
/// Histogram by `topic`.
pub const FRESHNESS: &str = "millrace_freshness_seconds";
/// Histogram by `topic`.
pub const PROBE_FRESHNESS: &str = "millrace_probe_freshness_seconds";
/// Gauge by `topic`.
pub const PROBE_PENDING: &str = "millrace_probe_pending_seconds";
/// Counter by `topic` and `outcome`.
pub const PROBES: &str = "millrace_probes_total";
/// Gauge by `topic` and `partition`, in [`super::series`].
pub const LAG: &str = "millrace_lag_events";
/// Gauge by `topic` and `partition`, in [`super::series`].
pub const LAG_SECONDS: &str = "millrace_lag_seconds";
/// Counter by `topic` and `stage`.
pub const STAGE_EVENTS: &str = "millrace_stage_events_total";
/// Counter by `topic`, `stage` and `reason`.
pub const STAGE_ERRORS: &str = "millrace_stage_errors_total";
/// Histogram by `topic` and `stage`.
pub const STAGE_DURATION: &str = "millrace_stage_duration_seconds";
/// Gauge by `topic` and `queue`.
pub const QUEUE_DEPTH: &str = "millrace_queue_depth";
/// Counter by `topic` and `trigger`.
pub const BATCHES: &str = "millrace_batches_total";
/// Histogram by `topic`.
pub const BATCH_ROWS: &str = "millrace_batch_rows";
/// Counter by `topic` and `reason`.
pub const BATCHES_GIVEN_UP: &str = "millrace_batches_given_up_total";
/// Histogram by `topic`.
pub const INSERT_DURATION: &str = "millrace_insert_duration_seconds";
/// Counter by `topic`.
pub const INSERT_RETRIES: &str = "millrace_insert_retries_total";
/// Counter by `topic` and `code`.
pub const INSERT_FAILURES: &str = "millrace_insert_failures_total";
/// Counter by `topic`.
pub const FENCE_REFUSALS: &str = "millrace_fence_refusals_total";
/// Gauge by `topic`.
pub const INSERTS_IN_FLIGHT: &str = "millrace_inserts_in_flight";
/// Gauge by `target`.
pub const BREAKER_STATE: &str = "millrace_breaker_state";
/// Counter by `target`.
pub const BREAKER_OPENINGS: &str = "millrace_breaker_openings_total";
/// Counter by `target`.
pub const TARGET_FAILURES: &str = "millrace_target_failures_total";
/// Gauge by `topic`.
pub const DEDUP_IDS: &str = "millrace_dedup_ids";
/// Gauge by `topic`.
pub const DEDUP_MAX_IDS: &str = "millrace_dedup_max_ids";
/// Counter by `topic`.
pub const DEDUP_EARLY_EXPIRATIONS: &str = "millrace_dedup_early_expirations_total";
/// Counter.
pub const REBALANCES: &str = "millrace_rebalances_total";
/// Gauge by `topic`.
pub const PARTITIONS_ASSIGNED: &str = "millrace_partitions_assigned";
/// Gauge by `topic`.
pub const PARTITIONS_RUNNING: &str = "millrace_partitions_running";
/// Histogram by `topic`.
pub const TAKE_OVER: &str = "millrace_take_over_seconds";
/// Histogram by `topic`.
pub const FIRST_ROW: &str = "millrace_first_row_seconds";
/// Counter by `topic` and `cause`.
pub const POSITIONS_LOST: &str = "millrace_positions_lost_total";
/// Gauge by `topic` and `reason`.
pub const TOPIC_STOPPED: &str = "millrace_topic_stopped";
/// Gauge by `lookup`.
pub const REFERENCE_ROWS: &str = "millrace_reference_rows";
/// Gauge by `topic`.
pub const KAFKA_FETCH_QUEUE_BYTES: &str = "millrace_kafka_fetch_queue_bytes";
/// Gauge by `topic`.
pub const KAFKA_BROKERS_UP: &str = "millrace_kafka_brokers_up";
/// Gauge by `topic`, `broker` and `quantile`, in [`super::series`].
pub const KAFKA_BROKER_RTT: &str = "millrace_kafka_broker_rtt_seconds";
/// Counter by `topic`.
pub const KAFKA_RECEIVED_BYTES: &str = "millrace_kafka_received_bytes_total";
/// Counter by `topic`.
pub const KAFKA_SENT_BYTES: &str = "millrace_kafka_sent_bytes_total";
/// Counter by `topic`.
pub const KAFKA_REQUEST_ERRORS: &str = "millrace_kafka_request_errors_total";
/// Counter by `topic`.
pub const KAFKA_REQUEST_TIMEOUTS: &str = "millrace_kafka_request_timeouts_total";
/// Counter by `topic`.
pub const KAFKA_REBALANCES: &str = "millrace_kafka_rebalances_total";
/// Gauge by `topic`.
pub const KAFKA_REBALANCE_AGE: &str = "millrace_kafka_rebalance_age_seconds";
/// Gauge by `version` and `commit`, always 1.
pub const BUILD_INFO: &str = "millrace_build_info";
/// Gauge.
pub const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
/// Counter.
pub const CPU_SECONDS: &str = "process_cpu_seconds_total";
/// Gauge by `part` and `file_kind`.
pub const CERTIFICATE_EXPIRY: &str = "millrace_certificate_expiry_seconds";

/// Renders all metrics in the text format of Prometheus.
#[derive(Clone)]
pub struct Rendering(PrometheusHandle, Readings);

impl Rendering {
    /// The text format, with this process's memory and time as of now.
    pub fn render(&self) -> String {
        if let Some(bytes) = process::resident_bytes() {
            gauge!(RESIDENT_MEMORY).set(bytes as f64);
        }
        let mut text = self.0.render();
        // Seconds are a fraction, and a counter of this recorder is a whole number; so it is written out by hand.
        if let Some(seconds) = process::cpu_seconds() {
            let help = metric(CPU_SECONDS).map_or("", |metric| metric.help);
            text.push_str(&format!(
                "# HELP {CPU_SECONDS} {help}\n# TYPE {CPU_SECONDS} counter\n{CPU_SECONDS} {seconds}\n"
            ));
        }
        SERIES.render(&mut text);
        text
    }

    /// The few of them that can be read back.
    pub fn readings(&self) -> &Readings {
        &self.1
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
    let rendering = Rendering(recorder.handle(), Readings::default());
    let recorder = Remembering { readings: rendering.readings().clone(), next: recorder };
    metrics::set_global_recorder(recorder).context("set up metrics")?;
    describe();
    Ok(rendering)
}

fn recorder() -> Result<PrometheusRecorder> {
    let mut builder = PrometheusBuilder::new();
    for metric in CATALOGUE {
        if let Kind::Histogram(buckets) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    Ok(builder.build_recorder())
}

fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.unit, metric.help),
        }
    }
    gauge!(BUILD_INFO, "version" => build::VERSION, "commit" => build::COMMIT).set(1.0);
}

/// Makes the series of these topics appear as 0 from the start, so that a rate sees their first increase.
pub fn start_at_zero(topics: &[Topic]) {
    counter!(REBALANCES).absolute(0);
    for topic in topics {
        let name = &topic.label();
        for counter in
            [EVENTS, ROWS_INSERTED, DUPLICATES_DROPPED, INSERT_RETRIES, FENCE_REFUSALS, DEDUP_EARLY_EXPIRATIONS]
        {
            counter!(counter, "topic" => name.clone()).absolute(0);
        }
        for cause in Cause::ALL {
            counter!(POSITIONS_LOST, "topic" => name.clone(), "cause" => cause.code()).absolute(0);
        }
        for reason in Reason::ALL {
            counter!(DEAD_LETTERS, "topic" => name.clone(), "reason" => reason.code()).absolute(0);
        }
        for trigger in [Trigger::Rows, Trigger::Bytes, Trigger::Age, Trigger::Drain] {
            counter!(BATCHES, "topic" => name.clone(), "trigger" => trigger.code()).absolute(0);
        }
        for reason in ["refused", "unsettled", "drifted"] {
            counter!(BATCHES_GIVEN_UP, "topic" => name.clone(), "reason" => reason).absolute(0);
        }
        for outcome in ["visible", "given_up"] {
            counter!(PROBES, "topic" => name.clone(), "outcome" => outcome).absolute(0);
        }
        for reason in StopReason::ALL {
            gauge!(TOPIC_STOPPED, "topic" => name.clone(), "reason" => reason.code()).set(0.0);
        }
        // A process that waits for a server before it reads anything has to be told from one that is not there.
        for gauge in [PARTITIONS_ASSIGNED, PARTITIONS_RUNNING] {
            gauge!(gauge, "topic" => name.clone()).set(0.0);
        }
        for lookup in &topic.spec.lookups {
            counter!(LOOKUP_MISSES, "topic" => name.clone(), "lookup" => lookup.name.clone()).absolute(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::catalogue::Metric, *};

    #[test]
    fn every_metric_is_rendered_with_help_type_and_its_own_buckets() {
        let recorder = recorder().unwrap();
        let rendering = Rendering(recorder.handle(), Readings::default());
        let text = metrics::with_local_recorder(&recorder, || {
            describe();
            for metric in CATALOGUE.iter().filter(|metric| metric.name != CPU_SECONDS) {
                match metric.kind {
                    Kind::Counter => counter!(metric.name, "topic" => "orders").increment(1),
                    Kind::Gauge => gauge!(metric.name).set(1.0),
                    Kind::Histogram(_) => metrics::histogram!(metric.name).record(0.7),
                }
            }
            rendering.render()
        });
        for Metric { name, kind, help, .. } in CATALOGUE {
            assert!(text.contains(&format!("# HELP {name} {help}")), "{name} in {text}");
            assert!(text.contains(&format!("# TYPE {name} {}", kind.word())), "{name} in {text}");
            if let Kind::Histogram(buckets) = kind {
                let lines = text.lines().filter(|line| line.starts_with(&format!("{name}_bucket")));
                assert_eq!(lines.count(), buckets.len() + 1, "{name} in {text}");
            }
        }
        assert!(text.contains("millrace_events_total{topic=\"orders\"} 1"), "{text}");
        assert!(text.contains("millrace_freshness_seconds_bucket{le=\"0.72\"} 1"), "{text}");
    }
}
