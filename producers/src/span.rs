//! A span for the publish of an event, from OpenTelemetry's global tracers: nothing happens unless the service has set a
//! tracer provider before it connects. It exports nothing itself.
//!
//! An event sent within a span of the service belongs to its trace. Of others a share begins a trace of its own; the choice
//! is made here and costs a few nanoseconds, since a tracer that drops a span takes some hundred.

use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue, global};

use crate::delivery::{Cause, Delivered};
use crate::trace::{TraceParent, next_random};

/// Begins the spans of one publisher.
pub(crate) struct Spans {
    tracer: BoxedTracer,
    title: String,
    attributes: [KeyValue; 4],
    /// Of 2^64 events without a span around them so many begin a trace.
    share: u128,
}

impl Spans {
    pub(crate) fn new(topic: &str, ratio: f64) -> Self {
        Self {
            tracer: global::tracer("millrace-producers"),
            title: format!("send {topic}"),
            attributes: [
                KeyValue::new("messaging.system", "kafka"),
                KeyValue::new("messaging.operation.name", "send"),
                KeyValue::new("messaging.operation.type", "send"),
                KeyValue::new("messaging.destination.name", topic.to_owned()),
            ],
            share: (ratio * 2f64.powi(64)) as u128,
        }
    }

    /// The `traceparent` of an event that is sent now and, if it is sampled, the span of its publish.
    pub(crate) fn begin(&self) -> Option<(TraceParent, Option<PublishSpan>)> {
        let around = Context::map_current(|context| context.has_active_span().then(|| context.clone()));
        let parent = match around {
            Some(parent) => parent,
            None if u128::from(next_random()) < self.share => Context::new(),
            None => return None,
        };
        let span = SpanBuilder::from_name(self.title.clone())
            .with_kind(SpanKind::Producer)
            .with_attributes(self.attributes.iter().cloned());
        let context = parent.with_span(self.tracer.build_with_context(span, &parent));
        let of_span = context.span().span_context().clone();
        let sampled = context.span().is_recording() && of_span.is_sampled();
        // Without a tracer provider and without a span around it there is nothing to tell.
        of_span.is_valid().then(|| (TraceParent::of(&of_span), sampled.then(|| PublishSpan(Box::new(context)))))
    }
}

/// The span of a publish. It ends with the answer, or when it is dropped.
pub(crate) struct PublishSpan(Box<Context>);

impl PublishSpan {
    pub(crate) fn end(&self, answer: Result<Delivered, Cause>) {
        let span = self.0.span();
        match answer {
            Ok(Delivered { partition, offset }) => span.set_attributes([
                KeyValue::new("messaging.destination.partition.id", partition.to_string()),
                KeyValue::new("messaging.kafka.offset", offset),
            ]),
            Err(cause) => {
                span.set_attribute(KeyValue::new("error.type", cause.as_str()));
                span.set_status(Status::error("the event was not delivered, or may not have been"));
            }
        }
        span.end();
    }
}

impl std::fmt::Debug for PublishSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PublishSpan")
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    #[test]
    fn without_a_tracer_provider_an_event_carries_what_is_around_it_and_has_no_span() {
        let spans = Spans::new("orders", 1.0);
        assert!(spans.begin().is_none());
        let (trace, span) = (TraceId::from(0x4bf9_2f35), SpanId::from(0xf067));
        let caller = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default());
        let _within = Context::new().with_remote_span_context(caller).attach();
        let (parent, span) = spans.begin().unwrap();
        assert_eq!(parent.as_bytes(), b"00-0000000000000000000000004bf92f35-000000000000f067-01");
        assert!(span.is_none());
    }
}
