//! Traces: spans of this process to an OTLP receiver, by OpenTelemetry's own SDK.
//!
//! It never holds up whoever ends a span: finished spans go into a bounded queue, and what does not fit is dropped and
//! counted. A receiver that does not answer costs a rate-limited warning and the spans that do not fit meanwhile.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context as _, Result};
use metrics::counter;
use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceId},
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData, SpanProcessor,
    },
};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::Instant,
};

use crate::otlp::{Answer, Receiver};

/// Counter by `reason`: `queue_full`, `refused` or `closed`.
pub const DROPPED: &str = "millrace_trace_spans_dropped_total";
/// Counter.
pub const EXPORTED: &str = "millrace_trace_spans_exported_total";

/// Finished spans that wait to be sent; about 1 KiB each.
const QUEUE: usize = 2048;
/// Spans of one request.
const REQUEST: usize = 512;
/// Spans are sent so often, unless a request is full before.
const EVERY: Duration = Duration::from_secs(1);
/// Rest after a request that failed, and the longest, to which it doubles.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// More links of one span than this are dropped, and counted in the span.
pub const MAX_LINKS: u32 = 32;

/// Where traces go, and how many.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URL of the receiver's traces, such as `http://localhost:4318/v1/traces`.
    pub endpoint: String,
    /// Share, 0 to 1, of the traces begun here without a sampled event that are recorded.
    pub sample_ratio: f64,
    /// Headers of each request, such as an authorization; secret.
    pub headers: Headers,
    /// PEM of the authorities to trust instead of the system's.
    pub authorities: Option<Vec<u8>>,
    /// Longest wait for one answer.
    pub timeout: Duration,
    /// `service.name`.
    pub service_name: String,
    /// `service.version`.
    pub service_version: String,
}

/// Names and values of HTTP headers; never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} headers", self.0.len())
    }
}

/// The traces of this process, once they are on.
#[derive(Debug)]
pub struct Traces {
    close: watch::Sender<bool>,
    sending: JoinHandle<()>,
}

impl Traces {
    /// Turns traces on for the whole process: spans of OpenTelemetry's global tracers go to the receiver from now on. The
    /// receiver is not waited for.
    ///
    /// # Errors
    /// The authorities are not PEM, or a header cannot be one.
    pub fn start(settings: Settings, runtime: &Handle) -> Result<Self> {
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attribute(KeyValue::new("service.version", settings.service_version.clone()))
            .build();
        let receiver = Receiver::new(&settings, &resource).context("set traces up")?;
        let (spans, queue) = mpsc::channel(QUEUE);
        let (close, closing) = watch::channel(false);
        let provider = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_max_links_per_span(MAX_LINKS)
            .with_sampler(Sampler::ParentBased(Box::new(LinkedOrShare(Sampler::TraceIdRatioBased(
                settings.sample_ratio,
            )))))
            .with_span_processor(Queue(spans))
            .build();
        opentelemetry::global::set_tracer_provider(provider);
        let sending = runtime.spawn(send(queue, closing, receiver));
        Ok(Self { close, sending })
    }

    /// Sends what has ended until now, for no longer than `deadline`; spans that end later are dropped.
    pub async fn close(self, deadline: Duration) {
        // Nobody listens only if sending has ended, which it does not by itself.
        _ = self.close.send(true);
        let abort = self.sending.abort_handle();
        if tokio::time::timeout(deadline, self.sending).await.is_err() {
            abort.abort();
            tracing::warn!("the receiver of traces does not answer; the last spans are lost");
        }
    }
}

/// Samples a trace that has a sampled event among its links, so that the way of that event does not end at this process;
/// others by their share.
#[derive(Clone, Debug)]
struct LinkedOrShare(Sampler);

impl ShouldSample for LinkedOrShare {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.0.should_sample(parent, trace_id, name, kind, attributes, links);
        if links.iter().any(|link| link.span_context.is_sampled()) {
            result.decision = SamplingDecision::RecordAndSample;
        }
        result
    }
}

/// Takes finished spans.
#[derive(Debug)]
struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        match self.0.try_send(span) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => dropped("queue_full", 1),
            Err(mpsc::error::TrySendError::Closed(_)) => dropped("closed", 1),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn dropped(reason: &'static str, spans: usize) {
    counter!(DROPPED, "reason" => reason).increment(spans as u64);
}

/// Sends spans until told to close, and then what is left. What fails in a way that may pass is sent again; the queue fills
/// meanwhile, and no further.
async fn send(mut queue: mpsc::Receiver<SpanData>, mut closing: watch::Receiver<bool>, receiver: Receiver) {
    let mut open: VecDeque<SpanData> = VecDeque::with_capacity(REQUEST);
    let mut rest = REST.0;
    loop {
        let due = Instant::now() + EVERY;
        let mut last = *closing.borrow();
        while open.len() < REQUEST && !last {
            tokio::select! {
                span = queue.recv() => match span {
                    Some(span) => open.push_back(span),
                    None => last = true,
                },
                () = tokio::time::sleep_until(due) => break,
                _ = closing.changed() => last = true,
            }
        }
        while open.len() < REQUEST
            && let Ok(span) = queue.try_recv()
        {
            open.push_back(span);
        }
        if open.is_empty() {
            if last {
                return;
            }
            continue;
        }
        let spans = open.len();
        match receiver.send(open.make_contiguous()).await {
            Answer::Taken { rejected } => {
                counter!(EXPORTED).increment(spans.saturating_sub(rejected) as u64);
                if rejected > 0 {
                    dropped("refused", rejected);
                }
                open.clear();
                rest = REST.0;
            }
            Answer::Refused(why) => {
                tracing::warn!(error = why, spans, "the receiver of traces refuses spans: they are dropped");
                dropped("refused", spans);
                open.clear();
            }
            Answer::Later(why) => {
                tracing::warn!(error = why, spans, "traces are not received; they are sent again, as far as they fit");
                if last {
                    dropped("closed", spans);
                    return;
                }
                // Told to close it tries once more, at once.
                tokio::select! {
                    () = tokio::time::sleep(rest) => {}
                    _ = closing.changed() => {}
                }
                rest = (rest * 2).min(REST.1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
