//! Records that are no events: the golden bad examples and random damage that surely cannot be read, sent by a plain
//! producer because `EventPublisher` could not be made to.

use anyhow::{Context, Result};
use millrace_producers::Encoder;
use millrace_schemas::{OrderEvent, golden};
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use crate::manifest::{Poison, record_hash};
use crate::orders::Orders;
use crate::random::Random;
use crate::stack::Stack;

/// Makes and sends them.
pub struct Poisoner {
    producer: FutureProducer,
    topic: String,
    golden: Vec<golden::Bad>,
    schema_id: u32,
    encoder: Encoder<OrderEvent>,
    random: Random,
    under_way: Vec<(Bad, DeliveryFuture)>,
    delivered: Vec<Poison>,
}

/// A record that cannot be read.
struct Bad {
    kind: String,
    reason: Option<&'static str>,
    key: String,
    value: Vec<u8>,
}

/// Reports are collected when so many are outstanding.
const WINDOW: usize = 1000;

impl Poisoner {
    /// A poisoner that claims the registry's id of the order schema in its headers.
    pub fn new(stack: &Stack, topic: &str, schema_id: u32, seed: u64) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &stack.kafka)
            .set("acks", "all")
            // A retry must not leave a second record, of which nobody would know.
            .set("enable.idempotence", "true")
            .create()
            .context("make the producer of unreadable records")?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
            golden: golden::bad(),
            schema_id,
            encoder: Encoder::new(schema_id)?,
            random: Random::new(seed ^ 0x706f_6973, 0),
            under_way: Vec::new(),
            delivered: Vec::new(),
        })
    }

    /// Sends one.
    pub async fn send(&mut self, orders: &Orders) -> Result<()> {
        let bad = self.make(orders)?;
        if self.under_way.len() >= WINDOW {
            self.collect().await?;
        }
        let report = loop {
            let record = FutureRecord::to(&self.topic).key(&bad.key).payload(&bad.value);
            match self.producer.send_result(record) {
                Ok(report) => break report,
                Err((error, _)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    self.collect().await?;
                }
                Err((error, _)) => return Err(error).context("send an unreadable record"),
            }
        };
        self.under_way.push((bad, report));
        Ok(())
    }

    /// Waits until all are written, and says where.
    pub async fn finish(mut self) -> Result<Vec<Poison>> {
        self.collect().await?;
        Ok(self.delivered)
    }

    async fn collect(&mut self) -> Result<()> {
        for (bad, report) in self.under_way.drain(..) {
            let delivery = report
                .await
                .context("the producer of unreadable records is gone")?
                .map_err(|(error, _)| error)
                .with_context(|| format!("deliver an unreadable record of kind {}", bad.kind))?;
            self.delivered.push(Poison {
                partition: delivery.partition,
                offset: delivery.offset,
                kind: bad.kind,
                reason: bad.reason.map(str::to_owned),
                hash: record_hash(bad.key.as_bytes(), &bad.value),
            });
        }
        Ok(())
    }

    fn make(&mut self, orders: &Orders) -> Result<Bad> {
        let random = &mut self.random;
        let key = format!("poison-{:016x}", random.bits());
        let choice = random.below(self.golden.len() as u64 + 3) as usize;
        if let Some(golden) = self.golden.get(choice) {
            return Ok(Bad {
                kind: golden.name.to_owned(),
                reason: Some(golden.reason),
                key,
                value: golden::with_schema_id(&golden.bytes, self.schema_id),
            });
        }
        let mut value = Vec::new();
        self.encoder.encode(&orders.event(random.bits() >> 32), &mut value)?;
        let (kind, reason) = match choice - self.golden.len() {
            // No beginning of an Avro datum is one itself: a reader takes exactly the bytes that it needs.
            // Cut inside an array, the count may look larger than what is left, so two reasons can be right.
            0 => {
                value.truncate(random.below(value.len() as u64) as usize);
                ("random_truncation", None)
            }
            1 => {
                let extra = 1 + random.below(64);
                value.extend((0..extra).map(|_| random.bits() as u8));
                ("random_trailing_bytes", Some("trailing_bytes"))
            }
            _ => {
                value.iter_mut().for_each(|byte| *byte = random.bits() as u8);
                value[0] |= 1;
                ("random_bytes", Some("bad_magic"))
            }
        };
        Ok(Bad { kind: kind.to_owned(), reason, key, value })
    }
}
