//! Events of a seed that are first put into a topic of their own, and copied from there by hand: in transactions, to chosen
//! partitions, at chosen moments. The generator's manifest is rewritten to say where they came to lie.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{DeliveryResult, Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use serde_json::Value;

use crate::world::{Generator, Load, Place, World};

const TIMEOUT: Duration = Duration::from_secs(30);

/// A load that was sent to another topic.
pub struct Staged {
    /// Who sent it; its manifest speaks of the other topic until [`Staged::moved`].
    pub generator: Generator,
    /// Records by partition and in order.
    pub records: BTreeMap<i32, Vec<OwnedMessage>>,
    poison: BTreeMap<Place, usize>,
}

impl Staged {
    /// Sends the load to a topic with so many partitions, and takes it from there.
    pub fn new(world: &World, load: Load, partitions: i32) -> Self {
        let prefix = format!("{}staged-", world.prefix);
        let topic = format!("{prefix}orders");
        world.kafka.create(&topic, partitions, &[]);
        let mut generator = world.generate_to(&prefix, Load { rate: 0, ..load }, world.seed, &[]);
        let manifest = generator.finish();
        let records = world.kafka.records(&topic);
        world.kafka.delete(&[&topic]);
        let poison = manifest.poison.iter().copied().zip(0..).collect();
        Self { generator, records, poison }
    }

    /// Whether a record cannot be read.
    pub fn is_poison(&self, record: &OwnedMessage) -> bool {
        self.poison.contains_key(&place(record))
    }

    /// Everything has been copied: from now on the manifest speaks of the world's topic.
    pub fn moved(&self, world: &World, copiers: &[&Copier]) {
        let text = fs::read_to_string(&self.generator.manifest).unwrap();
        let mut manifest: Value = serde_json::from_str(&text).unwrap();
        let ends = world.kafka.ends(&world.topic());
        manifest["topic"] = world.topic().into();
        manifest["dead_letter_topic"] = world.dead_letter_topic().into();
        manifest["begin_offsets"] = ends.keys().map(|partition| (partition.to_string(), Value::from(0))).collect();
        manifest["end_offsets"] =
            ends.iter().map(|(partition, end)| (partition.to_string(), Value::from(*end))).collect();
        let mut moved: BTreeMap<Place, Place> = BTreeMap::new();
        copiers.iter().for_each(|copier| moved.extend(copier.producer.context().moved.lock().unwrap().iter()));
        for (old, at) in &self.poison {
            let new = moved.get(old).expect("an unreadable record was not copied, or not counted");
            let poison = &mut manifest["poison"][*at];
            (poison["partition"], poison["offset"]) = (new.partition.into(), new.offset.into());
        }
        fs::write(&self.generator.manifest, manifest.to_string()).unwrap();
    }
}

/// Sends records to the world's topic.
pub struct Copier {
    producer: BaseProducer<Moved>,
    topic: String,
}

#[derive(Default)]
struct Moved {
    moved: Mutex<BTreeMap<Place, Place>>,
}

impl ClientContext for Moved {}

impl ProducerContext for Moved {
    type DeliveryOpaque = Box<Option<Place>>;

    fn delivery(&self, result: &DeliveryResult<'_>, from: Box<Option<Place>>) {
        match (result, *from) {
            (Ok(message), Some(from)) => {
                let to = Place { partition: message.partition(), offset: message.offset() };
                self.moved.lock().unwrap().insert(from, to);
            }
            (Ok(_), None) => {}
            // What an abort threw out of the queue was to be thrown away.
            (Err((error, _)), _) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PurgeQueue) => {}
            (Err((error, _)), _) => panic!("a copy was not delivered: {error}"),
        }
    }
}

impl Copier {
    /// Sends each record by itself.
    pub fn plain(world: &World) -> Self {
        Self::new(world, None)
    }

    /// Sends in transactions, as the producer of this name.
    pub fn transactional(world: &World, name: &str) -> Self {
        let this = Self::new(world, Some(&format!("{}{name}", world.prefix)));
        this.producer.init_transactions(TIMEOUT).unwrap();
        this
    }

    fn new(world: &World, transactional_id: Option<&str>) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &world.stack.kafka).set("enable.idempotence", "true").set("linger.ms", "5");
        config.set("topic.metadata.refresh.interval.ms", "1000");
        transactional_id.into_iter().for_each(|id| _ = config.set("transactional.id", id));
        Self { producer: config.create_with_context(Moved::default()).unwrap(), topic: world.topic() }
    }

    /// Sends a copy to a partition, whose dead letter will be looked for if it is an unreadable record.
    pub fn copy(&self, record: &OwnedMessage, partition: i32) {
        self.send(record.key().unwrap(), record.payload().unwrap(), partition, Some(place(record)));
    }

    /// Sends something else, of which nobody is told.
    pub fn send(&self, key: &[u8], value: &[u8], partition: i32, from: Option<Place>) {
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(from)).partition(partition);
        record = record.key(key).payload(value);
        while let Err((error, again)) = self.producer.send(record) {
            // A partition that was just added is heard of within a second.
            let passing = [Some(RDKafkaErrorCode::QueueFull), Some(RDKafkaErrorCode::UnknownPartition)];
            assert!(passing.contains(&error.rdkafka_error_code()), "{error}");
            self.producer.poll(Duration::from_millis(20));
            record = again;
        }
        self.producer.poll(Duration::ZERO);
    }

    /// Begins a transaction.
    pub fn begin(&self) {
        self.producer.begin_transaction().unwrap();
    }

    /// Waits until everything is acknowledged.
    pub fn flush(&self) {
        self.producer.flush(TIMEOUT).unwrap();
    }

    /// Ends the transaction, whose records are all in the log by then.
    pub fn end(&self, committed: bool) {
        self.flush();
        if committed {
            self.producer.commit_transaction(TIMEOUT).unwrap();
        } else {
            self.producer.abort_transaction(TIMEOUT).unwrap();
        }
    }
}

fn place(record: &OwnedMessage) -> Place {
    Place { partition: record.partition(), offset: record.offset() }
}
