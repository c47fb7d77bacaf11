use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use millrace_producers::{ConnectError, EventPublisher, PublisherConfig, RegistryError, schema_id};
use millrace_schemas::{ORDER_EVENT_V1, ORDER_EVENT_V2, OrderEvent, SUBJECTS};

use crate::stack::{NOBODY, topic};

async fn refusal(config: PublisherConfig) -> RegistryError {
    match EventPublisher::<OrderEvent>::connect(config).await {
        Err(ConnectError::Registry(error)) => error,
        other => panic!("expected the registry's refusal, got {other:?}"),
    }
}

/// A record that shares nothing with an order event.
const OTHER: &str = r#"{"type":"record","name":"OrderEvent","namespace":"com.millrace.orders",
    "fields":[{"name":"event_id","type":"int"}]}"#;

#[tokio::test]
async fn a_registry_that_is_down_is_named_at_once() {
    let mut config = topic(1, &[]).await;
    config.registry.url = format!("http://{NOBODY}");
    let began = Instant::now();
    let error = refusal(config).await;
    assert!(matches!(&error, RegistryError::Unreachable { url, .. } if url.contains(NOBODY)), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_schema_that_is_not_compatible_is_refused_with_the_way_out() {
    let config = topic(1, &[]).await;
    schema_id(&config.registry, &config.topic, OTHER, true).await.unwrap();
    let subject = format!("{}-value", config.topic);
    put(&config.registry.url, &format!("/config/{subject}"), r#"{"compatibility":"BACKWARD"}"#);
    let error = refusal(config).await;
    assert!(matches!(&error, RegistryError::Incompatible { subject: s, .. } if *s == subject), "{error}");
    assert!(error.to_string().contains("need a default"), "{error}");
}

#[tokio::test]
async fn with_registering_off_the_subject_must_have_the_schema() {
    let mut config = topic(1, &[]).await;
    config.register_schema = false;
    let error = refusal(config.clone()).await;
    assert!(matches!(error, RegistryError::NotRegistered { .. }), "{error}");
    let id = schema_id(&config.registry, &config.topic, ORDER_EVENT_V1, true).await.unwrap();
    EventPublisher::<OrderEvent>::connect(config.clone()).await.unwrap();
    // A producer that is deployed before this one does not lock it out.
    schema_id(&config.registry, &config.topic, ORDER_EVENT_V2, true).await.unwrap();
    assert_eq!(schema_id(&config.registry, &config.topic, ORDER_EVENT_V1, false).await.unwrap(), id);
    EventPublisher::<OrderEvent>::connect(config).await.unwrap();
}

/// The registry agrees with what `schemas/` declares: every version of every schema is taken in turn, one that breaks
/// somebody is refused with 409, and nothing is left of it.
#[tokio::test]
async fn every_shipped_version_registers_under_its_declared_level_and_a_breaking_one_is_refused() {
    for subject in SUBJECTS {
        let config = topic(1, &[]).await;
        let (registry, name) = (&config.registry, format!("{}-value", config.topic));
        let mut ids = vec![schema_id(registry, &config.topic, subject.versions[0], true).await.unwrap()];
        let level = subject.compatibility().unwrap();
        put(&registry.url, &format!("/config/{name}"), &format!(r#"{{"compatibility":"{level}"}}"#));
        for version in &subject.versions[1..] {
            ids.push(schema_id(registry, &config.topic, version, true).await.unwrap());
        }
        let latest = subject.versions[subject.versions.len() - 1];
        // A field that old events lack, and no default: new readers could not read what is in the topic.
        let breaking = latest.replacen("\"fields\": [", "\"fields\": [{\"name\": \"must\", \"type\": \"string\"},", 1);
        assert_ne!(breaking, latest);
        let error = schema_id(registry, &config.topic, &breaking, true).await.unwrap_err();
        assert!(matches!(&error, RegistryError::Incompatible { subject: s, .. } if *s == name), "{error}");
        for (version, id) in subject.versions.iter().zip(ids) {
            assert_eq!(schema_id(registry, &config.topic, version, false).await.unwrap(), id, "{}", subject.name);
        }
    }
}

/// What a first version without a default for its enum would have cost: the registry refuses the new symbol.
#[tokio::test]
async fn a_symbol_that_old_readers_have_no_default_for_is_refused() {
    let config = topic(1, &[]).await;
    let old = ORDER_EVENT_V1.replace("        \"default\": \"unknown\",\n", "");
    assert_ne!(old, ORDER_EVENT_V1);
    schema_id(&config.registry, &config.topic, &old, true).await.unwrap();
    put(&config.registry.url, &format!("/config/{}-value", config.topic), r#"{"compatibility":"FULL"}"#);
    let error = schema_id(&config.registry, &config.topic, ORDER_EVENT_V2, true).await.unwrap_err();
    assert!(matches!(error, RegistryError::Incompatible { .. }), "{error}");
}

/// One HTTP request, so that the tests need no HTTP client of their own.
fn put(base: &str, path: &str, body: &str) {
    let (host, prefix) = base.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    write!(
        stream,
        "PUT /{prefix}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
