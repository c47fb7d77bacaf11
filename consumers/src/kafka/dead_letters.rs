//! The dead-letter topic: originals untouched, with headers that say where they came from and why.
//!
//! At least once: after a crash a record may be there twice, told apart by its source coordinates. Offsets never pass a
//! record whose dead letter is not acknowledged, so a write that fails is tried for as long as the caller waits.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use millrace_pipeline::{record::DeadLetter, wire};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
    types::RDKafkaErrorCode,
    util::Timeout,
};

use super::{Telling, client_config, code, oauth};
use crate::{
    config,
    retry::{Status, Target},
    telemetry::stages::{Stage, Stages},
};

/// The broker's limit decides how large a dead letter may be; a poisoned record is often a large one.
const MESSAGE_MAX_BYTES: &str = "1000000000";

/// Names of the headers that are added behind those of the original, in this order. The first of them is always there.
pub mod header {
    /// Kafka topic that the event was read from.
    pub const SOURCE_TOPIC: &str = "millrace.source.topic";
    /// Its partition, in decimal.
    pub const SOURCE_PARTITION: &str = "millrace.source.partition";
    /// Its offset, in decimal.
    pub const SOURCE_OFFSET: &str = "millrace.source.offset";
    /// Its Kafka timestamp in milliseconds since 1970, in decimal.
    pub const SOURCE_TIMESTAMP_MS: &str = "millrace.source.timestamp_ms";
    /// Code of [`millrace_pipeline::reason::Reason`].
    pub const REASON: &str = "millrace.reason";
    /// What was expected and what was found, for a person; never the event's own values.
    pub const ERROR: &str = "millrace.error";
    /// Writer-schema id in decimal; not there if the value has no whole header.
    pub const SCHEMA_ID: &str = "millrace.schema_id";
    /// Version of Millrace.
    pub const VERSION: &str = "millrace.version";
    /// All of them.
    pub const ALL: [&str; 8] =
        [SOURCE_TOPIC, SOURCE_PARTITION, SOURCE_OFFSET, SOURCE_TIMESTAMP_MS, REASON, ERROR, SCHEMA_ID, VERSION];
}

/// Writes one topic's dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    client: ClientConfig,
    context: Telling,
    producer: Arc<Mutex<FutureProducer<Telling>>>,
    source_topic: String,
    topic: String,
    target: Arc<Target>,
    stages: Stages,
}

impl DeadLetters {
    /// The topic that they go to.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// A writer for `topic`, for events of `source_topic`, which metrics call `label`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(
        kafka: &config::Kafka,
        source_topic: &str,
        topic: &str,
        label: &str,
        retry: &config::Retry,
    ) -> Result<Self> {
        let mut client = client_config(kafka, "dead-letters");
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.timeout.ms", "30000")
            .set("message.max.bytes", MESSAGE_MAX_BYTES);
        let context = Telling { role: "dead-letters", tokens: oauth::tokens(kafka)? };
        let producer = client.create_with_context(context.clone()).context("set the dead-letter producer up")?;
        let producer = Arc::new(Mutex::new(producer));
        Ok(Self {
            client,
            context,
            producer,
            source_topic: source_topic.to_owned(),
            topic: topic.to_owned(),
            target: Arc::new(Target::new(format!("dead_letters/{label}"), retry)),
            stages: Stages::new(label),
        })
    }

    /// Writes all of them and waits for every acknowledgement, trying again for as long as it takes.
    pub async fn write(&self, letters: &[DeadLetter]) {
        let sends = letters.iter().map(|letter| self.write_one(letter));
        futures::future::join_all(sends).await;
    }

    /// Why the topic takes no dead letters, if the last attempt failed.
    pub fn trouble(&self) -> Option<String> {
        self.target.last_error()
    }

    /// How its breaker is.
    pub fn status(&self) -> Status {
        self.target.status()
    }

    async fn write_one(&self, letter: &DeadLetter) {
        let mut attempt = 0;
        loop {
            let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers(&self.source_topic, letter));
            if let Some(key) = &letter.key {
                record = record.key(key);
            }
            if let Some(value) = &letter.value {
                record = record.payload(value);
            }
            let call = self.target.permit().await;
            let producer = self.producer();
            let Err((error, _)) = producer.send(record, Timeout::Never).await else { return call.succeeded() };
            attempt += 1;
            self.stages.failed(Stage::DeadLetter, code(&error), 1);
            let told = format!("a dead letter was not written to topic {}: {error}", self.topic);
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                call.refused(told);
                tracing::error!(
                    topic = self.topic,
                    source_topic = self.source_topic,
                    partition = letter.partition,
                    offset = letter.offset,
                    "a dead letter is too large for its topic; raise max.message.bytes of {} above that of {}",
                    self.topic,
                    self.source_topic
                );
            } else {
                call.failed(told);
            }
            tracing::warn!(
                %error, attempt, topic = self.topic, source_topic = self.source_topic, partition = letter.partition,
                offset = letter.offset, "a dead letter was not written; offsets wait for it"
            );
            tokio::time::sleep(self.target.delay(attempt)).await;
        }
    }

    /// The producer, or a new one if the session has ended for good.
    fn producer(&self) -> FutureProducer<Telling> {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((code, reason)) = producer.client().fatal_error() {
            match self.client.create_with_context(self.context.clone()) {
                Ok(fresh) => {
                    tracing::warn!(%code, reason, "the dead-letter producer ended for good and is replaced");
                    *producer = fresh;
                }
                Err(error) => tracing::error!(%error, "the dead-letter producer cannot be replaced"),
            }
        }
        producer.clone()
    }
}

/// The original headers, and ours behind them.
fn headers(source_topic: &str, letter: &DeadLetter) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len() + header::ALL.len());
    for (key, value) in &letter.headers {
        headers = headers.insert(Header { key, value: value.as_deref() });
    }
    let schema_id = wire::split(letter.value.as_deref()).ok().map(|(id, _)| id.to_string());
    let ours = [
        (header::SOURCE_TOPIC, Some(source_topic)),
        (header::SOURCE_PARTITION, Some(&letter.partition.to_string())),
        (header::SOURCE_OFFSET, Some(&letter.offset.to_string())),
        (header::SOURCE_TIMESTAMP_MS, Some(&letter.timestamp_ms.to_string())),
        (header::REASON, Some(letter.rejection.reason.code())),
        (header::ERROR, Some(&letter.rejection.detail)),
        (header::SCHEMA_ID, schema_id.as_deref()),
        (header::VERSION, Some(env!("CARGO_PKG_VERSION"))),
    ];
    for (key, value) in ours {
        if value.is_some() {
            headers = headers.insert(Header { key, value });
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use millrace_pipeline::reason::{Reason, Rejection};
    use rdkafka::message::Headers;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/dead-letters.md");

    fn letter(value: &[u8]) -> DeadLetter {
        DeadLetter {
            partition: 3,
            offset: 1234,
            timestamp_ms: 1_700_000_000_000,
            key: Some(b"key".to_vec()),
            value: Some(value.to_vec()),
            headers: vec![
                ("trace".to_owned(), Some(vec![0xff, 0])),
                ("trace".to_owned(), None),
                (header::REASON.to_owned(), Some(b"of an earlier life".to_vec())),
            ],
            rejection: Rejection::new(Reason::Truncated, "breaks at byte 1"),
        }
    }

    fn written(letter: &DeadLetter) -> Vec<(String, Option<Vec<u8>>)> {
        let headers = headers("orders", letter);
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    }

    #[test]
    fn the_original_headers_come_first_untouched_and_ours_behind_them() {
        let letter = letter(&[0, 0, 0, 1, 2, 9]);
        let written = written(&letter);
        let (original, ours) = written.split_at(letter.headers.len());
        assert_eq!(original, letter.headers);
        let ours: Vec<(&str, &str)> = ours
            .iter()
            .map(|(key, value)| (key.as_str(), std::str::from_utf8(value.as_deref().unwrap()).unwrap()))
            .collect();
        let contents =
            ["orders", "3", "1234", "1700000000000", "truncated", "breaks at byte 1", "258", env!("CARGO_PKG_VERSION")];
        assert_eq!(ours, header::ALL.into_iter().zip(contents).collect::<Vec<_>>());
    }

    #[test]
    fn a_value_without_a_whole_header_has_no_schema_id() {
        let written = written(&letter(&[0, 0, 0]));
        assert!(written.iter().all(|(key, _)| key != header::SCHEMA_ID));
        assert_eq!(written.len(), 3 + header::ALL.len() - 1);
    }

    /// First cells of the table below the heading, without their backticks.
    fn first_cells(heading: &str) -> Vec<&'static str> {
        let (_, section) = PAGE.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
        let table = section.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
        let rows = table.take_while(|line| line.starts_with('|'));
        rows.map(|row| row.split('|').nth(1).unwrap().trim().trim_matches('`')).collect()
    }

    #[test]
    fn the_page_lists_every_header_and_every_reason_in_their_order() {
        assert_eq!(first_cells("\n## Headers\n"), header::ALL);
        assert_eq!(first_cells("\n## Reasons\n"), Reason::ALL.map(Reason::code));
    }
}
