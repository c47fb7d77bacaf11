//! What an administrator does to topics: makes, deletes, changes and shortens them, and moves a group's offsets.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::kafka::{Kafka, Offsets, TIMEOUT, consumer, wait_for};
use crate::stack::until;

/// How long a topic that was deleted may still be in the way of a new one.
const GONE: Duration = Duration::from_secs(20);

impl Kafka {
    /// Makes a topic with these settings, also where one of this name is just being deleted.
    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        // As many replicas as the broker is told to make.
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        let wanted = settings.iter().fold(wanted, |wanted, (key, value)| wanted.set(key, value));
        let begun = Instant::now();
        loop {
            let made = wait_for(self.admin().create_topics([&wanted], &AdminOptions::new())).unwrap();
            match &made[0] {
                Ok(_) => break,
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) if begun.elapsed() < GONE => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err((topic, error)) => panic!("make topic {topic}: {error}"),
            }
        }
        while self.partitions(topic) != partitions as usize {
            assert!(begun.elapsed() < GONE, "topic {topic} was made and is not there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Partitions of a topic; 0 if there is none.
    pub fn partitions(&self, topic: &str) -> usize {
        // A client remembers what a topic looked like before it was made anew.
        let fresh = consumer(&self.servers, "e2e-onlooker");
        let metadata = fresh.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        metadata.topics()[0].partitions().len()
    }

    /// Changes settings of a topic; those that are not named fall back to their defaults.
    pub fn configure(&self, topic: &str, settings: &[(&str, &str)]) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let change = settings.iter().fold(change, |change, (key, value)| change.set(key, value));
        let changed = wait_for(self.admin().alter_configs([&change], &AdminOptions::new())).unwrap();
        changed[0].as_ref().unwrap_or_else(|error| panic!("change {topic}: {error:?}"));
    }

    /// Adds partitions to a topic, up to so many.
    pub fn add_partitions(&self, topic: &str, partitions: usize) {
        let wanted = NewPartitions::new(topic, partitions);
        let made = wait_for(self.admin().create_partitions([&wanted], &AdminOptions::new())).unwrap();
        made[0].as_ref().unwrap_or_else(|error| panic!("add partitions to {topic}: {error:?}"));
    }

    /// Deletes the records before these offsets, as retention does.
    pub fn delete_before(&self, topic: &str, offsets: &Offsets) {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
        }
        let deleted = wait_for(self.admin().delete_records(&list, &AdminOptions::new())).unwrap();
        deleted.elements().iter().for_each(|element| element.error().unwrap());
        assert_eq!(&self.begins(topic), offsets);
    }

    /// First offset of each partition.
    pub fn begins(&self, topic: &str) -> Offsets {
        let partitions = self.ends(topic).into_keys();
        partitions.map(|id| (id, self.onlooker.fetch_watermarks(topic, id, TIMEOUT).unwrap().0)).collect()
    }

    /// Waits until no transaction is open: its end is written to the partitions some time after it was asked for.
    pub fn until_no_transaction_is_open(&self, topic: &str) {
        let all: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.servers)
            .set("group.id", "e2e-onlooker")
            .set("isolation.level", "read_uncommitted")
            .create()
            .unwrap();
        until("no transaction is open", TIMEOUT, || {
            let mut ends = self.ends(topic).into_iter();
            ends.all(|(partition, end)| all.fetch_watermarks(topic, partition, TIMEOUT).unwrap().1 == end)
        });
    }

    /// What the group has committed, with the words that go with it.
    pub fn commits(&self, topic: &str) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in self.ends(topic).into_keys() {
            list.add_partition(topic, partition);
        }
        self.onlooker.committed_offsets(list, TIMEOUT).unwrap()
    }

    /// Commits for the group, of which nobody may be a member.
    pub fn commit(&self, commits: &TopicPartitionList) {
        self.onlooker.commit(commits, CommitMode::Sync).unwrap();
    }

    /// Commits these offsets and no words for the group, of which nobody may be a member.
    pub fn commit_offsets(&self, topic: &str, offsets: &Offsets) {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
        }
        self.commit(&list);
    }

    /// Appends copies of these records.
    pub fn refill(&self, topic: &str, records: &BTreeMap<i32, Vec<OwnedMessage>>) {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap();
        for record in records.values().flatten() {
            let (key, value) = (record.key().unwrap(), record.payload().unwrap());
            let copy = || BaseRecord::to(topic).partition(record.partition()).key(key).payload(value);
            while let Err((error, _)) = producer.send(copy()) {
                assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
                producer.poll(Duration::from_millis(20));
            }
        }
        producer.flush(TIMEOUT).unwrap();
    }

    /// Every record that a reader of committed ones gets, by partition.
    pub fn records(&self, topic: &str) -> BTreeMap<i32, Vec<OwnedMessage>> {
        let consumer = consumer(&self.servers, "e2e-onlooker");
        let mut list = TopicPartitionList::new();
        let mut records: BTreeMap<i32, Vec<OwnedMessage>> = BTreeMap::new();
        for partition in self.ends(topic).into_keys() {
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            records.insert(partition, Vec::new());
        }
        consumer.assign(&list).unwrap();
        let mut open = records.len();
        while open > 0 {
            match consumer.poll(TIMEOUT).expect("an answer in time") {
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                message => {
                    let message = message.unwrap().detach();
                    records.get_mut(&message.partition()).unwrap().push(message);
                }
            }
        }
        records
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.servers).create().unwrap()
    }
}
