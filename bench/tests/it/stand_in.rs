//! Plays the consumer: rows straight from the generator, dead letters straight from the manifest and the topic.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use clickhouse::{Client, Row};
use millrace_bench::manifest::{Manifest, Poison};
use millrace_bench::orders::{Lookups, Orders, blank};
use millrace_bench::stack::Stack;
use millrace_schemas::CLICKHOUSE_DDL;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;
use uuid::Uuid;

#[derive(Clone, Debug, Row, Serialize)]
struct NewRow {
    #[serde(with = "clickhouse::serde::uuid")]
    event_id: Uuid,
    event_type: i8,
    timestamp: i64,
    order_id: String,
    customer_id: String,
    currency: String,
    total: i64,
    coupon: Option<String>,
    channel: String,
    shipping_country: String,
    shipping_city: String,
    #[serde(rename = "items.sku")]
    items_sku: Vec<String>,
    #[serde(rename = "items.quantity")]
    items_quantity: Vec<i32>,
    #[serde(rename = "items.unit_price")]
    items_unit_price: Vec<i64>,
    #[serde(rename = "items.category")]
    items_category: Vec<Option<String>>,
    #[serde(rename = "items.brand")]
    items_brand: Vec<Option<String>>,
    customer_segment: Option<String>,
    customer_country: Option<String>,
    customer_signup_date: Option<i32>,
    _partition: i32,
    _offset: i64,
}

pub(crate) struct StandIn {
    pub(crate) table: String,
    client: Client,
    orders: Orders,
    place: (i32, i64),
    /// Key and value of each unreadable record, read back from the topic.
    poison: HashMap<(i32, i64), (Vec<u8>, Vec<u8>)>,
    producer: FutureProducer,
    topic: String,
    dead_letter_topic: String,
}

impl StandIn {
    pub(crate) async fn new(stack: &Stack, prefix: &str, manifest: &Manifest) -> Self {
        let admin = Client::default()
            .with_url(&stack.clickhouse)
            .with_user(&stack.admin.user)
            .with_password(stack.admin.password().unwrap());
        let database = format!("CREATE DATABASE IF NOT EXISTS {}", stack.database);
        admin.query(&database).execute().await.unwrap();
        let client = admin.with_database(&stack.database);
        let table = prefix.replace('-', "_") + "orders";
        let (_, ddl) = CLICKHOUSE_DDL[0];
        // Twice: the statement must be safe to run again.
        for _ in 0..2 {
            client.query(&ddl.replace("EXISTS orders\n", &format!("EXISTS {table}\n"))).execute().await.unwrap();
        }
        Self {
            table,
            client,
            orders: Orders::new(manifest.seed, manifest.timeline),
            place: (0, manifest.end_offsets[&0] - 1),
            poison: read_poison(stack, manifest),
            producer: ClientConfig::new().set("bootstrap.servers", &stack.kafka).create().unwrap(),
            topic: manifest.topic.clone(),
            dead_letter_topic: manifest.dead_letter_topic.clone(),
        }
    }

    pub(crate) async fn insert_rows(&self, numbers: Range<u64>) {
        self.insert(numbers.map(|n| self.row(n))).await;
    }

    pub(crate) async fn insert_damaged_row(&self, n: u64) {
        let mut row = self.row(n);
        row.items_quantity[1] += 1;
        self.insert(std::iter::once(row)).await;
    }

    pub(crate) async fn drop_table(&self) {
        self.client.query(&format!("DROP TABLE {}", self.table)).execute().await.unwrap();
    }

    async fn insert(&self, rows: impl Iterator<Item = NewRow>) {
        let mut insert = self.client.insert::<NewRow>(&self.table).await.unwrap();
        for row in rows {
            insert.write(&row).await.unwrap();
        }
        insert.end().await.unwrap();
    }

    fn row(&self, n: u64) -> NewRow {
        let (mut event, mut lookups) = (blank(), Lookups::default());
        self.orders.write_event(n, &mut event, &mut lookups);
        let customer = lookups.customer.map(|index| self.orders.customer(index));
        let products: Vec<_> = lookups.products.iter().map(|p| p.map(|index| self.orders.product(index))).collect();
        let data = event.data;
        NewRow {
            event_id: event.event_id,
            event_type: event.event_type as i8 + 1,
            timestamp: event.timestamp,
            order_id: data.order_id,
            customer_id: data.customer_id,
            currency: data.currency,
            total: data.total.0,
            coupon: data.coupon,
            channel: data.channel.as_str().into(),
            shipping_country: data.shipping.country,
            shipping_city: data.shipping.city,
            items_quantity: data.items.iter().map(|item| item.quantity).collect(),
            items_unit_price: data.items.iter().map(|item| item.unit_price.0).collect(),
            items_sku: data.items.into_iter().map(|item| item.sku).collect(),
            items_category: products.iter().map(|p| p.map(|p| p.category.clone())).collect(),
            items_brand: products.iter().map(|p| p.map(|p| p.brand.clone())).collect(),
            customer_segment: customer.map(|c| c.segment.clone()),
            customer_country: customer.map(|c| c.country.clone()),
            customer_signup_date: customer.map(|c| c.signup_date),
            _partition: self.place.0,
            _offset: self.place.1,
        }
    }

    pub(crate) async fn write_dead_letter(&self, poison: &Poison, reason: &str) {
        let (key, value) = &self.poison[&(poison.partition, poison.offset)];
        let mut headers = OwnedHeaders::new();
        for (name, text) in [
            ("millrace.source.topic", self.topic.clone()),
            ("millrace.source.partition", poison.partition.to_string()),
            ("millrace.source.offset", poison.offset.to_string()),
            ("millrace.reason", reason.to_owned()),
            ("millrace.source.timestamp_ms", "1700000000000".to_owned()),
            ("millrace.error", poison.kind.clone()),
            ("millrace.version", "stand-in".to_owned()),
        ] {
            headers = headers.insert(Header { key: name, value: Some(&text) });
        }
        if let [0, a, b, c, d, ..] = value[..] {
            let schema_id = u32::from_be_bytes([a, b, c, d]).to_string();
            headers = headers.insert(Header { key: "millrace.schema_id", value: Some(&schema_id) });
        }
        let record = FutureRecord::to(&self.dead_letter_topic).key(key).payload(value).headers(headers);
        self.producer.send_result(record).map_err(|(error, _)| error).unwrap().await.unwrap().unwrap();
    }
}

fn read_poison(stack: &Stack, manifest: &Manifest) -> HashMap<(i32, i64), (Vec<u8>, Vec<u8>)> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &stack.kafka)
        .set("group.id", "it-bench")
        // The answer to a commit makes poll return without a message.
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    for (&partition, &begin) in &manifest.begin_offsets {
        assignment.add_partition_offset(&manifest.topic, partition, Offset::Offset(begin)).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let mut records = HashMap::new();
    while (records.len() as u64) < manifest.delivered {
        let message = consumer.poll(Duration::from_secs(20)).expect("an answer within the timeout").unwrap();
        let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
        records.insert((message.partition(), message.offset()), (key.to_vec(), value.to_vec()));
    }
    records.retain(|&place, _| manifest.poison.iter().any(|p| (p.partition, p.offset) == place));
    records
}
