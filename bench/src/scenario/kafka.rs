//! Topics and groups of a run: made, and deleted when their guard is dropped.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::BaseConsumer;

use crate::setup::{plain_consumer, watermarks};
use crate::stack::Stack;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Topics and groups that go when this goes.
#[derive(Debug)]
pub(crate) struct Leftovers {
    brokers: String,
    topics: Vec<String>,
    groups: Vec<String>,
}

impl Leftovers {
    pub(crate) fn new(stack: &Stack) -> Self {
        Self { brokers: stack.kafka.clone(), topics: Vec::new(), groups: Vec::new() }
    }

    pub(crate) fn add_topics(&mut self, topics: impl IntoIterator<Item = String>) {
        self.topics.extend(topics);
    }

    pub(crate) fn add_group(&mut self, group: &str) {
        self.groups.push(group.to_owned());
    }

    fn delete(&self) -> Result<()> {
        let (admin, options) = (admin(&self.brokers)?, options());
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        let groups: Vec<&str> = self.groups.iter().map(String::as_str).collect();
        // A group that never committed, and a topic that was never made, are not there to be deleted.
        if !groups.is_empty() {
            wait_for(admin.delete_groups(&groups, &options))?.context("delete consumer groups")?;
        }
        if !topics.is_empty() {
            wait_for(admin.delete_topics(&topics, &options))?.context("delete topics")?;
        }
        Ok(())
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            eprintln!("left in Kafka: topics {:?}, groups {:?}: {error:#}", self.topics, self.groups);
        }
    }
}

/// Makes a topic with default settings.
///
/// # Errors
/// If the broker refuses.
pub(crate) fn create_topic(stack: &Stack, topic: &str, partitions: i32) -> Result<()> {
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let made = wait_for(admin(&stack.kafka)?.create_topics([&topic], &options()))?.context("make a topic")?;
    for result in made {
        if let Err((topic, error)) = result {
            bail!("make topic {topic}: {error}");
        }
    }
    Ok(())
}

/// Looks at a topic again and again.
pub(crate) struct Onlooker {
    consumer: BaseConsumer,
    topic: String,
}

impl Onlooker {
    /// # Errors
    /// If no client can be made.
    pub(crate) fn new(stack: &Stack, topic: &str) -> Result<Self> {
        Ok(Self { consumer: plain_consumer(stack)?, topic: topic.to_owned() })
    }

    /// Records that lie in it, as if there were no gaps.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub(crate) fn records(&self) -> Result<u64> {
        let (low, high) = watermarks(&self.consumer, &self.topic)?;
        Ok(high.values().zip(low.values()).map(|(high, low)| (high - low) as u64).sum())
    }
}

fn admin(brokers: &str) -> Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new().set("bootstrap.servers", brokers).create().context("make the Kafka admin client")
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT))
}

/// The client answers from a thread of its own; nothing here needs a runtime of many.
pub(crate) fn wait_for<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    Ok(runtime.block_on(future))
}
