//! A topic that is filled by hand or by a running `millrace`, and audited.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use millrace_schemas::golden::{good, with_schema_id};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use serde_json::Value;
use uuid::Uuid;

use super::sum;
use crate::world::{Ran, World};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);
/// Far longer than any of it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);
/// Where the text of the id stands in an order event: behind the header and its own length.
const ID_AT: usize = 6;

/// A world whose topic of events has two partitions, and what is needed to fill it by hand.
pub(crate) struct Bench {
    pub(crate) world: World,
    pub(crate) topic: String,
    value: Vec<u8>,
    pub(crate) producer: FutureProducer,
}

/// A running `millrace`, killed if the test fails before it ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Running {
    pub(crate) fn stop(mut self) {
        let terminated = Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        assert!(terminated.success() && self.0.wait().unwrap().success());
    }
}

/// The `n`th id; different, and random enough, for different `n`.
pub(crate) fn id(n: u64) -> Uuid {
    let (high, low) = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n.wrapping_mul(0xd6e8_feb8_6659_fd93));
    Uuid::from_u64_pair(high, low)
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let world = World::migrated().await;
        let topic = format!("{}.orders", world.database);
        let client = || {
            let mut client = ClientConfig::new();
            client.set("bootstrap.servers", &world.stack.kafka);
            client
        };
        let admin: AdminClient<DefaultClientContext> = client().create().unwrap();
        let partitions = [NewPartitions::new(&topic, 2)];
        for result in admin.create_partitions(&partitions, &AdminOptions::new()).await.unwrap() {
            result.unwrap();
        }
        let url = format!("{}/subjects/{topic}-value/versions/latest", world.stack.registry);
        let subject: Value = serde_json::from_str(&reqwest::get(url).await.unwrap().text().await.unwrap()).unwrap();
        let typical = good().into_iter().find(|good| good.name == "typical").unwrap();
        let value = with_schema_id(&typical.bytes, subject["id"].as_u64().unwrap() as u32);
        let producer = client().create().unwrap();
        let bench = Self { world, topic, value, producer };
        assert_eq!(bench.event(typical.event.event_id), bench.value, "the id stands elsewhere");
        bench
    }

    pub(crate) fn event(&self, id: Uuid) -> Vec<u8> {
        let mut value = self.value.clone();
        value[ID_AT..ID_AT + 36].copy_from_slice(id.hyphenated().to_string().as_bytes());
        value
    }

    /// Sends a value, and returns its offset.
    pub(crate) async fn send(&self, partition: i32, value: &[u8]) -> i64 {
        let record = FutureRecord::<[u8], [u8]>::to(&self.topic).payload(value).partition(partition);
        self.producer.send(record, TIMEOUT).await.unwrap().offset
    }

    pub(crate) async fn send_event(&self, partition: i32, id: Uuid) -> i64 {
        self.send(partition, &self.event(id)).await
    }

    pub(crate) fn commit(&self, partition: i32, offset: i64) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.world.stack.kafka)
            .set("group.id", self.group())
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }

    pub(crate) fn group(&self) -> String {
        format!("{}-group", self.world.database)
    }

    /// With a group of this test's own, that starts at once.
    pub(crate) fn config(&self) -> String {
        let group = format!("group_id = \"{}\"", self.group());
        let config = self.world.config.replace("#group_id = \"millrace\"", &group);
        assert!(config.contains(&group));
        config.replace("#listen = \"127.0.0.1:9400\"", "listen = \"127.0.0.1:0\"")
    }

    pub(crate) fn run(&self) -> Running {
        self.run_with(&self.config())
    }

    pub(crate) fn run_with(&self, config: &str) -> Running {
        let file = self.world.write(config);
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        let command = command.args(["run", "--config", &file, "--log-level", "error"]);
        Running(command.stdout(Stdio::null()).spawn().unwrap())
    }

    pub(crate) fn audit(&self, arguments: &[&str]) -> Ran {
        self.world.millrace("audit", arguments, &self.config())
    }

    pub(crate) fn audit_json(&self, arguments: &[&str]) -> (i32, Value) {
        let ran = self.audit(&[arguments, &["--json"]].concat());
        let report = serde_json::from_str(&ran.stdout);
        (ran.status, report.unwrap_or_else(|error| panic!("{error}: {}{}", ran.stdout, ran.stderr)))
    }

    /// Audits beside the running pipeline until nothing is pending: no audit on the way may find anything.
    pub(crate) async fn settled(&self) -> Value {
        let begun = Instant::now();
        loop {
            let (status, report) = self.audit_json(&[]);
            assert_eq!(status, 0, "{report:#}");
            if sum(&report, "pending") == 0 {
                return report;
            }
            assert!(begun.elapsed() < PATIENCE, "not settled in time: {report:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A row as the pipeline would have written it, but for the time of the insert.
    pub(crate) async fn insert(&self, id: Uuid, partition: i32, offset: i64, age_days: u32) {
        let sql = format!(
            "INSERT INTO {{db}}.orders (event_id, _partition, _offset, _ingested_at) \
             VALUES ('{id}', {partition}, {offset}, now64(3) - toIntervalDay({age_days}))"
        );
        self.world.sql(&sql).await;
    }
}
