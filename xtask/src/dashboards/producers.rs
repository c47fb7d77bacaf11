//! Producers: services that embed `EventPublisher` and serve its metrics; and what Millrace sees come.

use super::model::{Dashboard, Row, curves, figure};

pub(super) fn dashboard() -> Dashboard {
    let latency = |quantile: &str| {
        format!(
            "histogram_quantile({quantile}, sum by (le) \
             (rate(millrace_producer_delivery_latency_seconds_bucket{{topic=~\"$topic\"}}[$__rate_interval])))"
        )
    };
    Dashboard {
        name: "millrace-producers",
        title: "Millrace: producers",
        description: "What services publish by EventPublisher, and what of it is read.",
        topics_of: Some("millrace_producer_events_delivered_total"),
        rows: vec![Row {
            title: "Publishing",
            panels: vec![
                figure("Acknowledged per second", "cps", "By all in-sync replicas.")
                    .wide(6)
                    .of("sum(rate(millrace_producer_events_delivered_total{topic=~\"$topic\"}[$__rate_interval]))", "events"),
                figure("Given up, 5 minutes", "short", "Told to the sender as errors.")
                    .wide(6)
                    .of("sum(increase(millrace_producer_events_failed_total{topic=~\"$topic\"}[5m]))", "events")
                    .alarm_at(1.0),
                figure("Until acknowledged, 99 %", "s", "Linger and retries included.").wide(6).of(&latency("0.99"), "p99"),
                figure("Publishers", "short", "Processes that are scraped.")
                    .wide(6)
                    .of("count(count by (instance) (millrace_producer_events_delivered_total{topic=~\"$topic\"}))", "publishers"),
                curves("Published and read", "cps", "Read is what Millrace takes from Kafka, dead letters and all.")
                    .of(
                        "sum by (topic) (rate(millrace_producer_events_delivered_total{topic=~\"$topic\"}[$__rate_interval]))",
                        "{{topic}} published",
                    )
                    .of("sum by (topic) (rate(millrace_events_total[$__rate_interval]))", "{{topic}} read"),
                curves("Until acknowledged", "s", "From handing an event over until its acknowledgement.")
                    .of(&latency("0.5"), "p50")
                    .of(&latency("0.99"), "p99"),
                curves("Under way", "short", "Handed to the client and not answered; a full queue makes callers wait.")
                    .of("sum by (topic) (millrace_producer_events_in_flight{topic=~\"$topic\"})", "{{topic}}"),
                curves("Given up, by cause", "cps", "Sending them again is safe.")
                    .wide(24)
                    .of(
                        "sum by (cause) (rate(millrace_producer_events_failed_total{topic=~\"$topic\"}[$__rate_interval]))",
                        "{{cause}}",
                    ),
            ],
        }],
    }
}
