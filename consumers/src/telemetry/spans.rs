//! Spans of batches: what was polled, decoded, deduplicated and enriched for a batch, and how it was inserted, with links to
//! the traced events in it. Names follow <https://opentelemetry.io/docs/specs/semconv/messaging/kafka/> and
//! <https://opentelemetry.io/docs/specs/semconv/database/>.
//!
//! Cost: the clock is read a few times for each chunk, and headers are looked at of 64 records of a chunk at most,
//! since librdkafka parses the headers of a record when they are asked for. Nothing of that while traces are off.

use std::time::{Duration, SystemTime};

use clickhouse::error::Error;
use millrace_pipeline::{batch::Batch, topic::Step};
use millrace_telemetry::traces::MAX_LINKS;
use opentelemetry::{
    Context, KeyValue, global,
    trace::{
        Link, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        Tracer,
    },
};
use rdkafka::{Message, message::Headers};

use crate::{clickhouse::errors::label, config, one_line};

/// Records of a chunk whose headers are looked at, spread over it evenly: all of a small one.
const LOOKED_AT: usize = 64;
const HEADER: &str = "traceparent";
const SCOPE: &str = "millrace";

/// What is done with a chunk before it is in a batch, in order.
const STEPS: [&str; 4] = ["poll", "decode", "dedup", "enrich"];

/// Gathers what has to be told of the batch that is being filled.
#[derive(Debug)]
pub struct BatchSpans {
    on: bool,
    topic: String,
    group: String,
    open: Open,
}

#[derive(Debug, Default)]
struct Open {
    messages: usize,
    links: Vec<Link>,
    steps: [Option<Taken>; STEPS.len()],
    last: Option<SystemTime>,
}

/// When a step was begun first and ended last for a batch, and for how long it was at work between.
#[derive(Clone, Copy, Debug)]
struct Taken {
    from: SystemTime,
    to: SystemTime,
    busy: Duration,
    chunks: i64,
}

impl BatchSpans {
    /// For batches of a Kafka topic, read as a member of `group`.
    pub(crate) fn new(on: bool, topic: &str, group: &str) -> Self {
        Self { on, topic: topic.to_owned(), group: group.to_owned(), open: Open::default() }
    }

    /// The time, if anybody wants to know it.
    pub(crate) fn now(&self) -> Option<SystemTime> {
        self.on.then(SystemTime::now)
    }

    /// Messages were polled since `from`, and are processed now.
    pub(crate) fn polled<M: Message>(&mut self, from: Option<SystemTime>, messages: &[M]) {
        let Some(from) = from.filter(|_| !messages.is_empty()) else { return };
        self.open.last = Some(from);
        self.took(0);
        self.open.messages += messages.len();
        for message in messages.iter().step_by(messages.len().div_ceil(LOOKED_AT)) {
            if self.open.links.len() == MAX_LINKS as usize {
                return;
            }
            if let Some(event) = traced(message) {
                let offset = KeyValue::new("messaging.kafka.offset", message.offset());
                let partition = KeyValue::new("messaging.destination.partition.id", message.partition().to_string());
                self.open.links.push(Link::new(event, vec![partition, offset], 0));
            }
        }
        self.open.last = Some(SystemTime::now());
    }

    /// A step with what was polled last has ended.
    pub(crate) fn stepped(&mut self, step: Step) {
        if self.on {
            self.took(match step {
                Step::Decode => 1,
                Step::Dedup => 2,
                Step::Enrich => 3,
            });
        }
    }

    /// What is open is given up, and will be read again.
    pub(crate) fn forget(&mut self) {
        self.open = Open::default();
    }

    /// The context in which a batch lands: its span, with those of the steps before in it. Without any, if it is not sampled.
    pub(crate) fn close(&mut self, batch: &Batch) -> Context {
        let Open { messages, links, steps, .. } = std::mem::take(&mut self.open);
        if !self.on {
            return Context::new();
        }
        let tracer = global::tracer(SCOPE);
        let from = steps.iter().flatten().map(|taken| taken.from).min().unwrap_or_else(SystemTime::now);
        let mut attributes = self.messaging("process", "process", messages);
        attributes.extend([
            KeyValue::new("millrace.batch.seq", batch.seq as i64),
            KeyValue::new("millrace.batch.trigger", batch.trigger.code()),
            KeyValue::new("millrace.batch.rows", batch.rows.num_rows() as i64),
            KeyValue::new("millrace.batch.dead_letters", batch.dead_letters.len() as i64),
        ]);
        if let [one] = &batch.progress[..] {
            attributes.push(KeyValue::new("messaging.destination.partition.id", one.partition.to_string()));
        }
        let process = SpanBuilder::from_name(format!("process {}", self.topic))
            .with_kind(SpanKind::Consumer)
            .with_start_time(from)
            .with_links(links)
            .with_attributes(attributes);
        let context = Context::new().with_span(tracer.build_with_context(process, &Context::new()));
        if !context.span().is_recording() {
            return context;
        }
        for (name, taken) in STEPS.iter().zip(steps) {
            let Some(Taken { from, to, busy, chunks }) = taken else { continue };
            let (kind, title, mut attributes) = match *name {
                "poll" => {
                    (SpanKind::Client, format!("poll {}", self.topic), self.messaging("poll", "receive", messages))
                }
                name => (SpanKind::Internal, name.to_owned(), Vec::new()),
            };
            attributes.push(KeyValue::new("millrace.chunks", chunks));
            attributes.push(KeyValue::new("millrace.busy_ms", busy.as_secs_f64() * 1000.0));
            let step = SpanBuilder::from_name(title).with_kind(kind).with_start_time(from).with_attributes(attributes);
            Context::new().with_span(tracer.build_with_context(step, &context)).span().end_with_timestamp(to);
        }
        context
    }

    fn messaging(&self, name: &'static str, kind: &'static str, messages: usize) -> Vec<KeyValue> {
        vec![
            KeyValue::new("messaging.system", "kafka"),
            KeyValue::new("messaging.operation.name", name),
            KeyValue::new("messaging.operation.type", kind),
            KeyValue::new("messaging.destination.name", self.topic.clone()),
            KeyValue::new("messaging.consumer.group.name", self.group.clone()),
            KeyValue::new("messaging.batch.message_count", messages as i64),
        ]
    }

    /// A step has ended that began when the one before ended.
    fn took(&mut self, step: usize) {
        let Some(from) = self.open.last else { return };
        let to = SystemTime::now();
        // A clock that was set back has taken no time.
        let busy = to.duration_since(from).unwrap_or_default();
        let taken = self.open.steps[step].get_or_insert(Taken { from, to, busy: Duration::ZERO, chunks: 0 });
        (taken.to, taken.busy, taken.chunks) = (to, taken.busy + busy, taken.chunks + 1);
        self.open.last = Some(to);
    }
}

/// The publish of an event that was sampled.
fn traced<M: Message>(message: &M) -> Option<SpanContext> {
    let headers = message.headers()?;
    let value = headers.iter().find(|header| header.key == HEADER)?.value?;
    parse(value).filter(SpanContext::is_sampled)
}

/// A W3C `traceparent` of version 00, or of a later one, which begins alike.
pub(crate) fn parse(value: &[u8]) -> Option<SpanContext> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = text.splitn(5, '-');
    let mut part = |len: usize| {
        let part = parts.next()?;
        let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == len && is_hex).then_some(part)
    };
    let (version, trace, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        flags,
        true,
        TraceState::default(),
    );
    context.is_valid().then_some(context)
}

/// Ends the span of the batch that lands in this context; `error` is a code and why it is not in the table.
pub(crate) fn landed(error: Option<(&'static str, &str)>) {
    Context::map_current(|context| {
        let span = context.span();
        if let Some((code, why)) = error {
            span.set_attribute(KeyValue::new("error.type", code));
            span.set_status(Status::error(why.to_owned()));
        }
        span.end();
    });
}

/// The table that rows go to, as spans name it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    title: String,
    attributes: Vec<KeyValue>,
}

impl Target {
    pub(crate) fn new(settings: &config::ClickHouse, table: &str) -> Self {
        let mut attributes = vec![
            KeyValue::new("db.system.name", "clickhouse"),
            KeyValue::new("db.operation.name", "INSERT"),
            KeyValue::new("db.namespace", settings.database.clone()),
            KeyValue::new("db.collection.name", table.to_owned()),
        ];
        if let Ok(url) = settings.url.parse::<axum::http::Uri>() {
            attributes.extend(url.host().map(|host| KeyValue::new("server.address", host.to_owned())));
            attributes.extend(url.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
        }
        Self { title: format!("INSERT {table}"), attributes }
    }

    /// A span for one attempt at an insert, within the batch's.
    pub(crate) fn attempt(&self, rows: usize, attempt: u32) -> Attempt {
        let batch = Context::current();
        if !batch.span().is_recording() {
            return Attempt(None);
        }
        let mut attributes = self.attributes.clone();
        attributes.push(KeyValue::new("db.operation.batch.size", rows as i64));
        if attempt > 0 {
            attributes.push(KeyValue::new("millrace.attempt", i64::from(attempt)));
        }
        let span = SpanBuilder::from_name(self.title.clone()).with_kind(SpanKind::Client).with_attributes(attributes);
        Attempt(Some(batch.with_span(global::tracer(SCOPE).build_with_context(span, &batch))))
    }
}

/// An attempt at an insert, under way. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Attempt(Option<Context>);

impl Attempt {
    pub(crate) fn ended(self, outcome: &Result<(), Error>) {
        let Some(context) = self.0 else { return };
        let span = context.span();
        if let Err(error) = outcome {
            let code = label(error);
            if code.bytes().all(|byte| byte.is_ascii_digit()) {
                span.set_attribute(KeyValue::new("db.response.status_code", code.clone()));
            }
            span.set_attribute(KeyValue::new("error.type", code));
            span.set_status(Status::error(one_line(error)));
        }
        span.end();
    }
}

/// A span for dead letters on their way to their topic, within the batch's; it ends when it is dropped.
pub(crate) fn dead_letters(topic: &str, letters: usize) -> Context {
    let batch = Context::current();
    if letters == 0 || !batch.span().is_recording() {
        return Context::new();
    }
    let span = SpanBuilder::from_name(format!("send {topic}")).with_kind(SpanKind::Producer).with_attributes([
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.name", "send"),
        KeyValue::new("messaging.operation.type", "send"),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
        KeyValue::new("messaging.batch.message_count", letters as i64),
    ]);
    batch.with_span(global::tracer(SCOPE).build_with_context(span, &batch))
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        Timestamp,
        message::{Header, OwnedHeaders, OwnedMessage},
    };

    use super::*;

    const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn message(offset: i64, traceparent: Option<&str>) -> OwnedMessage {
        let headers = traceparent.map(|value| {
            OwnedHeaders::new()
                .insert(Header { key: "other", value: Some("x") })
                .insert(Header { key: "traceparent", value: Some(value) })
        });
        OwnedMessage::new(None, None, "orders".into(), Timestamp::CreateTime(7), 1, offset, headers)
    }

    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let context = parse(SAMPLED.as_bytes()).unwrap();
        assert_eq!(context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.is_sampled() && context.is_remote());
        assert!(parse(format!("cc{}-what-comes-later", &SAMPLED[2..]).as_bytes()).is_some());
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(parse(b"\xff").is_none());
    }

    #[test]
    fn sampled_events_are_linked_up_to_a_bound_and_nothing_is_looked_at_while_traces_are_off() {
        let mut spans = BatchSpans::new(true, "orders", "millrace");
        let not_sampled = SAMPLED.replace("-01", "-00");
        let events =
            [message(1, Some(SAMPLED)), message(2, Some(&not_sampled)), message(3, None), message(4, Some("?"))];
        spans.polled(spans.now(), &events);
        assert_eq!((spans.open.links.len(), spans.open.messages), (1, 4));
        let many: Vec<OwnedMessage> = (0..100).map(|offset| message(offset, Some(SAMPLED))).collect();
        spans.polled(spans.now(), &many);
        assert_eq!(spans.open.links.len(), 32);
        spans.stepped(Step::Decode);
        assert!(spans.open.steps[0].is_some_and(|polled| polled.chunks == 2) && spans.open.steps[1].is_some());
        spans.forget();
        assert_eq!((spans.open.links.len(), spans.open.messages), (0, 0));

        let mut off = BatchSpans::new(false, "orders", "millrace");
        off.polled(off.now(), &many);
        off.stepped(Step::Decode);
        assert_eq!((off.open.links.len(), off.open.messages, off.open.last), (0, 0, None));
    }
}
