//! Topics and offsets as an onlooker sees them. It joins no group.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// Offsets by partition.
pub type Offsets = BTreeMap<i32, i64>;

pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// An onlooker of one consumer group.
pub struct Kafka {
    pub(crate) servers: String,
    /// Bears the group's name and never subscribes, so it can ask for the group's offsets.
    pub(crate) onlooker: BaseConsumer,
}

impl Kafka {
    /// An onlooker of this group.
    pub fn new(servers: &str, group: &str) -> Self {
        Self { servers: servers.to_owned(), onlooker: consumer(servers, group) }
    }

    /// Committed offsets of the group.
    pub fn committed(&self, topic: &str) -> Offsets {
        let mut list = TopicPartitionList::new();
        for partition in self.ends(topic).into_keys() {
            list.add_partition(topic, partition);
        }
        let committed = self.onlooker.committed_offsets(list, TIMEOUT).unwrap();
        let offset = |offset| if let Offset::Offset(offset) = offset { Some(offset) } else { None };
        committed.elements().iter().filter_map(|one| Some((one.partition(), offset(one.offset())?))).collect()
    }

    /// One past the last offset of each partition.
    pub fn ends(&self, topic: &str) -> Offsets {
        self.try_ends(topic).unwrap()
    }

    /// The same.
    ///
    /// # Errors
    /// While a partition has no leader, or one that does not know yet what its followers have.
    pub fn try_ends(&self, topic: &str) -> Result<Offsets, KafkaError> {
        let metadata = self.onlooker.fetch_metadata(Some(topic), TIMEOUT)?;
        let partitions = metadata.topics()[0].partitions().iter().map(|partition| partition.id());
        partitions.map(|id| Ok((id, self.onlooker.fetch_watermarks(topic, id, TIMEOUT)?.1))).collect()
    }

    /// Value of the first record of a partition.
    pub fn first_value(&self, topic: &str, partition: i32) -> Vec<u8> {
        let consumer = consumer(&self.servers, "e2e-onlooker");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        let message = consumer.poll(TIMEOUT).expect("a record in time").unwrap();
        message.payload().unwrap().to_vec()
    }

    /// Headers of every dead letter, as text.
    pub fn dead_letters(&self, topic: &str) -> Vec<BTreeMap<String, String>> {
        let mut letters = Vec::new();
        self.each_dead_letter(topic, |headers| letters.push(headers));
        letters
    }

    /// Looks at the headers of every dead letter, as text: there may be more than memory should hold.
    pub fn each_dead_letter(&self, topic: &str, mut look: impl FnMut(BTreeMap<String, String>)) {
        let consumer = consumer(&self.servers, "e2e-onlooker");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&list).unwrap();
        loop {
            match consumer.poll(TIMEOUT).expect("an answer in time") {
                Err(KafkaError::PartitionEOF(_)) => return,
                message => look(headers(&message.unwrap())),
            }
        }
    }

    /// Appends a record, and waits for its acknowledgement.
    pub fn produce(&self, topic: &str, partition: i32, key: &str, value: &[u8]) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap();
        producer.send(BaseRecord::to(topic).partition(partition).key(key).payload(value)).map_err(|(e, _)| e).unwrap();
        producer.flush(TIMEOUT).unwrap();
    }

    /// Deletes topics.
    pub fn delete(&self, topics: &[&str]) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap();
        wait_for(admin.delete_topics(topics, &AdminOptions::new())).unwrap();
    }
}

pub(crate) fn consumer(servers: &str, group: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", servers)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap()
}

fn headers<M: Message>(message: &M) -> BTreeMap<String, String> {
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap_or_default().to_vec()).unwrap();
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    headers.map(|header| (header.key.to_owned(), text(header.value))).collect()
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// rdkafka's administration is async only, and it needs no runtime.
pub(crate) fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}
