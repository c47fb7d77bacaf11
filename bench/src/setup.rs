//! Prepares a run: topics, schemas, customers and products. Safe to run again: what is there stays, and compaction keeps
//! the last copy of a record.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use millrace_producers::{Event, EventPublisher, PublisherConfig, Registry, schema_id};
use millrace_schemas::{ORDER_EVENT_V1, PAYMENT_V1};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use crate::manifest::Offsets;
use crate::payments::methods;
use crate::reference::Reference;
use crate::stack::{PaymentTopics, Stack, Topics};

/// For each question to the broker.
const TIMEOUT: Duration = Duration::from_secs(10);
/// For the last reference records to be acknowledged.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// What `reference` did.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Prepared {
    /// Customers published.
    pub customers: usize,
    /// Products published.
    pub products: usize,
    /// How long it took.
    pub seconds: f64,
}

/// Makes the topics, registers the schemas, publishes all customers and products of a seed. Each step is told to `step`
/// when it is done.
pub async fn reference(
    stack: &Stack,
    topics: &Topics,
    seed: u64,
    partitions: i32,
    mut step: impl FnMut(&str),
) -> Result<Prepared> {
    let began = Instant::now();
    let wanted = [
        topic(&topics.orders, partitions),
        topic(&topics.dead_letters, 1),
        topic(&topics.customers, 4).set("cleanup.policy", "compact"),
        topic(&topics.products, 1).set("cleanup.policy", "compact"),
    ];
    create_topics(stack, &wanted, &topics.orders, partitions).await?;
    order_schema_id(stack, &topics.orders).await?;
    step("topics made, order schema registered");
    let Reference { customers, products } = Reference::new(seed);
    publish_all(stack, &topics.customers, &customers).await?;
    step("customers published");
    publish_all(stack, &topics.products, &products).await?;
    step("products published");
    Ok(Prepared { customers: customers.len(), products: products.len(), seconds: began.elapsed().as_secs_f64() })
}

/// What `payment_reference` did.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct PaymentsPrepared {
    /// Payment methods published.
    pub methods: usize,
    /// How long it took.
    pub seconds: f64,
}

/// As [`reference()`], for payments and payment methods.
pub async fn payment_reference(
    stack: &Stack,
    topics: &PaymentTopics,
    seed: u64,
    partitions: i32,
    mut step: impl FnMut(&str),
) -> Result<PaymentsPrepared> {
    let began = Instant::now();
    let wanted = [
        topic(&topics.payments, partitions),
        topic(&topics.dead_letters, 1),
        topic(&topics.methods, 1).set("cleanup.policy", "compact"),
    ];
    create_topics(stack, &wanted, &topics.payments, partitions).await?;
    payment_schema_id(stack, &topics.payments).await?;
    step("topics made, payment schema registered");
    let methods = methods(seed);
    publish_all(stack, &topics.methods, &methods).await?;
    step("payment methods published");
    Ok(PaymentsPrepared { methods: methods.len(), seconds: began.elapsed().as_secs_f64() })
}

/// The registry's id of the payment schema, which is registered if it was not.
pub async fn payment_schema_id(stack: &Stack, topic: &str) -> Result<u32> {
    Ok(schema_id(&registry(stack), topic, PAYMENT_V1, true).await?)
}

/// The registry's id of the order schema, which is registered if it was not.
pub async fn order_schema_id(stack: &Stack, topic: &str) -> Result<u32> {
    Ok(schema_id(&registry(stack), topic, ORDER_EVENT_V1, true).await?)
}

pub(crate) fn registry(stack: &Stack) -> Registry {
    PublisherConfig::new("", &stack.registry, "").registry
}

/// With as many replicas as the broker is told to make.
fn topic(name: &str, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(name, partitions, TopicReplication::Fixed(-1))
}

/// Makes topics; `events` is the one that has so many partitions.
async fn create_topics(stack: &Stack, wanted: &[NewTopic<'_>], events: &str, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &stack.kafka).create().context("make the Kafka admin client")?;
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let results =
        admin.create_topics(wanted, &options).await.with_context(|| format!("create topics on {}", stack.kafka))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("create topic {topic}: {error}"),
        }
    }
    // A topic that was just made is not in the broker's metadata at once.
    let (consumer, began) = (plain_consumer(stack)?, Instant::now());
    let mut found = partitions_of(&consumer, events)?;
    while found.is_empty() && began.elapsed() < TIMEOUT {
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = partitions_of(&consumer, events)?;
    }
    ensure!(
        found.len() == partitions as usize,
        "topic {events} has {} partitions, not {partitions}; delete it, or pass --partitions {}",
        found.len(),
        found.len()
    );
    Ok(())
}

async fn publish_all<E: Event>(stack: &Stack, topic: &str, records: &[E]) -> Result<()> {
    let publisher = EventPublisher::<E>::connect(PublisherConfig::new(&stack.kafka, &stack.registry, topic)).await?;
    let mut answers = Vec::with_capacity(records.len());
    for record in records {
        answers.push(publisher.send(record).await?);
    }
    for answer in answers {
        answer.await?;
    }
    publisher.close(CLOSE_TIMEOUT).await?;
    Ok(())
}

/// A consumer that belongs to no group and commits nothing.
pub(crate) fn plain_consumer(stack: &Stack) -> Result<BaseConsumer> {
    ClientConfig::new()
        .set("bootstrap.servers", &stack.kafka)
        .set("group.id", "millrace-bench")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .create()
        .context("make the Kafka consumer")
}

pub(crate) fn partitions_of(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer
        .fetch_metadata(Some(topic), TIMEOUT)
        .with_context(|| format!("ask Kafka for the partitions of {topic}"))?;
    let topics = metadata.topics().iter().filter(|found| found.error().is_none());
    Ok(topics.flat_map(|found| found.partitions().iter().map(|p| p.id())).collect())
}

/// First offset and one past the last, by partition.
pub(crate) fn watermarks(consumer: &BaseConsumer, topic: &str) -> Result<(Offsets, Offsets)> {
    let (mut low, mut high) = (Offsets::new(), Offsets::new());
    for partition in partitions_of(consumer, topic)? {
        let (first, end) = consumer
            .fetch_watermarks(topic, partition, TIMEOUT)
            .with_context(|| format!("ask Kafka for the offsets of {topic}, partition {partition}"))?;
        low.insert(partition, first);
        high.insert(partition, end);
    }
    Ok((low, high))
}
