//! What librdkafka says of a topic's consumer, as metrics: what is fetched ahead, how brokers answer, how the group is. Labels are
//! brokers, of which there are as many as the cluster has.

use metrics::{counter, gauge};
use rdkafka::statistics::Statistics;

use crate::telemetry::{metrics as names, series::SERIES};

/// Tells the statistics of one consumer; `topic` is what metrics call its topic.
pub(super) fn tell(topic: &str, statistics: &Statistics) {
    let gauge = |name| gauge!(name, "topic" => topic.to_owned());
    let counter = |name, value: u64| counter!(name, "topic" => topic.to_owned()).absolute(value);
    // Every partition's queue is led into the consumer's one, so each tells the length of that.
    let partitions = || statistics.topics.values().flat_map(|topic| topic.partitions.values());
    let records = partitions().map(|partition| partition.fetchq_cnt).max().unwrap_or(0);
    let labels = [("topic", topic.to_owned()), ("queue", "librdkafka".to_owned())];
    gauge!(names::QUEUE_DEPTH, &labels).set(records.max(0) as f64);
    let bytes = partitions().map(|partition| partition.fetchq_size).max().unwrap_or(0);
    gauge(names::KAFKA_FETCH_QUEUE_BYTES).set(bytes as f64);

    // Bootstrap addresses and the group's coordinator are listed besides the brokers themselves, with the number -1.
    let brokers = || statistics.brokers.values().filter(|broker| broker.nodeid >= 0);
    gauge(names::KAFKA_BROKERS_UP).set(brokers().filter(|broker| broker.state == "UP").count() as f64);
    counter(names::KAFKA_RECEIVED_BYTES, u64::try_from(statistics.rx_bytes).unwrap_or(0));
    counter(names::KAFKA_SENT_BYTES, u64::try_from(statistics.tx_bytes).unwrap_or(0));
    let all = || statistics.brokers.values();
    counter(names::KAFKA_REQUEST_ERRORS, all().map(|broker| broker.txerrs + broker.rxerrs).sum());
    counter(names::KAFKA_REQUEST_TIMEOUTS, all().map(|broker| broker.req_timeouts).sum());
    SERIES.end(names::KAFKA_BROKER_RTT, &[("topic", topic)]);
    for broker in brokers() {
        let Some(window) = broker.rtt.as_ref().filter(|window| window.cnt > 0) else { continue };
        for (quantile, micros) in [("0.5", window.p50), ("0.99", window.p99)] {
            let labels = [("topic", topic), ("broker", &*broker.nodeid.to_string()), ("quantile", quantile)];
            SERIES.set(names::KAFKA_BROKER_RTT, &labels, micros as f64 / 1e6);
        }
    }
    if let Some(group) = &statistics.cgrp {
        counter(names::KAFKA_REBALANCES, u64::try_from(group.rebalance_cnt).unwrap_or(0));
        gauge(names::KAFKA_REBALANCE_AGE).set(group.rebalance_age as f64 / 1000.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use metrics_exporter_prometheus::PrometheusBuilder;
    use rdkafka::statistics::{Broker, ConsumerGroup, Partition, Topic, Window};

    use super::*;

    #[test]
    fn shared_queues_count_once_and_bootstrap_addresses_are_no_brokers() {
        let partition = |fetchq_cnt| Partition { fetchq_cnt, fetchq_size: 7000, ..Partition::default() };
        let partitions = HashMap::from([(0, partition(70)), (1, partition(70)), (-1, partition(0))]);
        let rtt = Some(Window { cnt: 3, p50: 500, p99: 2_500, ..Window::default() });
        let broker = |nodeid, rtt| Broker { nodeid, rtt, state: "UP".into(), rxerrs: 2, ..Broker::default() };
        let statistics = Statistics {
            rx_bytes: 9000,
            topics: HashMap::from([("orders".into(), Topic { partitions, ..Topic::default() })]),
            brokers: HashMap::from([
                ("a:9092/bootstrap".into(), broker(-1, None)),
                ("a:9092/1".into(), broker(1, rtt)),
                ("b:9092/2".into(), broker(2, None)),
            ]),
            cgrp: Some(ConsumerGroup { rebalance_cnt: 4, rebalance_age: 1500, ..ConsumerGroup::default() }),
            ..Statistics::default()
        };
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || tell("queues", &statistics));
        let text = recorder.handle().render();
        for line in [
            "millrace_queue_depth{topic=\"queues\",queue=\"librdkafka\"} 70",
            "millrace_kafka_fetch_queue_bytes{topic=\"queues\"} 7000",
            "millrace_kafka_brokers_up{topic=\"queues\"} 2",
            "millrace_kafka_received_bytes_total{topic=\"queues\"} 9000",
            "millrace_kafka_request_errors_total{topic=\"queues\"} 6",
            "millrace_kafka_rebalances_total{topic=\"queues\"} 4",
            "millrace_kafka_rebalance_age_seconds{topic=\"queues\"} 1.5",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        let rtt = || {
            let mut text = String::new();
            SERIES.render(&mut text);
            text.lines().filter(|line| line.contains("topic=\"queues\"")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            rtt(),
            [("0.5", "0.0005"), ("0.99", "0.0025")].map(|(quantile, seconds)| format!(
                "millrace_kafka_broker_rtt_seconds{{topic=\"queues\",broker=\"1\",quantile=\"{quantile}\"}} {seconds}"
            ))
        );
        metrics::with_local_recorder(&recorder, || tell("queues", &Statistics::default()));
        assert_eq!(rtt(), [""; 0], "no request, no round trip");
    }
}
