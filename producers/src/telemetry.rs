//! Metrics of a publisher, through the `metrics` facade: free when the service installs no recorder.

use metrics::{Counter, Gauge, Histogram, Unit, counter, gauge, histogram};

use crate::Cause;
use crate::delivery::Timing;

const DELIVERED: &str = "millrace_producer_events_delivered_total";
const FAILED: &str = "millrace_producer_events_failed_total";
/// Histogram by `topic`: time from handing an event to the client until its acknowledgement. A recorder has to be told its
/// buckets, [`DELIVERY_LATENCY_BUCKETS`], before a publisher connects.
pub const DELIVERY_LATENCY: &str = "millrace_producer_delivery_latency_seconds";
/// Upper edges of the buckets, in seconds, that the shipped dashboard can read percentiles from.
pub const DELIVERY_LATENCY_BUCKETS: &[f64] = &[
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0,
    5.0, 10.0, 30.0, 60.0, 120.0,
];
const IN_FLIGHT: &str = "millrace_producer_events_in_flight";

/// Tells the installed recorder the help texts and units. Called by every publisher that connects; once is enough.
pub fn describe_metrics() {
    metrics::describe_counter!(DELIVERED, Unit::Count, "Events that all in-sync replicas have acknowledged");
    metrics::describe_counter!(
        FAILED,
        Unit::Count,
        "Events that were given up, by cause; those with cause timed_out or fatal may have been written all the same"
    );
    metrics::describe_histogram!(
        DELIVERY_LATENCY,
        Unit::Seconds,
        "Time from handing an event to the client until its acknowledgement, linger and retries included"
    );
    metrics::describe_gauge!(IN_FLIGHT, Unit::Count, "Events handed to the client and not yet answered");
}

/// Handles, looked up once because a look-up by name costs more than encoding an event.
pub(crate) struct Telemetry {
    topic: String,
    delivered: Counter,
    latency: Histogram,
    in_flight: Gauge,
}

impl Telemetry {
    pub(crate) fn new(topic: &str) -> Self {
        describe_metrics();
        let topic = topic.to_owned();
        // Series that are there as 0 from the start, so that a rate sees their first increase.
        for cause in Cause::CODES {
            counter!(FAILED, "topic" => topic.clone(), "cause" => cause).increment(0);
        }
        Self {
            delivered: counter!(DELIVERED, "topic" => topic.clone()),
            latency: histogram!(DELIVERY_LATENCY, "topic" => topic.clone()),
            in_flight: gauge!(IN_FLIGHT, "topic" => topic.clone()),
            topic,
        }
    }

    pub(crate) fn delivered(&self, timing: Option<Timing>) {
        self.delivered.increment(1);
        if let Some(Timing { sent_at, stands_for }) = timing {
            self.latency.record_many(sent_at.elapsed(), stands_for);
        }
    }

    pub(crate) fn failed(&self, cause: Cause) {
        counter!(FAILED, "topic" => self.topic.clone(), "cause" => cause.as_str()).increment(1);
    }

    pub(crate) fn in_flight(&self, events: usize) {
        self.in_flight.set(events as f64);
    }
}
