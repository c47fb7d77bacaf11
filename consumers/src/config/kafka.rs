//! The section `[kafka]`, and the librdkafka properties it stands for. It makes no client.

use std::path::PathBuf;

use super::{
    Outside, Secret, connections,
    reader::{Found, Section, boolean, choice, size, text},
};

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

/// Authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sasl {
    /// How.
    pub mechanism: SaslMechanism,
    /// Who.
    pub username: String,
    /// With what.
    pub password: Secret,
}

/// SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    /// PLAIN.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

/// Encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate and that of its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Of the client's key.
    pub key_password: Option<Secret>,
    /// Whether a broker's certificate must carry its host name.
    pub verify_hostname: bool,
}

const PROTOCOLS: &[(&str, SecurityProtocol)] = &[
    ("plaintext", SecurityProtocol::Plaintext),
    ("ssl", SecurityProtocol::Ssl),
    ("sasl_plaintext", SecurityProtocol::SaslPlaintext),
    ("sasl_ssl", SecurityProtocol::SaslSsl),
];

const MECHANISMS: &[(&str, SaslMechanism)] = &[
    ("PLAIN", SaslMechanism::Plain),
    ("SCRAM-SHA-256", SaslMechanism::ScramSha256),
    ("SCRAM-SHA-512", SaslMechanism::ScramSha512),
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
    ("sasl.mechanism", SASL_KEY),
    ("sasl.mechanisms", SASL_KEY),
    ("sasl.username", SASL_KEY),
    ("sasl.password", SASL_KEY),
    ("ssl.ca.location", TLS_KEY),
    ("ssl.ca.pem", TLS_KEY),
    ("ssl.certificate.location", TLS_KEY),
    ("ssl.certificate.pem", TLS_KEY),
    ("ssl.key.location", TLS_KEY),
    ("ssl.key.pem", TLS_KEY),
    ("ssl.key.password", TLS_KEY),
    ("ssl.keystore.password", TLS_KEY),
    ("ssl.endpoint.identification.algorithm", "use the key kafka.tls.verify_hostname"),
    (
        "enable.ssl.certificate.verification",
        "certificates are always verified; name their authority in kafka.tls.ca_file",
    ),
];

impl Kafka {
    /// The librdkafka properties that consumers, producers and admin clients share. They hold secrets: never log them.
    pub fn client_properties(&self) -> Vec<(String, String)> {
        let mut properties = vec![
            ("bootstrap.servers".to_owned(), self.bootstrap_servers.clone()),
            ("security.protocol".to_owned(), name_of(PROTOCOLS, self.security_protocol).to_owned()),
        ];
        let mut set = |name: &str, value: &str| properties.push((name.to_owned(), value.to_owned()));
        if let Some(sasl) = &self.sasl {
            set("sasl.mechanism", name_of(MECHANISMS, sasl.mechanism));
            set("sasl.username", &sasl.username);
            set("sasl.password", sasl.password.expose());
        }
        if matches!(self.security_protocol, SecurityProtocol::Ssl | SecurityProtocol::SaslSsl) {
            let algorithm = if self.tls.verify_hostname { "https" } else { "none" };
            set("ssl.endpoint.identification.algorithm", algorithm);
            if let Some(file) = &self.tls.ca_file {
                set("ssl.ca.location", &file.to_string_lossy());
            }
            if let Some((certificate, key)) = &self.tls.client {
                set("ssl.certificate.location", &certificate.to_string_lossy());
                set("ssl.key.location", &key.to_string_lossy());
            }
            if let Some(password) = &self.tls.key_password {
                set("ssl.key.password", password.expose());
            }
        }
        properties.extend(self.properties.iter().cloned());
        properties
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
    let sasl = sasl(section.table("sasl"), protocol, outside);
    let tls = tls(section.table("tls"), protocol, outside);
    let properties = properties(section.table("properties"));
    section.finish();
    if tls.as_ref().is_some_and(|tls| !tls.verify_hostname) {
        warnings.push(
            "kafka.tls.verify_hostname is false: any broker with a certificate of a trusted authority is believed"
                .to_owned(),
        );
    }
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

fn sasl(
    mut section: Section<'_, '_>,
    protocol: Option<SecurityProtocol>,
    outside: &Outside<'_>,
) -> Option<Option<Sasl>> {
    let wanted = matches!(protocol, Some(SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl));
    if !section.is_present() {
        if wanted {
            section.report(None, "username", "missing: kafka.security_protocol asks for a section [kafka.sasl]");
            return None;
        }
        return Some(None);
    }
    let mechanism = section.required("mechanism", "mechanism = \"SCRAM-SHA-512\"", choice(MECHANISMS));
    let username = section.required("username", "username = \"millrace\"", text);
    let password = connections::secret(&mut section, "password", outside);
    if matches!(password, Some(None)) {
        section.report(None, "password", "missing; expected `password_file`, `password_env` or `password`");
    }
    if !wanted && protocol.is_some() {
        let message = "not used unless kafka.security_protocol is \"sasl_ssl\" or \"sasl_plaintext\"";
        section.report(None, "mechanism", message);
    }
    section.finish();
    Some(Some(Sasl { mechanism: mechanism?.value, username: username?.value, password: password?? }))
}

fn tls(mut section: Section<'_, '_>, protocol: Option<SecurityProtocol>, outside: &Outside<'_>) -> Option<Tls> {
    let ca_file = connections::path(&mut section, "ca_file", outside);
    let certificate = connections::path(&mut section, "certificate_file", outside);
    let key = connections::path(&mut section, "key_file", outside);
    let key_password = connections::secret(&mut section, "key_password", outside);
    let verify_hostname = section.or("verify_hostname", true, boolean);
    let used = matches!(protocol, None | Some(SecurityProtocol::Ssl | SecurityProtocol::SaslSsl));
    if section.is_present() && !used {
        let message = "not used unless kafka.security_protocol is \"ssl\" or \"sasl_ssl\"";
        section.report(None, "ca_file", message);
    }
    let client = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some(Some((certificate, key))),
        (None, None) => Some(None),
        (Some(_), None) => {
            section.report(None, "key_file", "missing: certificate_file needs it");
            None
        }
        (None, Some(_)) => {
            section.report(None, "certificate_file", "missing: key_file needs it");
            None
        }
    };
    section.finish();
    Some(Tls { ca_file: ca_file?, client: client?, key_password: key_password?, verify_hostname: verify_hostname? })
}

fn properties(section: Section<'_, '_>) -> Option<Vec<(String, String)>> {
    let mut accepted = Some(Vec::new());
    for (name, value) in section.entries() {
        match OWNED.iter().find(|(owned, _)| *owned == name.value) {
            // The value is left out of the message: it may be a password.
            Some((_, reason)) => {
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
