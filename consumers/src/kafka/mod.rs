//! Kafka: the topic that is read, the dead-letter topic that is written, and the reference topics that are held.

pub mod dead_letters;
pub mod reference;
pub mod source;

use rdkafka::{
    ClientConfig, ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    types::RDKafkaErrorCode,
};

use crate::config;

/// The properties common to every client.
fn client_config(kafka: &config::Kafka, role: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", format!("millrace-{role}"));
    for (name, value) in kafka.client_properties() {
        client.set(name, value);
    }
    client
}

/// Says what librdkafka tells of a client, as this process's own log lines.
#[derive(Clone, Copy, Debug)]
pub struct Telling {
    role: &'static str,
}

impl ClientContext for Telling {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell_log(self.role, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(self.role, &error, reason);
    }
}

impl ConsumerContext for Telling {}

fn tell_log(role: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(role, facility, "Kafka: {message}");
        }
        _ => tracing::debug!(role, facility, "Kafka: {message}"),
    }
}

/// What librdkafka calls an error it mostly mends by itself; what it cannot mend comes back from a call.
fn tell_error(role: &str, error: &KafkaError, reason: &str) {
    if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
        tracing::warn!(role, %error, "Kafka: {reason}");
    }
}
