//! The running stack, and what every test needs of it. Each test has a topic of its own.

use std::collections::HashMap;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use millrace_producers::PublisherConfig;
use millrace_schemas::{ORDER_EVENT_V1, OrderEvent, golden};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use uuid::Uuid;

/// An address on which nothing listens.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

#[derive(serde::Deserialize)]
pub(crate) struct Stack {
    pub(crate) kafka: String,
    pub(crate) registry: String,
    pub(crate) secured: crate::secured::Doors,
}

pub(crate) fn stack() -> Stack {
    let file = std::env::var("MILLRACE_STACK").expect(
        "these tests need a running stack: `cargo xtask stack up`, then set MILLRACE_STACK to its stack.json \
         (`cargo xtask test` does both)",
    );
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("read MILLRACE_STACK={file}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("read MILLRACE_STACK={file}: {e}"))
}

/// A topic of its own with these settings, and a configuration for it.
pub(crate) async fn topic(partitions: i32, settings: &[(&str, &str)]) -> PublisherConfig {
    let stack = stack();
    let name = format!("it-producers-{}", Uuid::new_v4().simple());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &stack.kafka).create().unwrap();
    let mut topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
    let mut config = PublisherConfig::new(stack.kafka, stack.registry, name);
    config.delivery_timeout_ms = 20_000;
    config
}

/// The golden typical event with an id of its own.
pub(crate) fn event() -> OrderEvent {
    let mut event = golden::good().swap_remove(0).event;
    event.event_id = Uuid::new_v4();
    event
}

/// Every record of the topic, by partition and offset.
pub(crate) fn read_all(config: &PublisherConfig) -> HashMap<(i32, i64), OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", "it-producers")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let timeout = Duration::from_secs(20);
    let metadata = consumer.fetch_metadata(Some(&config.topic), timeout).unwrap();
    let partitions = metadata.topics()[0].partitions();
    let mut assignment = TopicPartitionList::new();
    for partition in partitions {
        assignment.add_partition_offset(&config.topic, partition.id(), Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut records, mut open) = (HashMap::new(), partitions.len());
    while open > 0 {
        match consumer.poll(timeout).expect("an answer from Kafka within the timeout") {
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            message => {
                let message = message.unwrap();
                records.insert((message.partition(), message.offset()), message.detach());
            }
        }
    }
    records
}

/// Schema id and event of a value in Confluent wire format.
pub(crate) fn decode(value: &[u8]) -> (u32, OrderEvent) {
    assert_eq!(value[0], 0);
    let schema = Schema::parse_str(ORDER_EVENT_V1).unwrap();
    let mut datum = &value[5..];
    let event = GenericDatumReader::builder(&schema).build().unwrap().read_deser(&mut datum).unwrap();
    assert!(datum.is_empty());
    (u32::from_be_bytes(value[1..5].try_into().unwrap()), event)
}
