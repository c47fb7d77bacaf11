//! Kafka: the topic that is read, the dead-letter topic that is written, and the reference topics that are held.

pub mod dead_letters;
pub mod mark;
pub mod reference;
pub mod rebalance;
pub mod source;
mod telling;

use rdkafka::ClientConfig;

pub use self::telling::Telling;
pub(crate) use self::telling::tell_error;
use self::telling::tell_log;
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
