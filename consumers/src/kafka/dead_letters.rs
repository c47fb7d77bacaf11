//! The dead-letter topic: originals untouched, with headers that say where they came from and why.
//!
//! At least once: after a crash a record may be there twice, told apart by its source coordinates. Offsets never pass a
//! record whose dead letter is not acknowledged, so a write that fails is tried for as long as the caller waits.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use millrace_pipeline::{record::DeadLetter, retry::Backoff, wire};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
    types::RDKafkaErrorCode,
    util::Timeout,
};

use super::{Telling, client_config};
use crate::{config, random};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(15) };

/// The broker's limit decides how large a dead letter may be; a poisoned record is often a large one.
const MESSAGE_MAX_BYTES: &str = "1000000000";

/// Writes one topic's dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    client: ClientConfig,
    producer: Arc<Mutex<FutureProducer<Telling>>>,
    source_topic: String,
    topic: String,
}

impl DeadLetters {
    /// A writer for `topic`, for events of `source_topic`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &config::Kafka, source_topic: &str, topic: &str) -> Result<Self> {
        let mut client = client_config(kafka, "dead-letters");
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.timeout.ms", "30000")
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        let producer =
            client.create_with_context(Telling { role: "dead-letters" }).context("set the dead-letter producer up")?;
        let producer = Arc::new(Mutex::new(producer));
        Ok(Self { client, producer, source_topic: source_topic.to_owned(), topic: topic.to_owned() })
    }

    /// Writes all of them and waits for every acknowledgement, trying again for as long as it takes.
    pub async fn write(&self, letters: &[DeadLetter]) {
        let sends = letters.iter().map(|letter| self.write_one(letter));
        futures::future::join_all(sends).await;
    }

    async fn write_one(&self, letter: &DeadLetter) {
        let mut attempt = 0;
        loop {
            let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(self.headers(letter));
            if let Some(key) = &letter.key {
                record = record.key(key);
            }
            if let Some(value) = &letter.value {
                record = record.payload(value);
            }
            let producer = self.producer();
            let Err((error, _)) = producer.send(record, Timeout::Never).await else { return };
            attempt += 1;
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                tracing::error!(
                    topic = self.topic,
                    source_topic = self.source_topic,
                    partition = letter.partition,
                    offset = letter.offset,
                    "a dead letter is too large for its topic; raise max.message.bytes of {} above that of {}",
                    self.topic,
                    self.source_topic
                );
            }
            tracing::warn!(
                %error, attempt, topic = self.topic, source_topic = self.source_topic, partition = letter.partition,
                offset = letter.offset, "a dead letter was not written; offsets wait for it"
            );
            tokio::time::sleep(BACKOFF.delay(attempt, random())).await;
        }
    }

    /// The producer, or a new one if the session has ended for good.
    fn producer(&self) -> FutureProducer<Telling> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((code, reason)) = producer.client().fatal_error() {
            match self.client.create_with_context(Telling { role: "dead-letters" }) {
                Ok(fresh) => {
                    tracing::warn!(%code, reason, "the dead-letter producer ended for good and is replaced");
                    *producer = fresh;
                }
                Err(error) => tracing::error!(%error, "the dead-letter producer cannot be replaced"),
            }
        }
        producer.clone()
    }

    fn headers(&self, letter: &DeadLetter) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len() + 8);
        for (key, value) in &letter.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let schema_id = wire::split(letter.value.as_deref()).ok().map(|(id, _)| id.to_string());
        let ours = [
            ("millrace.source.topic", Some(self.source_topic.clone())),
            ("millrace.source.partition", Some(letter.partition.to_string())),
            ("millrace.source.offset", Some(letter.offset.to_string())),
            ("millrace.source.timestamp_ms", Some(letter.timestamp_ms.to_string())),
            ("millrace.reason", Some(letter.rejection.reason.code().to_owned())),
            ("millrace.error", Some(letter.rejection.detail.clone())),
            ("millrace.schema_id", schema_id),
            ("millrace.version", Some(env!("CARGO_PKG_VERSION").to_owned())),
        ];
        for (key, value) in ours {
            if let Some(value) = &value {
                headers = headers.insert(Header { key, value: Some(value) });
            }
        }
        headers
    }
}
