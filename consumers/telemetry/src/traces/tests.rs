use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use opentelemetry::trace::{Span as _, SpanContext, SpanId, TraceFlags, TraceState, Tracer, TracerProvider};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;

use super::*;

fn sampled(flags: TraceFlags) -> Link {
    Link::with_context(SpanContext::new(TraceId::from(7), SpanId::from(8), flags, true, TraceState::default()))
}

fn decision(ratio: f64, links: &[Link]) -> SamplingDecision {
    let sampler = Sampler::ParentBased(Box::new(LinkedOrShare(Sampler::TraceIdRatioBased(ratio))));
    sampler.should_sample(None, TraceId::from(u128::MAX), "process", &SpanKind::Consumer, &[], links).decision
}

#[test]
fn a_trace_is_sampled_for_a_sampled_event_in_it_or_by_its_share() {
    assert_eq!(decision(0.0, &[]), SamplingDecision::Drop);
    assert_eq!(decision(0.0, &[sampled(TraceFlags::NOT_SAMPLED)]), SamplingDecision::Drop);
    let links = [sampled(TraceFlags::NOT_SAMPLED), sampled(TraceFlags::SAMPLED)];
    assert_eq!(decision(0.0, &links), SamplingDecision::RecordAndSample);
    assert_eq!(decision(1.0, &[]), SamplingDecision::RecordAndSample);
}

fn provider(spans: mpsc::Sender<SpanData>) -> SdkTracerProvider {
    SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).with_span_processor(Queue(spans)).build()
}

#[test]
fn what_does_not_fit_into_the_queue_is_dropped_and_nobody_waits() {
    let (spans, mut queue) = mpsc::channel(2);
    let provider = provider(spans);
    let tracer = provider.tracer("test");
    for name in ["first", "second", "third"] {
        tracer.start(name).end();
    }
    let names: Vec<String> = std::iter::from_fn(|| queue.try_recv().ok()).map(|span| span.name.into_owned()).collect();
    assert_eq!(names, ["first", "second"]);
    drop(queue);
    tracer.start("nobody listens").end();
}

/// Answers one request with each status, and gives their bodies and headers back.
fn receiver(
    statuses: &'static [&'static str],
) -> (String, thread::JoinHandle<Vec<(String, ExportTraceServiceRequest)>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let serving = thread::spawn(move || {
        let answer = |status: &&str| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut bytes = Vec::new();
            let (head, length) = loop {
                let mut piece = [0; 4096];
                let read = stream.read(&mut piece).unwrap();
                bytes.extend_from_slice(&piece[..read]);
                if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                    let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap().to_lowercase();
                    let (_, length) = head.split_once("content-length: ").unwrap();
                    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
                    break (head, length);
                }
            };
            let missing = length - bytes.len();
            let mut rest = vec![0; missing];
            stream.read_exact(&mut rest).unwrap();
            bytes.extend(rest);
            write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
            (head, ExportTraceServiceRequest::decode(&bytes[..]).unwrap())
        };
        statuses.iter().map(answer).collect()
    });
    (endpoint, serving)
}

fn settings(endpoint: String) -> Settings {
    Settings {
        endpoint,
        sample_ratio: 1.0,
        headers: Headers(vec![("Authorization".into(), "Bearer hunter2".into())]),
        authorities: None,
        timeout: Duration::from_secs(5),
        service_name: "millrace".into(),
        service_version: "1.2.3".into(),
    }
}

#[tokio::test]
async fn what_ended_before_the_closing_is_sent_with_the_headers() {
    let (endpoint, serving) = receiver(&["200 OK"]);
    let settings = settings(endpoint);
    assert!(!format!("{settings:?}").contains("hunter2"));
    let resource = Resource::builder().with_service_name("millrace").build();
    let receiver = Receiver::new(&settings, &resource).unwrap();
    let (spans, queue) = mpsc::channel(8);
    let (close, closing) = watch::channel(false);
    let sending = tokio::spawn(send(queue, closing, receiver));
    provider(spans).tracer("test").start("sent").end();
    close.send(true).unwrap();
    sending.await.unwrap();
    let requests = serving.join().unwrap();
    let (head, request) = &requests[0];
    let resource_spans = &request.resource_spans[0];
    assert_eq!(resource_spans.scope_spans[0].spans[0].name, "sent");
    assert!(resource_spans.resource.as_ref().unwrap().attributes.iter().any(|one| one.key == "service.name"));
    assert!(head.starts_with("post /v1/traces") && head.contains("content-type: application/x-protobuf"), "{head}");
    assert!(head.contains("authorization: bearer hunter2"), "{head}");
}

#[tokio::test]
async fn spans_are_kept_while_the_receiver_is_away_and_sent_once_it_is_back() {
    let (endpoint, serving) = receiver(&["503 Busy", "200 OK"]);
    let receiver = Receiver::new(&settings(endpoint), &Resource::builder().build()).unwrap();
    let (spans, queue) = mpsc::channel(8);
    let (_close, closing) = watch::channel(false);
    let sending = tokio::spawn(send(queue, closing, receiver));
    let provider = provider(spans);
    provider.tracer("test").start("kept").end();
    let requests = tokio::task::spawn_blocking(|| serving.join().unwrap()).await.unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].1, requests[1].1, "the same spans");
    sending.abort();
}

#[test]
fn a_header_that_cannot_be_one_is_refused_without_its_value() {
    let mut settings = settings("http://localhost:1/v1/traces".into());
    settings.headers.0[0].1 = "hunter2\n".into();
    let error = format!("{:#}", Receiver::new(&settings, &Resource::builder().build()).unwrap_err());
    assert!(error.contains("authorization") && !error.contains("hunter2"), "{error}");
}
