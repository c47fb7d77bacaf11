//! A topic of small events of its own, whose table can be counted, and a `millrace run` that reads it.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::OwnedMessage,
    producer::{FutureProducer, FutureRecord, Producer},
};
use uuid::Uuid;

use crate::world::{World, register};

const SCHEMA: &str = r#"{"type": "record", "name": "Small", "fields": [
    {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Far more than the hard end of leaving.
const ENDS_WITHIN: Duration = Duration::from_secs(90);

/// A world whose events have an id and a time only.
pub(crate) struct Small {
    pub(crate) world: World,
    pub(crate) topic: String,
    pub(crate) group: String,
    /// The configuration with the shipped events and lookups instead.
    pub(crate) whole_config: String,
    pub(crate) port: u16,
    schema_id: u32,
    producer: FutureProducer,
    admin: AdminClient<DefaultClientContext>,
}

/// A running `millrace`, killed if the test fails before it ends.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) log: PathBuf,
    pub(crate) port: u16,
}

impl Small {
    pub(crate) async fn new() -> Self {
        let mut world = World::migrated().await;
        let (topic, group) = (format!("{}.orders", world.database), format!("{}.group", world.database));
        let schema_id = register(&world.stack.registry, &format!("{}.small-value", world.database), SCHEMA).await;
        let schema = world.directory.join("small.avsc");
        fs::write(&schema, SCHEMA).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let whole_config = world
            .config
            .replace("#group_id = \"millrace\"", &format!("group_id = {group:?}"))
            .replace("#listen = \"127.0.0.1:9400\"", &format!("listen = \"127.0.0.1:{port}\""))
            .replace("#max_age = \"1s\"", "max_age = \"50ms\"");
        let (head, _) = whole_config.split_once("[[topics.lookups]]").unwrap();
        world.config = head.replace("#reader_schema = \"order_event.avsc\"", &format!("reader_schema = {schema:?}"))
            + "[topics.columns]\nevent_id = \"event_id\"\ntimestamp = \"timestamp\"\n";
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &world.stack.kafka).set("topic.metadata.refresh.interval.ms", "200");
        let (producer, admin) = (client.create().unwrap(), client.create().unwrap());
        Self { world, topic, group, whole_config, port, schema_id, producer, admin }
    }

    /// Changes one line of the configuration.
    pub(crate) fn set(&mut self, line: &str, instead: &str) {
        assert!(self.world.config.contains(line), "{line}");
        self.world.config = self.world.config.replace(line, instead);
    }

    /// Produces events with the ids `ids`.
    pub(crate) async fn produce(&self, partition: i32, ids: std::ops::Range<u32>) {
        self.produce_to(&self.topic, partition, &self.events(ids)).await;
    }

    /// The values of events with the ids `ids`.
    pub(crate) fn events(&self, ids: std::ops::Range<u32>) -> Vec<Vec<u8>> {
        ids.map(|id| self.event(id)).collect()
    }

    /// What `act` does to the topic, done to another one.
    pub(crate) async fn at<T>(&mut self, topic: &str, act: impl AsyncFnOnce(&Self) -> T) -> T {
        let own = std::mem::replace(&mut self.topic, topic.to_owned());
        let done = act(self).await;
        self.topic = own;
        done
    }

    pub(crate) async fn produce_to(&self, topic: &str, partition: i32, values: &[Vec<u8>]) {
        let sends = values.iter().map(|value| {
            let record = FutureRecord::to(topic).key("key").payload(value).partition(partition);
            self.producer.send(record, TIMEOUT)
        });
        for sent in futures::future::join_all(sends).await {
            sent.unwrap();
        }
    }

    /// Produces one record; its offset.
    pub(crate) async fn send(&self, record: FutureRecord<'_, [u8], [u8]>) -> i64 {
        self.producer.send(record, TIMEOUT).await.unwrap().offset
    }

    pub(crate) fn event(&self, id: u32) -> Vec<u8> {
        let mut value = vec![0];
        value.extend(self.schema_id.to_be_bytes());
        let text = Uuid::from_u128(u128::from(id)).to_string();
        value.extend([text.len() as u8 * 2]);
        value.extend(text.as_bytes());
        value.push(2);
        value
    }

    pub(crate) async fn delete_topic(&self) {
        self.admin.delete_topics(&[&self.topic], &AdminOptions::new()).await.unwrap();
    }

    /// Makes the topic anew as soon as the old one is gone.
    pub(crate) async fn make_topic(&self, partitions: i32) {
        let deadline = Instant::now() + TIMEOUT;
        let topic = NewTopic::new(&self.topic, partitions, TopicReplication::Fixed(1));
        while let Err(error) = &self.admin.create_topics([&topic], &AdminOptions::new()).await.unwrap()[0] {
            assert!(Instant::now() < deadline, "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn grow(&self, topic: &str, partitions: usize) {
        let grown = NewPartitions::new(topic, partitions);
        self.admin.create_partitions([&grown], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
        // The producer asks for the topic's partitions again only now and then.
        let known = || self.producer.client().fetch_metadata(Some(topic), TIMEOUT).unwrap();
        while known().topics()[0].partitions().len() < partitions {}
    }

    /// Deletes the records of partition 0 before `offset`, as retention would.
    pub(crate) async fn delete_records(&self, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, Offset::Offset(offset)).unwrap();
        self.admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
    }

    pub(crate) async fn delete_group(&self) {
        self.admin.delete_groups(&[&self.group], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// What the group has committed of partition 0, with its metadata.
    pub(crate) fn committed(&self) -> Option<(i64, String)> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, 0);
        let list = self.consumer().committed_offsets(list, TIMEOUT).unwrap();
        let element = &list.elements()[0];
        match element.offset() {
            Offset::Offset(offset) => Some((offset, element.metadata().to_owned())),
            _ => None,
        }
    }

    /// How many records a topic of one partition has had.
    pub(crate) fn ends(&self, topic: &str) -> i64 {
        self.consumer().fetch_watermarks(topic, 0, TIMEOUT).unwrap().1
    }

    pub(crate) fn commit(&self, offset: i64, metadata: &str) {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.topic, 0);
        element.set_offset(Offset::Offset(offset)).unwrap();
        element.set_metadata(metadata);
        self.consumer().commit(&list, CommitMode::Sync).unwrap();
    }

    /// All records of partition 0 of a topic, in order.
    pub(crate) fn records(&self, topic: &str) -> Vec<OwnedMessage> {
        let consumer = self.consumer();
        let (low, high) = consumer.fetch_watermarks(topic, 0, TIMEOUT).unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(low)).unwrap();
        consumer.assign(&list).unwrap();
        let mut records = Vec::new();
        while low + (records.len() as i64) < high {
            records.push(consumer.poll(TIMEOUT).expect("a record in time").unwrap().detach());
        }
        records
    }

    fn consumer(&self) -> BaseConsumer {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.world.stack.kafka).set("group.id", &self.group);
        client.create().unwrap()
    }

    pub(crate) async fn rows(&self) -> (u64, u64) {
        let sql = format!("SELECT count() AS all, uniqExact(event_id) AS distinct FROM {}.orders", self.world.database);
        let row = self.world.client.query_raw(&sql).fetch_one::<Rows>().await.unwrap();
        (row.all, row.distinct)
    }

    /// Waits until so many rows are there, and sees that none is there twice.
    pub(crate) async fn until_rows(&self, rows: u64, timeout: Duration, running: &Running) {
        let deadline = Instant::now() + timeout;
        while self.rows().await.1 < rows {
            assert!(Instant::now() < deadline, "{:?} of {rows} rows\n{}", self.rows().await, running.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(self.rows().await, (rows, rows), "{}", running.log());
    }

    pub(crate) fn run(&self) -> Running {
        self.run_at("info")
    }

    /// As [`Small::run`], with log lines of this level and those that are more important.
    pub(crate) fn run_at(&self, level: &str) -> Running {
        start(&self.world.write(&self.world.config), self.world.directory.join("log"), self.port, level)
    }

    /// A second process beside the one that [`Small::run`] starts, with a configuration and a port of its own.
    pub(crate) fn run_beside(&self, config: &str) -> Running {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = self.world.directory.join("beside.toml");
        fs::write(&file, config.replace(&format!("127.0.0.1:{}", self.port), &format!("127.0.0.1:{port}"))).unwrap();
        start(file.to_str().unwrap(), self.world.directory.join("log.beside"), port, "info")
    }
}

fn start(config: &str, log: PathBuf, port: u16, level: &str) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
    command.args(["run", "--config", config, "--log-level", level]);
    let child = command.stderr(Stdio::from(File::create(&log).unwrap())).spawn().unwrap();
    Running { child, log, port }
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct Rows {
    all: u64,
    distinct: u64,
}

impl Running {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) async fn until_logged(&self, text: &str, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "{text:?} is not in\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What `path` answers on the port of metrics and health.
    pub(crate) async fn get(&self, path: &str) -> String {
        reqwest::get(format!("http://127.0.0.1:{}{path}", self.port)).await.unwrap().text().await.unwrap()
    }

    /// Value of a series, by the whole of what stands before it.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    /// Asks it to leave and waits until it has. What stands in front of its servers may run on this very runtime, so its
    /// thread is given back meanwhile.
    pub(crate) async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        (self.ended(ENDS_WITHIN).await, begun.elapsed())
    }

    /// Waits for an end that nobody asked for.
    pub(crate) async fn ended(&mut self, timeout: Duration) -> ExitStatus {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "it runs on\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
