//! Kafka: the topic that is read, the dead-letter topic that is written, and the reference topics that are held.

mod client_metrics;
pub mod dead_letters;
pub mod explain;
pub mod mark;
pub mod oauth;
pub mod reference;
pub mod rebalance;
pub mod source;
mod telling;

use anyhow::Context as _;
use rdkafka::{ClientConfig, error::KafkaError, producer::BaseProducer};

pub use self::telling::Telling;
pub(crate) use self::telling::tell_error;
use self::telling::tell_log;
use crate::config;

/// Makes a client that connects to nothing, to see whether librdkafka takes certificates and all else.
///
/// # Errors
/// Why it does not.
pub(crate) fn try_client(kafka: &config::Kafka) -> anyhow::Result<()> {
    let mut client = client_config(kafka, "certificates");
    client.remove("bootstrap.servers");
    client.create::<BaseProducer>().context("set a Kafka client up with these certificates")?;
    Ok(())
}

/// Value of a `reason` label: librdkafka's name of the error, of which there are a few hundred and mostly the same ten.
pub(crate) fn code(error: &KafkaError) -> String {
    error.rdkafka_error_code().map_or_else(|| "other".to_owned(), |code| format!("{code:?}"))
}

/// The properties common to every client.
fn client_config(kafka: &config::Kafka, role: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("client.id", format!("millrace-{role}"));
    // A broker whose host loses the network breaks no connection: only an answer that does not come tells of it, and until then
    // nobody asks who leads its partitions now. Measured on three brokers: 63 s without rows with librdkafka's 60 s.
    client.set("socket.timeout.ms", "10000");
    for (name, value) in kafka.client_properties() {
        client.set(name, value);
    }
    client
}
