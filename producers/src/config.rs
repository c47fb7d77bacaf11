//! What a publisher needs to know, checked when it connects. Secrets never show in `Debug`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use rdkafka::ClientConfig;
use serde::Deserialize;

/// Configuration of an [`EventPublisher`](crate::EventPublisher). A service may read it as a part of its own
/// configuration through serde; only the first three fields have no default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublisherConfig {
    /// Kafka brokers to begin with, `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Schema registry.
    pub registry: Registry,
    /// Topic to publish to. The schema's subject is `<topic>-value`.
    pub topic: String,
    /// How to connect to the brokers.
    #[serde(default)]
    pub security: Security,
    /// How the brokers see this client in their logs and quotas.
    #[serde(default = "default_client_id")]
    pub client_id: String,
    /// How long an event may wait for others to fill a batch with. More is cheaper and slower. Default 10.
    #[serde(default = "default_linger_ms")]
    pub linger_ms: u32,
    /// Compression of batches. Default LZ4.
    #[serde(default)]
    pub compression: Compression,
    /// After this time an event that could not be delivered is given up with [`Cause::TimedOut`](crate::Cause).
    /// Retries happen within it. Default 120,000. librdkafka looks once a second, so an answer may come a second later.
    #[serde(default = "default_delivery_timeout_ms")]
    pub delivery_timeout_ms: u32,
    /// Events that may be under way at once; beyond it `send` waits. Default 50,000.
    #[serde(default = "default_max_in_flight_events")]
    pub max_in_flight_events: u32,
    /// Memory for events under way; beyond it `send` waits. Default 256 MiB.
    #[serde(default = "default_max_in_flight_kib")]
    pub max_in_flight_kib: u32,
    /// Largest event that is sent at all; the broker and the topic have limits of their own. Default 1,000,000.
    #[serde(default = "default_max_event_bytes")]
    pub max_event_bytes: u32,
    /// Whether to register the schema where the subject lacks it. If not, the subject's latest version must equal it.
    #[serde(default = "default_true")]
    pub register_schema: bool,
    /// Whether events that are sent without a `traceparent` get one. Default true.
    #[serde(default = "default_true")]
    pub generate_traceparent: bool,
    /// Any further librdkafka property. Those that the promises of the publisher rest on are refused.
    #[serde(default)]
    pub properties: BTreeMap<String, String>,
}

/// Schema registry with Confluent's HTTP interface.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Base address, such as `http://localhost:8081`.
    pub url: String,
    /// User for basic authentication.
    #[serde(default)]
    pub username: Option<String>,
    /// Password for basic authentication.
    #[serde(default)]
    pub password: Option<Secret>,
    /// How long one request may take. Default 10,000.
    #[serde(default = "default_registry_timeout_ms")]
    pub timeout_ms: u32,
}

/// How to connect to the brokers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case", tag = "protocol", deny_unknown_fields)]
pub enum Security {
    /// Neither encryption nor authentication.
    #[default]
    Plaintext,
    /// TLS; with a certificate in `tls` the client is authenticated by it.
    Ssl {
        /// Trust and identity.
        #[serde(default)]
        tls: Tls,
    },
    /// Authentication without encryption.
    SaslPlaintext {
        /// Who we are.
        sasl: Sasl,
    },
    /// Authentication inside TLS.
    SaslSsl {
        /// Who we are.
        sasl: Sasl,
        /// Whom we trust.
        #[serde(default)]
        tls: Tls,
    },
}

/// Trust and identity for TLS. All empty: the system's certificate authorities, and no client certificate.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the client's key.
    pub key_file: Option<PathBuf>,
    /// Password of the key.
    pub key_password: Option<Secret>,
}

/// SASL with a user and a password.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub mechanism: String,
    /// User.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// Compression of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// None: cheapest on a loopback or a very fast network.
    None,
    /// Little CPU, about half the bytes of order events.
    #[default]
    Lz4,
    /// Fewer bytes for more CPU.
    Zstd,
}

/// A password. `Debug` shows that there is one, not which.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// The password, for the one place that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What is wrong with a configuration, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("publisher configuration: {0}")]
pub struct InvalidConfig(pub(crate) String);

/// librdkafka properties that are set from fields, or that the promises rest on.
const OWNED: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "security.protocol",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "client.id",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "retries",
    "message.send.max.retries",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "delivery.timeout.ms",
    "message.timeout.ms",
    "linger.ms",
    "queue.buffering.max.ms",
    "queue.buffering.max.messages",
    "queue.buffering.max.kbytes",
    "message.max.bytes",
    "compression.type",
    "compression.codec",
    "partitioner",
    "transactional.id",
    "delivery.report.only.error",
];

impl PublisherConfig {
    /// Defaults for everything but where to publish.
    pub fn new(
        bootstrap_servers: impl Into<String>,
        registry_url: impl Into<String>,
        topic: impl Into<String>,
    ) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            registry: Registry {
                url: registry_url.into(),
                username: None,
                password: None,
                timeout_ms: default_registry_timeout_ms(),
            },
            topic: topic.into(),
            security: Security::default(),
            client_id: default_client_id(),
            linger_ms: default_linger_ms(),
            compression: Compression::default(),
            delivery_timeout_ms: default_delivery_timeout_ms(),
            max_in_flight_events: default_max_in_flight_events(),
            max_in_flight_kib: default_max_in_flight_kib(),
            max_event_bytes: default_max_event_bytes(),
            register_schema: true,
            generate_traceparent: true,
            properties: BTreeMap::new(),
        }
    }

    /// The librdkafka configuration that keeps the promises.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, InvalidConfig> {
        self.check()?;
        let mut config = ClientConfig::new();
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", &self.client_id)
            // The session writes each event once and in order, whatever is retried; retries end with the timeout.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("delivery.timeout.ms", self.delivery_timeout_ms.to_string())
            .set("linger.ms", self.linger_ms.to_string())
            // An event stays counted until its report has been handled, which is after its place is free for the next.
            .set(
                "queue.buffering.max.messages",
                self.max_in_flight_events.saturating_mul(2).clamp(1, 10_000_000).to_string(),
            )
            .set("queue.buffering.max.kbytes", self.max_in_flight_kib.to_string())
            .set("message.max.bytes", self.max_event_bytes.to_string())
            .set(
                "compression.type",
                match self.compression {
                    Compression::None => "none",
                    Compression::Lz4 => "lz4",
                    Compression::Zstd => "zstd",
                },
            )
            // The Java clients' choice, so that a key goes to the same partition whoever sends it: duplicates of an
            // event are found only within a partition.
            .set("partitioner", "murmur2_random");
        self.security.apply(&mut config);
        Ok(config)
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        let refuse = |text: String| Err(InvalidConfig(text));
        for (name, value) in [
            ("bootstrap_servers", &self.bootstrap_servers),
            ("registry.url", &self.registry.url),
            ("topic", &self.topic),
        ] {
            if value.is_empty() {
                return refuse(format!("`{name}` is empty"));
            }
        }
        if self.max_in_flight_events == 0 {
            return refuse("`max_in_flight_events` is 0; nothing could ever be sent".into());
        }
        if self.delivery_timeout_ms <= self.linger_ms {
            return refuse(format!(
                "`delivery_timeout_ms` ({}) must be more than `linger_ms` ({})",
                self.delivery_timeout_ms, self.linger_ms
            ));
        }
        if let Some(key) = self.properties.keys().find(|key| OWNED.contains(&key.as_str())) {
            return refuse(format!(
                "`properties.{key}` belongs to the publisher: it is set by a field of the configuration, or its \
                 promises rest on it"
            ));
        }
        Ok(())
    }
}

impl Security {
    fn apply(&self, config: &mut ClientConfig) {
        let (protocol, sasl, tls) = match self {
            Self::Plaintext => ("plaintext", None, None),
            Self::Ssl { tls } => ("ssl", None, Some(tls)),
            Self::SaslPlaintext { sasl } => ("sasl_plaintext", Some(sasl), None),
            Self::SaslSsl { sasl, tls } => ("sasl_ssl", Some(sasl), Some(tls)),
        };
        config.set("security.protocol", protocol);
        if let Some(sasl) = sasl {
            config.set("sasl.mechanism", &sasl.mechanism);
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", sasl.password.reveal());
        }
        let Some(tls) = tls else { return };
        for (key, file) in [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.certificate_file),
            ("ssl.key.location", &tls.key_file),
        ] {
            if let Some(file) = file {
                config.set(key, file.to_string_lossy());
            }
        }
        if let Some(password) = &tls.key_password {
            config.set("ssl.key.password", password.reveal());
        }
    }
}

fn default_client_id() -> String {
    "millrace-producer".into()
}
fn default_linger_ms() -> u32 {
    10
}
fn default_delivery_timeout_ms() -> u32 {
    120_000
}
fn default_max_in_flight_events() -> u32 {
    50_000
}
fn default_max_in_flight_kib() -> u32 {
    256 * 1024
}
fn default_max_event_bytes() -> u32 {
    1_000_000
}
fn default_registry_timeout_ms() -> u32 {
    10_000
}
fn default_true() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> PublisherConfig {
        PublisherConfig::new("localhost:9092", "http://localhost:8081", "orders")
    }

    #[test]
    fn secrets_never_show_in_debug() {
        let mut config = config();
        let secret = || Secret::new("hunter2");
        config.registry.password = Some(secret());
        config.security = Security::SaslSsl {
            sasl: Sasl { mechanism: "PLAIN".into(), username: "shop".into(), password: secret() },
            tls: Tls { key_password: Some(secret()), ..Tls::default() },
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && shown.contains("[redacted]"), "{shown}");
    }

    #[test]
    fn properties_that_the_promises_rest_on_are_refused_and_others_pass() {
        let mut config = config();
        config.properties.insert("socket.keepalive.enable".into(), "true".into());
        assert_eq!(config.client_config().unwrap().get("socket.keepalive.enable"), Some("true"));
        config.properties.insert("acks".into(), "1".into());
        assert!(config.client_config().unwrap_err().to_string().contains("`properties.acks`"));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_in_words() {
        for (change, word) in [
            ((|c| c.topic.clear()) as fn(&mut PublisherConfig), "`topic`"),
            (|c| c.max_in_flight_events = 0, "`max_in_flight_events`"),
            (|c| c.delivery_timeout_ms = 5, "`delivery_timeout_ms`"),
        ] {
            let mut config = config();
            change(&mut config);
            let error = config.client_config().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
