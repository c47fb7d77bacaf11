//! The pipeline at a glance: do events arrive, how fresh are they, and what stands in their way; then rate, errors and
//! duration of every stage.

use super::model::{Dashboard, Row, curves, figure};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "millrace-overview",
        title: "Millrace: pipeline",
        description: "Whether events arrive, how fresh they are, and where they are held up.",
        topics_of: Some("millrace_events_total"),
        rows: vec![ten_seconds(), rate(), errors(), duration(), saturation()],
    }
}

fn ten_seconds() -> Row {
    Row {
        title: "In ten seconds",
        panels: vec![
            figure("Rows per second", "cps", "Rows that ClickHouse acknowledged. 0 while events wait is an outage.")
                .of("sum(rate(millrace_rows_inserted_total{topic=~\"$topic\"}[$__rate_interval]))", "rows"),
            figure("Freshness, 99 %", "s", "Kafka timestamp until ClickHouse has the row, 99th percentile; objective 0.5 s.")
                .of(
                    "histogram_quantile(0.99, sum by (le) \
                     (rate(millrace_freshness_seconds_bucket{topic=~\"$topic\"}[$__rate_interval])))",
                    "p99",
                )
                .warn_at(0.5)
                .alarm_at(60.0),
            figure("Oldest event waiting", "s", "Age of the oldest event that is not committed; 0 if none waits.")
                .of("max(millrace_lag_seconds{topic=~\"$topic\"})", "oldest")
                .warn_at(10.0)
                .alarm_at(60.0),
            figure("Unreadable", "percentunit", "Share of events that became dead letters, last 10 minutes.")
                .of(
                    "sum(rate(millrace_dead_letters_total{topic=~\"$topic\"}[10m])) \
                     / (sum(rate(millrace_events_total{topic=~\"$topic\"}[10m])) > 0) or vector(0)",
                    "dead letters",
                )
                .warn_at(0.001)
                .alarm_at(0.01),
            figure("Breakers not closed", "short", "Servers that do not answer well: ClickHouse, registry, dead letters.")
                .of("count(max by (target) (millrace_breaker_state) > 0) or vector(0)", "breakers")
                .alarm_at(1.0),
            figure(
                "Budget burnt, 1 h",
                "short",
                "How many times faster than the objective of 99.99 % allows events fail (unreadable, or later than 60 s); \
                 1 uses the month's budget up in a month.",
            )
            .of(
                "max(topic:millrace_slo_bad:increase1h{topic=~\"$topic\"} \
                 / (topic:millrace_slo_events:increase1h{topic=~\"$topic\"} > 0)) / 0.0001 or vector(0)",
                "times",
            )
            .warn_at(1.0)
            .alarm_at(14.4),
        ],
    }
}

fn rate() -> Row {
    Row {
        title: "Rate",
        panels: vec![
            curves("Events by what became of them", "cps", "Read is the sum of the others, but for what is under way.")
                .of("sum(rate(millrace_events_total{topic=~\"$topic\"}[$__rate_interval]))", "read")
                .of("sum(rate(millrace_rows_inserted_total{topic=~\"$topic\"}[$__rate_interval]))", "rows")
                .of("sum(rate(millrace_duplicates_dropped_total{topic=~\"$topic\"}[$__rate_interval]))", "duplicates")
                .of("sum(rate(millrace_dead_letters_total{topic=~\"$topic\"}[$__rate_interval]))", "dead letters"),
            curves("Rows by topic", "cps", "Rows that ClickHouse acknowledged.").of(
                "sum by (topic) (rate(millrace_rows_inserted_total{topic=~\"$topic\"}[$__rate_interval]))",
                "{{topic}}",
            ),
            curves("Batches by trigger", "cps", "Why batches are closed: rows or bytes under load, age otherwise.").of(
                "sum by (trigger) (rate(millrace_batches_total{topic=~\"$topic\"}[$__rate_interval]))",
                "{{trigger}}",
            ),
        ],
    }
}

fn errors() -> Row {
    Row {
        title: "Errors",
        panels: vec![
            curves("Dead letters by reason", "short", "Within 5 minutes; docs/dead-letters.md explains the reasons.").of(
                "sum by (reason) (increase(millrace_dead_letters_total{topic=~\"$topic\"}[5m])) > 0 \
                 or on () label_replace(vector(0), \"reason\", \"none\", \"\", \"\")",
                "{{reason}}",
            ),
            curves("Errors of other stages", "cps", "By stage and reason; what is tried again is counted as well. Those of decode are dead letters.").of(
                "sum by (stage, reason) (rate(millrace_stage_errors_total{topic=~\"$topic\",stage!=\"decode\"}[$__rate_interval])) \
                 or on () label_replace(label_replace(vector(0), \"stage\", \"none\", \"\", \"\"), \"reason\", \"\", \"\", \"\")",
                "{{stage}} {{reason}}",
            ),
            curves("Inserts tried again or refused", "cps", "Repetitions under the same token, and refusals by the fence.")
                .of("sum(rate(millrace_insert_retries_total{topic=~\"$topic\"}[$__rate_interval]))", "tried again")
                .of("sum(rate(millrace_fence_refusals_total{topic=~\"$topic\"}[$__rate_interval]))", "refused by the fence")
                .of(
                    "sum(rate(millrace_batches_given_up_total{topic=~\"$topic\"}[$__rate_interval])) or vector(0)",
                    "batches read again",
                ),
            curves("Circuit breakers", "short", "0 closed, 1 half open, 2 open.")
                .of("max by (target) (millrace_breaker_state)", "{{target}}")
                .alarm_at(2.0),
            curves("Topics stopped", "short", "1 while a topic is stopped until somebody decides.")
                .of("max by (topic) (millrace_topic_stopped{topic=~\"$topic\"})", "{{topic}}")
                .alarm_at(1.0),
            curves("Lookups that found nothing", "cps", "Misses in reference topics.").of(
                "sum by (lookup) (rate(millrace_lookup_misses_total{topic=~\"$topic\"}[$__rate_interval]))",
                "{{lookup}}",
            ),
        ],
    }
}

fn duration() -> Row {
    let freshness = |quantile: &str, metric: &str| {
        format!(
            "histogram_quantile({quantile}, sum by (le) (rate({metric}_bucket{{topic=~\"$topic\"}}[$__rate_interval])))"
        )
    };
    Row {
        title: "Duration",
        panels: vec![
            curves("Freshness", "s", "Kafka timestamp until ClickHouse acknowledged the row.")
                .of(&freshness("0.5", "millrace_freshness_seconds"), "p50")
                .of(&freshness("0.99", "millrace_freshness_seconds"), "p99")
                .warn_at(0.5),
            curves("Freshness as a reader sees it", "s", "Kafka timestamp until a SELECT found the row, by the probe.")
                .of(
                    "histogram_quantile(0.5, sum by (le) \
                     (rate(millrace_probe_freshness_seconds_bucket{topic=~\"$topic\"}[5m])))",
                    "p50",
                )
                .of(
                    "histogram_quantile(0.99, sum by (le) \
                     (rate(millrace_probe_freshness_seconds_bucket{topic=~\"$topic\"}[5m])))",
                    "p99",
                )
                .of("max(millrace_probe_pending_seconds{topic=~\"$topic\"})", "waiting for")
                .warn_at(0.5),
            curves("Inserts", "s", "From sending an insert to its acknowledgement.")
                .of(&freshness("0.5", "millrace_insert_duration_seconds"), "p50")
                .of(&freshness("0.99", "millrace_insert_duration_seconds"), "p99"),
            curves("Stages that compute, share of time", "percentunit", "At 100 % together the topic's thread is the limit.").of(
                "sum by (stage) (rate(millrace_stage_duration_seconds_sum{topic=~\"$topic\",stage=~\"decode|dedup|enrich|batch|encode\"}[$__rate_interval]))",
                "{{stage}}",
            ),
            curves("Stages that compute, per event", "s", "Mean time of an event in each stage.").of(
                "sum by (stage) (rate(millrace_stage_duration_seconds_sum{topic=~\"$topic\",stage=~\"decode|dedup|enrich|batch|encode\"}[$__rate_interval])) \
                 / sum by (stage) (rate(millrace_stage_events_total{topic=~\"$topic\"}[$__rate_interval]))",
                "{{stage}}",
            ),
            curves("Stages that wait, 99 %", "s", "Commits and dead letters, each for one batch; inserts are above.").of(
                "histogram_quantile(0.99, sum by (stage, le) (rate(millrace_stage_duration_seconds_bucket{topic=~\"$topic\",stage=~\"commit|dead_letter\"}[$__rate_interval]))) >= 0 \
                 or on () label_replace(vector(0), \"stage\", \"none\", \"\", \"\")",
                "{{stage}}",
            ),
        ],
    }
}

fn saturation() -> Row {
    Row {
        title: "Saturation",
        panels: vec![
            curves("What waits", "short", "Records in librdkafka and in the stash, events for a lookup, batches to insert.")
                .of("sum by (queue) (millrace_queue_depth{topic=~\"$topic\"})", "{{queue}}"),
            curves("Deduplication index, filled", "percentunit", "At 1 ids are forgotten early.")
                .of(
                    "max by (topic) (millrace_dedup_ids{topic=~\"$topic\"} / millrace_dedup_max_ids{topic=~\"$topic\"})",
                    "{{topic}}",
                )
                .warn_at(0.9),
            curves("Duplicates", "percentunit", "Share of events that were dropped as duplicates: intended, never a loss.").of(
                "sum by (topic) (rate(millrace_duplicates_dropped_total{topic=~\"$topic\"}[$__rate_interval])) \
                 / (sum by (topic) (rate(millrace_events_total{topic=~\"$topic\"}[$__rate_interval])) > 0) \
                     or 0 * sum by (topic) (millrace_events_total{topic=~\"$topic\"})",
                "{{topic}}",
            ),
            curves("Memory", "bytes", "Resident memory of each process.").of(
                "process_resident_memory_bytes and on (instance) millrace_build_info",
                "{{instance}}",
            ),
            curves("Processors", "short", "Cores that each process uses.").of(
                "rate(process_cpu_seconds_total[$__rate_interval]) and on (instance) millrace_build_info",
                "{{instance}}",
            ),
            curves("Rows of a batch", "short", "Half of the batches have at most so many.").of(
                "histogram_quantile(0.5, sum by (le) (rate(millrace_batch_rows_bucket{topic=~\"$topic\"}[$__rate_interval])))",
                "p50",
            ),
        ],
    }
}
