//! Records that are no events: the golden bad examples and random damage that surely cannot be read, sent by a plain
//! producer because `EventPublisher` could not be made to.

use anyhow::{Context, Result};
use millrace_producers::{Encoder, Event};
use millrace_schemas::golden;
use rdkafka::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};

use crate::events::Events;
use crate::manifest::{Poison, record_hash};
use crate::random::Random;
use crate::stack::Stack;

/// Makes and sends them.
pub(crate) struct Poisoner<E> {
    producer: FutureProducer,
    topic: String,
    golden: Vec<golden::Bad>,
    /// An order up to where its items should begin; other events have none.
    without_items: Option<Vec<u8>>,
    schema_id: u32,
    encoder: Encoder<E>,
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
/// Schema ids that the registry does not have.
const UNKNOWN_IDS: std::ops::Range<u32> = 0x4000_0000..0x4000_0100;
/// Items of a list that is never finished; a count in this range has two bytes.
const LONG_LIST: std::ops::Range<u64> = 100..1000;
/// An item of an order in as few bytes as it can have: sku "a", one of it, for 0.01.
const SMALL_ITEM: [u8; 5] = [2, b'a', 2, 2, 1];

impl<E: Event> Poisoner<E> {
    /// A poisoner that claims the registry's id of the topic's schema in its headers; some of what it sends is of `golden`.
    pub(crate) fn new(stack: &Stack, topic: &str, schema_id: u32, seed: u64, golden: Vec<golden::Bad>) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &stack.kafka)
            .set("acks", "all")
            // A retry must not leave a second record, of which nobody would know.
            .set("enable.idempotence", "true")
            .create()
            .context("make the producer of unreadable records")?;
        let without_items = golden.iter().find(|bad| bad.name == "truncated_before_items");
        let without_items = without_items.map(|bad| golden::with_schema_id(&bad.bytes, schema_id));
        Ok(Self {
            producer,
            topic: topic.to_owned(),
            without_items,
            golden,
            schema_id,
            encoder: Encoder::new(schema_id)?,
            random: Random::new(seed ^ 0x706f_6973, 0),
            under_way: Vec::new(),
            delivered: Vec::new(),
        })
    }

    /// Sends one.
    pub(crate) async fn send(&mut self, events: &mut impl Events<Event = E>) -> Result<()> {
        let bad = self.make(events)?;
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
    pub(crate) async fn finish(mut self) -> Result<Vec<Poison>> {
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

    fn make(&mut self, events: &mut impl Events<Event = E>) -> Result<Bad> {
        let random = &mut self.random;
        let key = format!("poison-{:016x}", random.bits());
        let choice = random.below(self.golden.len() as u64 + 4 + u64::from(self.without_items.is_some())) as usize;
        if let Some(golden) = self.golden.get(choice) {
            return Ok(Bad {
                kind: golden.name.to_owned(),
                reason: Some(golden.reason),
                key,
                value: golden::with_schema_id(&golden.bytes, self.schema_id),
            });
        }
        let mut value = Vec::new();
        self.encoder.encode(events.at(random.bits() >> 32), &mut value)?;
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
            2 => {
                value.iter_mut().for_each(|byte| *byte = random.bits() as u8);
                value[0] |= 1;
                ("random_bytes", Some("bad_magic"))
            }
            // Ids that no registry has come to, each of which has to be asked for, and others that none can come to.
            3 => {
                let id = UNKNOWN_IDS.start + random.below((UNKNOWN_IDS.end - UNKNOWN_IDS.start).into()) as u32;
                let id = id | u32::from(random.chance(0.5)) << 31;
                value[1..5].copy_from_slice(&id.to_be_bytes());
                ("random_schema_id", Some("unknown_schema_id"))
            }
            // All that it claims is there but the end, so that it has to be read whole and cut off again.
            _ => {
                value.clone_from(self.without_items.as_ref().context("only orders have items")?);
                let items = LONG_LIST.start + random.below(LONG_LIST.end - LONG_LIST.start);
                // A zigzag variable-length integer of two bytes.
                value.extend([(items << 1) as u8 | 0x80, (items >> 6) as u8]);
                (0..items).for_each(|_| value.extend(SMALL_ITEM));
                ("unfinished_items", Some("truncated"))
            }
        };
        Ok(Bad { kind: kind.to_owned(), reason, key, value })
    }
}
