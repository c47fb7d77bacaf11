use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use millrace_producers::{ConnectError, EventPublisher, PublisherConfig, RegistryError, schema_id};
use millrace_schemas::OrderEvent;

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
    schema_id(&config.registry, &config.topic, millrace_schemas::ORDER_EVENT_V1, true).await.unwrap();
    EventPublisher::<OrderEvent>::connect(config).await.unwrap();
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
