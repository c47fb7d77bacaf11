//! The section `[kafka]`, and the librdkafka properties it stands for. It makes no client.

use std::sync::Arc;

use super::{
    Outside, Sasl, Tls,
    reader::{Found, Section, choice, size, text},
    security,
};
use crate::tls::Material;

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, several joined by commas.
    pub bootstrap_servers: String,
    /// Consumer group.
    pub group_id: String,
    /// Encryption and authentication.
    pub security_protocol: SecurityProtocol,
    /// There exactly if the protocol is one of the two with SASL.
    pub sasl: Option<Sasl>,
    /// Read only if the protocol is one of the two with TLS.
    pub tls: Tls,
    /// What the files of `tls` held when they were read, for clients that must all have the same; else each client reads
    /// the files itself.
    pub pinned: Option<Arc<Material>>,
    /// Bytes that librdkafka may hold fetched ahead, for each queue.
    pub queue_max_bytes: usize,
    /// Further librdkafka properties, none of which the delivery protocol owns.
    pub properties: Vec<(String, String)>,
}

/// Encryption and authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Neither.
    Plaintext,
    /// TLS.
    Ssl,
    /// SASL, unencrypted.
    SaslPlaintext,
    /// SASL over TLS.
    SaslSsl,
}

const PROTOCOLS: &[(&str, SecurityProtocol)] = &[
    ("plaintext", SecurityProtocol::Plaintext),
    ("ssl", SecurityProtocol::Ssl),
    ("sasl_plaintext", SecurityProtocol::SaslPlaintext),
    ("sasl_ssl", SecurityProtocol::SaslSsl),
];

const COMMITS: &str = "offsets are committed only after the rows are in ClickHouse, which is what makes delivery exact";
const ASSIGNMENT: &str = "partitions are given up one by one (cooperative-sticky), which the claims rely on";
const DEAD_LETTERS: &str = "a dead letter must be acknowledged by all replicas, once, before its offset is committed";
const TLS_KEY: &str = "use the section [kafka.tls]";
const SASL_KEY: &str = "use the section [kafka.sasl]";

/// Properties that may not be set by hand, and why or how else.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use the key kafka.bootstrap_servers"),
    ("metadata.broker.list", "use the key kafka.bootstrap_servers"),
    ("group.id", "use the key kafka.group_id"),
    ("security.protocol", "use the key kafka.security_protocol"),
    ("queued.max.messages.kbytes", "use the key kafka.queue_max_bytes"),
    ("auto.offset.reset", "use the key start of the topic"),
    ("enable.auto.commit", COMMITS),
    ("auto.commit.enable", COMMITS),
    ("auto.commit.interval.ms", COMMITS),
    ("enable.auto.offset.store", COMMITS),
    ("offset.store.method", COMMITS),
    ("enable.partition.eof", "reference topics are known to be read whole by it"),
    ("isolation.level", "events of aborted transactions must not land, so it is always read_committed"),
    ("partition.assignment.strategy", ASSIGNMENT),
    ("group.protocol", ASSIGNMENT),
    ("group.remote.assignor", ASSIGNMENT),
    ("acks", DEAD_LETTERS),
    ("request.required.acks", DEAD_LETTERS),
    ("enable.idempotence", DEAD_LETTERS),
    ("transactional.id", DEAD_LETTERS),
    ("ssl.endpoint.identification.algorithm", "use the key kafka.tls.verify_hostname"),
    (
        "enable.ssl.certificate.verification",
        "certificates are always verified; name their authority in kafka.tls.ca_file",
    ),
];

/// Whatever else begins like this, is refused as well: encryption, and who we are, can be told from this file's own keys
/// alone.
const OWNED_PREFIXES: &[(&str, &str)] = &[
    ("ssl.", TLS_KEY),
    ("sasl.", SASL_KEY),
    ("enable.sasl.", SASL_KEY),
    ("enable.ssl.", TLS_KEY),
    ("https.", "use kafka.sasl.oauth.ca_file"),
    ("plugin.", "a plug-in could change any other setting"),
];

/// What begins like that and cannot weaken the check of a broker's certificate.
const ALLOWED: &[&str] = &["ssl.cipher.suites", "ssl.curves.list", "ssl.sigalgs.list", "ssl.crl.location"];

fn owned(name: &str) -> Option<&'static str> {
    let whole = OWNED.iter().find(|(owned, _)| *owned == name);
    let begins = || OWNED_PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix) && !ALLOWED.contains(&name));
    whole.or_else(begins).map(|(_, reason)| *reason)
}

impl Kafka {
    /// The librdkafka properties that consumers, producers and admin clients share. They hold secrets: never log them.
    pub fn client_properties(&self) -> Vec<(String, String)> {
        let mut properties = vec![
            ("bootstrap.servers".to_owned(), self.bootstrap_servers.clone()),
            ("security.protocol".to_owned(), self.security_protocol.name().to_owned()),
        ];
        let mut set = |name: &str, value: &str| properties.push((name.to_owned(), value.to_owned()));
        if let Some(sasl) = &self.sasl {
            set("sasl.mechanism", sasl.mechanism());
            // Tokens come by a callback, see `crate::kafka::oauth`.
            if let Sasl::Password { username, password, .. } = sasl {
                set("sasl.username", username);
                set("sasl.password", password.expose());
            }
        }
        if self.is_encrypted() {
            let algorithm = if self.tls.verify_hostname { "https" } else { "none" };
            set("ssl.endpoint.identification.algorithm", algorithm);
            match &self.pinned {
                Some(material) => {
                    material.authorities.iter().for_each(|pem| set("ssl.ca.pem", pem));
                    if let Some(identity) = &material.identity {
                        set("ssl.certificate.pem", &identity.certificates);
                        set("ssl.key.pem", identity.key.expose());
                    }
                }
                None => self.file_properties(&mut set),
            }
        }
        properties.extend(self.properties.iter().cloned());
        properties
    }

    /// Whether connections are encrypted.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.security_protocol, SecurityProtocol::Ssl | SecurityProtocol::SaslSsl)
    }

    fn file_properties(&self, set: &mut impl FnMut(&str, &str)) {
        let files = &self.tls.files;
        if let Some(file) = &files.ca {
            set("ssl.ca.location", &file.to_string_lossy());
        }
        if let Some((certificate, key)) = &files.client {
            set("ssl.certificate.location", &certificate.to_string_lossy());
            set("ssl.key.location", &key.to_string_lossy());
        }
        if let Some(password) = &files.key_password {
            set("ssl.key.password", password.expose());
        }
    }
}

impl SecurityProtocol {
    /// As librdkafka and the configuration call it.
    pub(crate) fn name(self) -> &'static str {
        name_of(PROTOCOLS, self)
    }
}

fn name_of<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, candidate)| *candidate == value).map_or("", |(name, _)| name)
}

pub(super) fn read(mut section: Section<'_, '_>, outside: &Outside<'_>, warnings: &mut Vec<String>) -> Option<Kafka> {
    let servers = section.required("bootstrap_servers", "bootstrap_servers = \"localhost:9092\"", text);
    let servers = servers.and_then(|found| addresses(&section, found));
    let group_id = section.or("group_id", "millrace".to_owned(), text);
    let protocol = section.or("security_protocol", SecurityProtocol::Plaintext, choice(PROTOCOLS));
    let queue_max_bytes = section.or("queue_max_bytes", 32 << 20, size(1 << 20..=2 << 30));
    let sasl = security::kafka_sasl(section.table("sasl"), protocol, outside, warnings);
    let tls = security::kafka_tls(section.table("tls"), protocol, outside, warnings);
    let properties = properties(section.table("properties"));
    section.finish();
    if protocol == Some(SecurityProtocol::SaslPlaintext) {
        warnings.push(
            "kafka.security_protocol is sasl_plaintext: the password or its exchange crosses the network unencrypted"
                .to_owned(),
        );
    }
    Some(Kafka {
        bootstrap_servers: servers?,
        group_id: group_id?,
        security_protocol: protocol?,
        sasl: sasl?,
        tls: tls?,
        pinned: None,
        queue_max_bytes: queue_max_bytes?,
        properties: properties?,
    })
}

fn addresses(section: &Section<'_, '_>, found: Found<String>) -> Option<String> {
    let is_address = |text: &str| {
        text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    let addresses: Vec<&str> = found.value.split(',').map(str::trim).collect();
    if let Some(bad) = addresses.iter().find(|address| !is_address(address)) {
        let message =
            format!("found {bad:?}, expected host:port, several joined by commas, as in \"kafka-1:9092,kafka-2:9092\"");
        section.report(found.at, "bootstrap_servers", message);
        return None;
    }
    Some(addresses.join(","))
}

fn properties(section: Section<'_, '_>) -> Option<Vec<(String, String)>> {
    let mut accepted = Some(Vec::new());
    for (name, value) in section.entries() {
        match owned(&name.value) {
            // The value is left out of the message: it may be a password.
            Some(reason) => {
                section.report(name.at, &name.value, format!("may not be set here: {reason}"));
                accepted = None;
            }
            None => {
                if let Some(properties) = &mut accepted {
                    properties.push((name.value, value.value));
                }
            }
        }
    }
    accepted
}
