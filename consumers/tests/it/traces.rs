//! The way of an event as spans: from the producer's publish by a link to the batch that it landed in, at a receiver of OTLP.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use millrace_producers::{EventPublisher, PublisherConfig};
use millrace_schemas::OrderEvent;
use millrace_telemetry::traces::{Headers, Settings, Traces};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;

use crate::small::Small;

const SOON: Duration = Duration::from_secs(20);
const AUTHORIZATION: &str = "Bearer of-the-receiver";

/// A span, and the attributes of its resource.
type Received = (Vec<KeyValue>, Span);

/// A receiver of OTLP over HTTP that keeps the spans of requests with the right authorization.
struct Receiver {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    async fn start() -> Self {
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        let take = async move |headers: HeaderMap, body: Bytes| {
            assert_eq!(headers["authorization"], AUTHORIZATION);
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            for resource_spans in request.resource_spans {
                let resource = resource_spans.resource.unwrap().attributes;
                let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
                kept.lock().unwrap().extend(spans.map(|span| (resource.clone(), span)));
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { address, spans }
    }

    /// Every span of a name, once there are as many as `least`.
    async fn named(&self, name: &str, least: usize) -> Vec<(Vec<KeyValue>, Span)> {
        let deadline = Instant::now() + SOON;
        loop {
            let found: Vec<_> =
                self.spans.lock().unwrap().iter().filter(|(_, span)| span.name == name).cloned().collect();
            if found.len() >= least {
                return found;
            }
            let names: Vec<String> = self.spans.lock().unwrap().iter().map(|(_, span)| span.name.clone()).collect();
            assert!(Instant::now() < deadline, "{least} of {name} in {names:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn children(&self, parent: &Span) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        spans.iter().map(|(_, span)| span.clone()).filter(|span| span.parent_span_id == parent.span_id).collect()
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|one| one.key == key).unwrap_or_else(|| panic!("no {key} in {attributes:?}"));
    match &found.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text.clone(),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        Some(AnyValue { value: Some(Value::DoubleValue(number)) }) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

fn has(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(attribute(&span.attributes, key), *value, "{key} of {}", span.name);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_of_an_event_is_linked_from_its_publish_to_its_insert() {
    let receiver = Receiver::start().await;
    let mut small = Small::new().await;
    let endpoint = format!("http://{}", receiver.address);
    small.set("#endpoint = \"http://localhost:4318\"", &format!("endpoint = {endpoint:?}"));
    small.set("#headers_file = \"/run/secrets/traces\"", &format!("headers = \"authorization: {AUTHORIZATION}\""));
    small.set("#sample_ratio = 0.01", "sample_ratio = 0.0");

    let settings = Settings {
        endpoint: format!("{endpoint}/v1/traces"),
        sample_ratio: 1.0,
        headers: Headers(vec![("authorization".into(), AUTHORIZATION.into())]),
        authorities: None,
        timeout: Duration::from_secs(5),
        service_name: "shop".into(),
        service_version: "7".into(),
    };
    let traces = Traces::start(settings, &tokio::runtime::Handle::current()).unwrap();
    let stack = &small.world.stack;
    let mut config = PublisherConfig::new(&stack.kafka, &stack.registry, &small.topic);
    config.trace_ratio = 1.0;
    let publisher = EventPublisher::<OrderEvent>::connect(config).await.unwrap();
    let publish = async |event: Vec<u8>| {
        let sent = publisher.send_encoded(b"key", &event).await.unwrap();
        assert!(sent.await.is_ok());
    };
    for id in 0..3 {
        publish(small.event(id)).await;
    }
    // Without a traced event in it, a batch is not traced.
    small.produce(0, 3..4).await;
    let mut running = small.run();
    small.until_rows(4, SOON, &running).await;

    let send = format!("send {}", small.topic);
    let sent = receiver.named(&send, 3).await;
    for (offset, (resource, span)) in sent.iter().enumerate() {
        assert_eq!((&*attribute(resource, "service.name"), &*attribute(resource, "service.version")), ("shop", "7"));
        assert_eq!((span.kind(), span.parent_span_id.len()), (SpanKind::Producer, 0));
        let offset = offset.to_string();
        has(
            span,
            &[
                ("messaging.system", "kafka"),
                ("messaging.operation.name", "send"),
                ("messaging.operation.type", "send"),
                ("messaging.destination.name", &small.topic),
                ("messaging.destination.partition.id", "0"),
                ("messaging.kafka.offset", &offset),
            ],
        );
    }

    let process = format!("process {}", small.topic);
    let batches = receiver.named(&process, 1).await;
    let links: Vec<_> = batches.iter().flat_map(|(_, batch)| &batch.links).collect();
    for (_, sent) in &sent {
        let linked = links.iter().filter(|link| (&link.trace_id, &link.span_id) == (&sent.trace_id, &sent.span_id));
        assert_eq!(linked.count(), 1, "{} in {links:?}", hex(&sent.span_id));
    }
    assert_eq!(links.len(), 3);
    let (resource, batch) = &batches[0];
    assert_eq!(attribute(resource, "service.name"), "millrace");
    assert_eq!(attribute(resource, "service.version"), env!("CARGO_PKG_VERSION"));
    assert_eq!((batch.kind(), batch.parent_span_id.len()), (SpanKind::Consumer, 0));
    assert!(batch.status.as_ref().is_none_or(|status| status.code() != StatusCode::Error), "{batch:?}");
    let (topic, group) = (small.topic.clone(), small.group.clone());
    let messaging = |operation, kind| {
        [
            ("messaging.system", "kafka"),
            ("messaging.operation.name", operation),
            ("messaging.operation.type", kind),
            ("messaging.destination.name", topic.as_str()),
            ("messaging.consumer.group.name", group.as_str()),
        ]
    };
    has(batch, &messaging("process", "process"));
    has(batch, &[("messaging.destination.partition.id", "0"), ("millrace.batch.trigger", "age")]);

    let children = receiver.children(batch);
    let poll = format!("poll {}", small.topic);
    for name in [poll.as_str(), "decode", "dedup", "enrich", "INSERT orders"] {
        let child: Vec<&Span> = children.iter().filter(|child| child.name == name).collect();
        assert_eq!(child.len(), 1, "{name} in {children:?}");
        assert_eq!(child[0].trace_id, batch.trace_id);
        assert!(child[0].start_time_unix_nano >= batch.start_time_unix_nano);
        assert!(child[0].end_time_unix_nano <= batch.end_time_unix_nano);
        assert!(child[0].end_time_unix_nano >= child[0].start_time_unix_nano);
    }
    let child = |name: &str| children.iter().find(|child| child.name == name).unwrap();
    assert_eq!((child(&poll).kind(), child("decode").kind()), (SpanKind::Client, SpanKind::Internal));
    has(child(&poll), &messaging("poll", "receive"));
    let rows = attribute(&batch.attributes, "millrace.batch.rows");
    assert_eq!(attribute(&batch.attributes, "messaging.batch.message_count"), rows);
    assert_eq!(child("INSERT orders").kind(), SpanKind::Client);
    has(
        child("INSERT orders"),
        &[
            ("db.system.name", "clickhouse"),
            ("db.operation.name", "INSERT"),
            ("db.namespace", &small.world.database),
            ("db.collection.name", "orders"),
            ("db.operation.batch.size", &rows),
            ("server.address", "127.0.0.1"),
        ],
    );

    // An insert that fails is an attempt with an error in the trace of the event, and its log lines name that trace.
    small.world.sql("RENAME TABLE {db}.orders TO {db}.away").await;
    publish(small.event(4)).await;
    running.until_logged("ClickHouse refuses the rows", SOON).await;
    small.world.sql("RENAME TABLE {db}.away TO {db}.orders").await;
    small.until_rows(5, SOON, &running).await;
    let deadline = Instant::now() + SOON;
    let failed = loop {
        let inserts = receiver.named("INSERT orders", 1).await;
        let failed =
            |(_, span): &(_, Span)| span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error);
        if let Some((_, failed)) = inserts.into_iter().find(failed) {
            break failed;
        }
        assert!(Instant::now() < deadline, "{}", running.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    has(&failed, &[("error.type", "60"), ("db.response.status_code", "60")]);
    assert!(failed.status.as_ref().unwrap().message.contains("orders"), "{failed:?}");
    let sent = receiver.named(&send, 4).await;
    assert!(running.terminate().await.0.success());
    let batches = receiver.named(&process, 2).await;
    let (_, batch) = batches.iter().find(|(_, batch)| batch.span_id == failed.parent_span_id).unwrap();
    assert_eq!(batch.links[0].span_id, sent[3].1.span_id);
    assert!(receiver.children(batch).iter().filter(|child| child.name == "INSERT orders").count() > 1);
    let log = running.log();
    let line = log.lines().find(|line| line.contains("ClickHouse refuses the rows")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(line["trace_id"].as_str(), Some(hex(&batch.trace_id).as_str()), "{line}");
    assert_eq!(line["span_id"].as_str(), Some(hex(&batch.span_id).as_str()), "{line}");

    // A receiver that is not there costs warnings, not events.
    small.set(&format!("endpoint = {endpoint:?}"), "endpoint = \"http://127.0.0.1:1\"");
    small.set("sample_ratio = 0.0", "sample_ratio = 1.0");
    publish(small.event(5)).await;
    let mut running = small.run();
    small.until_rows(6, SOON, &running).await;
    running.until_logged("traces are not received", SOON).await;
    assert!(running.terminate().await.0.success());
    publisher.close(Duration::from_secs(5)).await.unwrap();
    traces.close(Duration::from_secs(5)).await;
    small.world.clean_up().await;
}
