//! Why Kafka does not let a client in, in words. librdkafka tells of it in log lines and has one code for all of it, so this is
//! the one place that goes by its texts; they are told as well.

use std::time::{Duration, Instant};

use crate::{
    config::{Kafka, Sasl},
    tls::{Material, handshake},
};

/// How librdkafka begins what [`super::oauth::answer`] has told it.
const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token: ";

/// What is wrong with encryption or identity, and what to do; `None` if it is something else. `raw` is what librdkafka has
/// told. It makes handshakes with the brokers of the configuration, and blocks up to a few times `timeout` while it does.
pub fn explain(kafka: &Kafka, raw: &str, timeout: Duration) -> Option<String> {
    if let Some((_, why)) = raw.split_once(NO_TOKEN) {
        return Some(why.to_owned());
    }
    let words = handshakes(kafka, timeout).or_else(|| sasl(kafka, raw)).or_else(|| protocol(kafka, raw))?;
    Some(if raw.is_empty() { words } else { format!("{words} (librdkafka: {raw})") })
}

fn handshakes(kafka: &Kafka, timeout: Duration) -> Option<String> {
    if !kafka.is_encrypted() {
        return None;
    }
    let tls = &kafka.tls;
    let material = match Material::read("kafka.tls", &tls.files) {
        Ok(material) => material,
        Err(error) => return Some(format!("{error:#}")),
    };
    let until = Instant::now() + timeout;
    kafka.bootstrap_servers.split(',').take_while(|_| Instant::now() < until).find_map(|server| {
        let words = handshake::look("kafka.tls", server, &material, tls.verify_hostname, timeout)?;
        Some(format!("{server}: {words}"))
    })
}

fn sasl(kafka: &Kafka, raw: &str) -> Option<String> {
    let sasl = kafka.sasl.as_ref()?;
    let mechanism = sasl.mechanism();
    if raw.contains("Unsupported SASL mechanism") {
        return Some(format!(
            "the brokers do not take SASL {mechanism} on this port: set kafka.sasl.mechanism to one that they take, or correct the port"
        ));
    }
    let is_refused = ["SASL authentication error", "Authentication failed", "invalid credentials", "invalid_token"];
    if !is_refused.iter().any(|text| raw.contains(text)) {
        return None;
    }
    Some(match sasl {
        Sasl::Password { username, .. } => format!(
            "the brokers refuse user {username} by SASL {mechanism}: check kafka.sasl.username and its password, and that they know the user by this mechanism"
        ),
        Sasl::Token(source) => format!(
            "the brokers refuse the token of {} for client {}: it may have expired (are the clocks right?), or be of another issuer, audience or scope than they expect; see kafka.sasl.oauth",
            source.url, source.client_id
        ),
    })
}

fn protocol(kafka: &Kafka, raw: &str) -> Option<String> {
    let name = kafka.security_protocol.name();
    let hangs_up = raw.contains("Disconnected") || raw.contains("connecting to a SSL listener");
    hangs_up.then(|| {
        format!(
            "the brokers hang up: kafka.security_protocol = \"{name}\" is perhaps not what they expect on this port"
        )
    })
}
