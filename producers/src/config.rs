//! What a publisher needs to know, checked when it connects. Secrets never show in `Debug`.

use std::collections::BTreeMap;

use millrace_identity::Secret;
use rdkafka::ClientConfig;
use serde::Deserialize;

use crate::security::{Security, Tls};

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
    /// Largest event that is sent at all, and never more than `max_in_flight_kib`; the broker and the topic have limits of their own. Default 1,000,000.
    #[serde(default = "default_max_event_bytes")]
    pub max_event_bytes: u32,
    /// Whether to register the schema where the subject lacks it. If not, the subject's latest version must equal it.
    #[serde(default = "default_true")]
    pub register_schema: bool,
    /// Whether events that are sent without a `traceparent` get one. Default true.
    #[serde(default = "default_true")]
    pub generate_traceparent: bool,
    /// Share, 0 to 1, of the events sent outside any span that begin a trace of their own, if the service has set a tracer
    /// provider of OpenTelemetry before it connects. Events sent within a span always belong to its trace. Default 0.01.
    #[serde(default = "default_trace_ratio")]
    pub trace_ratio: f64,
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
    /// A bearer token, instead of user and password.
    #[serde(default)]
    pub token: Option<Secret>,
    /// Whom to trust, and who we are, if the address begins with https.
    #[serde(default)]
    pub tls: Tls,
    /// How long one request may take. Default 10,000.
    #[serde(default = "default_registry_timeout_ms")]
    pub timeout_ms: u32,
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

/// What is wrong with a configuration, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("publisher configuration: {0}")]
pub struct InvalidConfig(pub(crate) String);

/// librdkafka properties that are set from fields, or that the promises rest on.
const OWNED: &[&str] = &[
    "bootstrap.servers",
    "metadata.broker.list",
    "security.protocol",
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

/// Whom to trust and who we are is said by fields alone, so whatever begins like these is refused as well.
const OWNED_PREFIXES: &[&str] = &["ssl.", "sasl.", "enable.ssl.", "enable.sasl.", "https.", "plugin."];

/// What begins like that and cannot weaken the check of a broker's certificate.
const ALLOWED: &[&str] = &["ssl.cipher.suites", "ssl.curves.list", "ssl.sigalgs.list", "ssl.crl.location"];

fn is_owned(key: &str) -> bool {
    let begins = OWNED_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    OWNED.contains(&key) || (begins && !ALLOWED.contains(&key))
}

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
                token: None,
                tls: Tls::default(),
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
            trace_ratio: default_trace_ratio(),
            properties: BTreeMap::new(),
        }
    }

    /// The librdkafka configuration that keeps the promises.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, InvalidConfig> {
        self.check()?;
        let mut config = ClientConfig::new();
        // A broker whose host loses the network breaks no connection: only an answer that does not come tells of it, and until
        // then its partitions are sent nothing. librdkafka waits for 60 s.
        config.set("socket.timeout.ms", "10000");
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
            // One that the queue can never hold would wait for room for ever.
            .set("message.max.bytes", self.max_event_bytes.min(self.max_in_flight_kib.saturating_mul(1024)).to_string())
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
        // The URL itself is left out: it may hold the secret.
        if self.registry.url.contains('@') {
            return refuse(
                "`registry.url` holds a user or password; URLs end up in logs and errors: use `registry.username` and \
                 `registry.password`"
                    .into(),
            );
        }
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return refuse(format!("`trace_ratio` is {}; expected a share from 0 to 1", self.trace_ratio));
        }
        if self.delivery_timeout_ms <= self.linger_ms {
            return refuse(format!(
                "`delivery_timeout_ms` ({}) must be more than `linger_ms` ({})",
                self.delivery_timeout_ms, self.linger_ms
            ));
        }
        if let Some(key) = self.properties.keys().find(|key| is_owned(key)) {
            return refuse(format!(
                "`properties.{key}` belongs to the publisher: it is set by a field of the configuration, or its \
                 promises rest on it"
            ));
        }
        if self.registry.token.is_some() && self.registry.username.is_some() {
            return refuse("`registry.username` is not used with `registry.token`; keep one of them".into());
        }
        self.security.check().map_err(InvalidConfig)?;
        self.registry.tls.read("registry.tls").map(drop).map_err(InvalidConfig)
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
fn default_trace_ratio() -> f64 {
    0.01
}

fn default_true() -> bool {
    true
}

#[cfg(test)]
mod tests;
