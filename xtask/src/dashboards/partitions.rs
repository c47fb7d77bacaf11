//! Partitions: who reads them, how far behind each is, and what rebalances cost; and the way to the brokers.

use super::model::{Dashboard, Row, curves, figure};

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        name: "millrace-partitions",
        title: "Millrace: partitions",
        description: "How far behind each partition is, who reads it, and the way to the brokers.",
        topics_of: Some("millrace_lag_events"),
        rows: vec![
            Row {
                title: "Lag",
                panels: vec![
                    figure("Events behind", "short", "Not yet read, of all partitions.")
                        .of("sum(millrace_lag_events{topic=~\"$topic\"})", "events"),
                    figure("Oldest of them", "s", "Age of the oldest event that is not committed.")
                        .of("max(millrace_lag_seconds{topic=~\"$topic\"})", "oldest")
                        .warn_at(10.0)
                        .alarm_at(60.0),
                    figure("Partitions read", "short", "Of all processes.")
                        .of("sum(millrace_partitions_running{topic=~\"$topic\"})", "partitions"),
                    figure("Being taken over", "short", "Assigned and not read yet.").of(
                        "sum(millrace_partitions_assigned{topic=~\"$topic\"} \
                         - millrace_partitions_running{topic=~\"$topic\"})",
                        "partitions",
                    ),
                    figure("Processes", "short", "That are scraped.")
                        .of("count(millrace_build_info)", "processes")
                        .wide(8),
                    curves(
                        "Events behind, by partition",
                        "short",
                        "All partitions; the curve of one that moves goes on under its new reader.",
                    )
                    .wide(12)
                    .of(
                        "sum by (topic, partition) (millrace_lag_events{topic=~\"$topic\"})",
                        "{{topic}} {{partition}}",
                    ),
                    curves("Oldest event, by partition", "s", "Age of the next event to be committed.")
                        .wide(12)
                        .of(
                            "max by (topic, partition) (millrace_lag_seconds{topic=~\"$topic\"})",
                            "{{topic}} {{partition}}",
                        )
                        .alarm_at(60.0),
                ],
            },
            Row {
                title: "Who reads",
                panels: vec![
                    curves("Partitions by process", "short", "Read now.").of(
                        "sum by (instance, topic) (millrace_partitions_running{topic=~\"$topic\"})",
                        "{{instance}} {{topic}}",
                    ),
                    curves(
                        "Rebalances",
                        "short",
                        "Within 5 minutes; more than a few without a deployment is a member that comes and goes.",
                    )
                    .of("sum by (instance) (increase(millrace_rebalances_total[5m]))", "{{instance}}"),
                    curves(
                        "Taking over",
                        "s",
                        "From assignment to reading, and to the first row, 99th percentile since the start.",
                    )
                    .of(
                        "histogram_quantile(0.99, sum by (le) (millrace_take_over_seconds_bucket{topic=~\"$topic\"}))",
                        "until it is read",
                    )
                    .of(
                        "histogram_quantile(0.99, sum by (le) (millrace_first_row_seconds_bucket{topic=~\"$topic\"})) \
                             or vector(0)",
                        "until its first row",
                    ),
                ],
            },
            Row {
                title: "Brokers",
                panels: vec![
                    curves("From and to brokers", "bytes", "Bytes per second.")
                        .of(
                            "sum(rate(millrace_kafka_received_bytes_total{topic=~\"$topic\"}[$__rate_interval]))",
                            "received",
                        )
                        .of("sum(rate(millrace_kafka_sent_bytes_total{topic=~\"$topic\"}[$__rate_interval]))", "sent"),
                    curves(
                        "Fetched ahead",
                        "bytes",
                        "Bytes that librdkafka holds; none while events wait means that the broker is slow.",
                    )
                    .of("sum by (topic) (millrace_kafka_fetch_queue_bytes{topic=~\"$topic\"})", "{{topic}}"),
                    curves(
                        "Round trips to brokers",
                        "s",
                        "By broker and quantile, over the last second; a fetch waits for records.",
                    )
                    .of(
                        "max by (broker, quantile) (millrace_kafka_broker_rtt_seconds{topic=~\"$topic\"})",
                        "{{broker}} {{quantile}}",
                    ),
                    curves("Brokers connected", "short", "By topic; each topic has a client of its own.")
                        .of("min by (topic) (millrace_kafka_brokers_up{topic=~\"$topic\"})", "{{topic}}"),
                    curves("Requests that failed", "cps", "Not sent, not answered, or timed out.")
                        .of(
                            "sum(rate(millrace_kafka_request_errors_total{topic=~\"$topic\"}[$__rate_interval]))",
                            "errors",
                        )
                        .of(
                            "sum(rate(millrace_kafka_request_timeouts_total{topic=~\"$topic\"}[$__rate_interval]))",
                            "timeouts",
                        ),
                    curves("Positions lost", "short", "Committed offsets that could not be used, within an hour.").of(
                        "sum by (topic, cause) (increase(millrace_positions_lost_total{topic=~\"$topic\"}[1h]) > 0 or (millrace_positions_lost_total{topic=~\"$topic\"} unless millrace_positions_lost_total{topic=~\"$topic\"} offset 1h) or 0 * millrace_positions_lost_total{topic=~\"$topic\"})",
                        "{{topic}} {{cause}}",
                    ),
                ],
            },
        ],
    }
}
