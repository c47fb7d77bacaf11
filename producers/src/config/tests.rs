use super::*;
use crate::{OAuth, Sasl};

fn config() -> PublisherConfig {
    PublisherConfig::new("localhost:9092", "http://localhost:8081", "orders")
}

#[test]
fn secrets_never_show_in_debug() {
    let mut config = config();
    let secret = || Secret::new("hunter2");
    config.registry.password = Some(secret());
    config.registry.token = Some(secret());
    config.security = Security::SaslSsl {
        sasl: Sasl {
            mechanism: "OAUTHBEARER".into(),
            username: "shop".into(),
            password: secret(),
            oauth: Some(OAuth {
                token_url: "https://issuer.example/token".into(),
                client_id: "shop".into(),
                client_secret: secret(),
                scope: None,
                tls: Tls::default(),
            }),
        },
        tls: Tls { key_password: Some(secret()), ..Tls::default() },
    };
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && shown.contains("***"), "{shown}");
}

#[test]
fn properties_that_the_promises_rest_on_are_refused_and_others_pass() {
    let mut config = config();
    config.properties.insert("socket.keepalive.enable".into(), "true".into());
    assert_eq!(config.client_config().unwrap().get("socket.keepalive.enable"), Some("true"));
    assert_eq!(config.client_config().unwrap().get("socket.timeout.ms"), Some("10000"));
    config.properties.insert("socket.timeout.ms".into(), "30000".into());
    assert_eq!(config.client_config().unwrap().get("socket.timeout.ms"), Some("30000"));
    config.properties.insert("acks".into(), "1".into());
    assert!(config.client_config().unwrap_err().to_string().contains("`properties.acks`"));
    for name in ["enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm", "sasl.password"] {
        config.properties = [(name.to_owned(), "none".to_owned())].into();
        let error = config.client_config().unwrap_err().to_string();
        assert!(error.contains(&format!("`properties.{name}`")), "{error}");
    }
}

#[test]
fn no_event_may_be_larger_than_the_queue() {
    let mut config = config();
    assert_eq!(config.client_config().unwrap().get("message.max.bytes"), Some("1000000"));
    config.max_in_flight_kib = 512;
    assert_eq!(config.client_config().unwrap().get("message.max.bytes"), Some("524288"));
}

#[test]
fn settings_that_cannot_work_are_refused_in_words() {
    for (change, word) in [
        ((|c| c.topic.clear()) as fn(&mut PublisherConfig), "`topic`"),
        (|c| c.max_in_flight_events = 0, "`max_in_flight_events`"),
        (|c| c.registry.url = "http://shop:hunter2@registry:8081".into(), "`registry.url` holds a user"),
        (|c| c.delivery_timeout_ms = 5, "`delivery_timeout_ms`"),
        (|c| c.trace_ratio = f64::NAN, "`trace_ratio`"),
        (
            |c| c.security = Security::SaslPlaintext { sasl: Sasl::new("OAUTHBEARER", "u", "p") },
            "`security.sasl.oauth`",
        ),
        (|c| c.security = Security::SaslPlaintext { sasl: Sasl::new("SCRAM", "u", "p") }, "SCRAM-SHA-512"),
        (|c| c.security = Security::SaslPlaintext { sasl: Sasl::new("PLAIN", "", "p") }, "`security.sasl.username`"),
        (|c| c.registry.tls.ca_file = Some("Cargo.toml".into()), "holds no certificate in PEM"),
        (|c| c.registry.tls.key_file = Some("Cargo.toml".into()), "`registry.tls.certificate_file`"),
    ] {
        let mut config = config();
        change(&mut config);
        let error = config.client_config().unwrap_err().to_string();
        assert!(error.contains(word) && !error.contains("hunter2"), "{error}");
    }
}
