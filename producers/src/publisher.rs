//! The publisher: waits for room, encodes, hands over to librdkafka. It never holds an event that `send` has not
//! returned for, so a cancelled `send` sends nothing.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, PurgeConfig, ThreadedProducer};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::delivery::{Cause, Delivered, DeliveryError, DeliveryFuture, PublishError, Slot};
use crate::encode::{EncodeError, Encoder};
use crate::registry::{RegistryError, schema_id};
use crate::session::{Reports, Session, describe};
use crate::span::{PublishSpan, Spans};
use crate::telemetry::Telemetry;
use crate::{Event, InvalidConfig, PublisherConfig, TraceParent};

/// A report frees the caller's place a moment before librdkafka frees its own, so a wait for the last report of a full
/// queue could miss it; this bounds that wait.
const CROWDED_RECHECK: Duration = Duration::from_millis(5);

/// Publishes events of type `E` to one topic. Cheap to clone; clones share the connection and the queue.
pub struct EventPublisher<E> {
    shared: Arc<Shared<E>>,
}

struct Shared<E> {
    session: Arc<Session>,
    encoder: Encoder<E>,
    generate_traceparent: bool,
    spans: Spans,
    /// `None` only while it is being dropped.
    producer: Option<ThreadedProducer<Reports>>,
}

/// Why a publisher could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] InvalidConfig),
    /// The registry gave no schema id.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The event type's own schema cannot be read.
    #[error("the schema of the event type cannot be read: {0}")]
    Schema(#[from] EncodeError),
    /// librdkafka refuses the configuration.
    #[error("the Kafka client refuses its configuration: {0}")]
    Client(#[from] KafkaError),
}

/// The deadline of `close` passed before every event had its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "closed with {undelivered} events undelivered: the deadline of {deadline:?} passed; they may have been written"
)]
pub struct CloseError {
    /// Events without an answer. Their futures resolve with [`Cause::Closed`].
    pub undelivered: usize,
    /// The deadline given.
    pub deadline: Duration,
}

impl<E: Event> EventPublisher<E> {
    /// Registers (or looks up) the schema and makes the Kafka client. Brokers are not waited for: if none is there,
    /// events fail with [`Cause::TimedOut`] after the delivery timeout.
    pub async fn connect(config: PublisherConfig) -> Result<Self, ConnectError> {
        let client = config.client_config()?;
        let tokens = config.security.tokens().map_err(InvalidConfig)?;
        let id = schema_id(&config.registry, &config.topic, E::SCHEMA, config.register_schema).await?;
        let session = Arc::new(Session {
            telemetry: Telemetry::new(&config.topic),
            room: Semaphore::new(config.max_in_flight_events as usize),
            room_total: config.max_in_flight_events,
            crowded: Default::default(),
            report_seen: Notify::new(),
            sent: Default::default(),
            under_way: Default::default(),
            topic: config.topic,
        });
        let shared = Shared {
            encoder: Encoder::new(id)?,
            generate_traceparent: config.generate_traceparent,
            spans: Spans::new(&session.topic, config.trace_ratio),
            producer: Some(client.create_with_context(Reports(Arc::clone(&session), tokens))?),
            session,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends an event and waits until it is written, or given up.
    pub async fn publish(&self, event: &E) -> Result<Delivered, DeliveryError> {
        self.send(event).await?.await
    }

    /// Sends an event: waits for room in the queue, not for the broker.
    pub async fn send(&self, event: &E) -> Result<DeliveryFuture, PublishError> {
        let (trace, span) = self.trace();
        self.send_in(event, trace, span).await
    }

    /// Like [`send`](Self::send), with the `traceparent` of the work that the event comes from, or none.
    pub async fn send_traced(&self, event: &E, trace: Option<TraceParent>) -> Result<DeliveryFuture, PublishError> {
        self.send_in(event, trace, None).await
    }

    async fn send_in(
        &self,
        event: &E,
        trace: Option<TraceParent>,
        span: Option<PublishSpan>,
    ) -> Result<DeliveryFuture, PublishError> {
        let permit = self.room(|| key_of(event)).await?;
        let handed_over = BUFFERS.with_borrow_mut(|buffers| {
            buffers.fill(&self.shared.encoder, event)?;
            Ok(self.hand_over_or_keep(&buffers.key, &buffers.value, trace, span))
        });
        match handed_over {
            Ok(handed_over) => self.conclude(permit, handed_over, trace, || key_of(event)).await,
            Err(EncodeFailed(error)) => Err(self.refusal(key_of(event), Cause::Encoding, error.to_string())),
        }
    }

    /// Sends an event that is encoded already, as from an outbox, or in another version of the schema. The caller
    /// vouches for it: `value` is in Confluent wire format, under a schema of the topic's subject, and `key` is what
    /// [`Event::write_key`] would write.
    pub async fn send_encoded(&self, key: &[u8], value: &[u8]) -> Result<DeliveryFuture, PublishError> {
        let (trace, span) = self.trace();
        let permit = self.room(|| key.to_vec()).await?;
        let handed_over = self.hand_over_or_keep(key, value, trace, span);
        self.conclude(permit, handed_over, trace, || key.to_vec()).await
    }

    /// Events without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.shared.session.in_flight()
    }

    /// Waits until every event sent before has its answer. Events sent meanwhile wait behind it.
    pub async fn flush(&self) {
        let session = &self.shared.session;
        // All places free means nothing under way; the semaphore is fair. An error means closed, so nothing either.
        let _ = session.room.acquire_many(session.room_total).await;
    }

    /// Flushes, then ends the publisher and its clones. Events that have no answer when the deadline passes are
    /// dropped from the queue, counted in the error, and their futures resolve with [`Cause::Closed`].
    pub async fn close(&self, deadline: Duration) -> Result<(), CloseError> {
        let in_time = tokio::time::timeout(deadline, self.flush()).await;
        let session = &self.shared.session;
        session.room.close();
        match in_time {
            Ok(()) => Ok(()),
            Err(_) => {
                let undelivered = session.in_flight();
                if let Some(producer) = &self.shared.producer {
                    producer.purge(PurgeConfig::default().queue().inflight());
                }
                Err(CloseError { undelivered, deadline })
            }
        }
    }

    /// What an event says of its trace, and the span of its publish if there is one.
    fn trace(&self) -> (Option<TraceParent>, Option<PublishSpan>) {
        match self.shared.spans.begin() {
            Some((trace, span)) => (Some(trace), span),
            None => (self.shared.generate_traceparent.then(TraceParent::generate), None),
        }
    }

    /// Waits for a place among the events under way.
    async fn room(&self, key: impl FnOnce() -> Vec<u8>) -> Result<SemaphorePermit<'_>, PublishError> {
        let permit = self.shared.session.room.acquire().await;
        permit.map_err(|_| self.refusal(key(), Cause::Closed, "the publisher is closed".into()))
    }

    /// Hands the bytes over, or keeps them for when there is room for them.
    fn hand_over_or_keep(
        &self,
        key: &[u8],
        value: &[u8],
        trace: Option<TraceParent>,
        span: Option<PublishSpan>,
    ) -> HandOver {
        match self.hand_over(key, value, trace, Slot::new(self.shared.session.timing(), span)) {
            // The slow way has to wait, and the buffers belong to the thread.
            Err((error, slot)) if queue_full(&error) => HandOver::QueueFull(key.to_vec(), value.to_vec(), slot),
            Err((error, slot)) => {
                slot.span.iter().for_each(|span| span.end(Err(Cause::of(&error))));
                HandOver::Refused(error)
            }
            Ok(future) => HandOver::Done(future),
        }
    }

    async fn conclude(
        &self,
        permit: SemaphorePermit<'_>,
        handed_over: HandOver,
        trace: Option<TraceParent>,
        key: impl Fn() -> Vec<u8>,
    ) -> Result<DeliveryFuture, PublishError> {
        let future = match handed_over {
            HandOver::Done(future) => future,
            HandOver::QueueFull(kept, value, slot) => self
                .hand_over_when_there_is_room(&kept, &value, trace, slot)
                .await
                .map_err(|error| self.refused_by_client(key(), &error))?,
            HandOver::Refused(error) => return Err(self.refused_by_client(key(), &error)),
        };
        // Given back by the delivery report.
        permit.forget();
        let session = &self.shared.session;
        session.under_way.fetch_add(1, Ordering::Relaxed);
        session.telemetry.in_flight(session.in_flight());
        Ok(future)
    }

    /// Hands the bytes to librdkafka, which copies them.
    fn hand_over(
        &self,
        key: &[u8],
        value: &[u8],
        trace: Option<TraceParent>,
        slot: Arc<Slot>,
    ) -> Result<DeliveryFuture, (KafkaError, Arc<Slot>)> {
        let Some(producer) = &self.shared.producer else {
            return Err((KafkaError::Canceled, slot));
        };
        let record = BaseRecord {
            topic: &self.shared.session.topic,
            partition: None,
            payload: Some(value),
            key: Some(key),
            timestamp: None,
            headers: trace.map(|trace| {
                let header = Header { key: "traceparent", value: Some(trace.as_bytes()) };
                OwnedHeaders::new_with_capacity(1).insert(header)
            }),
            delivery_opaque: Arc::clone(&slot),
        };
        match producer.send(record) {
            Ok(()) => Ok(DeliveryFuture(slot)),
            Err((error, _)) => Err((error, slot)),
        }
    }

    /// librdkafka's queue is full by bytes: tries again whenever a report says that something has left it.
    async fn hand_over_when_there_is_room(
        &self,
        key: &[u8],
        value: &[u8],
        trace: Option<TraceParent>,
        mut slot: Arc<Slot>,
    ) -> Result<DeliveryFuture, KafkaError> {
        let session = &*self.shared.session;
        loop {
            let report_seen = session.report_seen.notified();
            if session.room.is_closed() {
                return Err(KafkaError::Canceled);
            }
            session.crowded.store(true, Ordering::Relaxed);
            slot = match self.hand_over(key, value, trace, slot) {
                Err((error, slot)) if queue_full(&error) => slot,
                done => {
                    session.crowded.store(false, Ordering::Relaxed);
                    return done.map_err(|(error, _)| error);
                }
            };
            let _ = tokio::time::timeout(CROWDED_RECHECK, report_seen).await;
        }
    }

    fn refused_by_client(&self, key: Vec<u8>, error: &KafkaError) -> PublishError {
        let cause = Cause::of(error);
        let fatal = (cause == Cause::Fatal).then(|| self.shared.producer.as_ref()?.client().fatal_error()).flatten();
        let detail = match fatal {
            Some((code, text)) => format!("{text} ({code:?})"),
            None => describe(error),
        };
        self.refusal(key, cause, detail)
    }

    fn refusal(&self, key: Vec<u8>, cause: Cause, detail: String) -> PublishError {
        self.shared.session.telemetry.failed(cause);
        DeliveryError {
            cause,
            key: String::from_utf8_lossy(&key).into_owned(),
            topic: self.shared.session.topic.clone(),
            detail,
        }
    }
}

impl<E> Clone for EventPublisher<E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<E> fmt::Debug for EventPublisher<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventPublisher")
            .field("topic", &self.shared.session.topic)
            .field("in_flight", &self.shared.session.in_flight())
            .finish_non_exhaustive()
    }
}

impl<E> Drop for Shared<E> {
    fn drop(&mut self) {
        let lost = self.session.in_flight();
        if lost > 0 {
            tracing::warn!(
                topic = self.session.topic,
                "publisher dropped with {lost} events under way; call close() to wait for them"
            );
        }
        // Ending the client joins its thread, which can take 100 ms: not on a thread that runs futures.
        if let Some(producer) = self.producer.take() {
            std::thread::spawn(move || drop(producer));
        }
    }
}

enum HandOver {
    Done(DeliveryFuture),
    QueueFull(Vec<u8>, Vec<u8>, Arc<Slot>),
    Refused(KafkaError),
}

struct EncodeFailed(EncodeError);

/// Key and value of the event being sent, reused by all publishers of a thread.
#[derive(Default)]
struct Buffers {
    key: Vec<u8>,
    value: Vec<u8>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

impl Buffers {
    fn fill<E: Event>(&mut self, encoder: &Encoder<E>, event: &E) -> Result<(), EncodeFailed> {
        self.key.clear();
        self.value.clear();
        event.write_key(&mut self.key);
        encoder.encode(event, &mut self.value).map_err(EncodeFailed)
    }
}

fn key_of<E: Event>(event: &E) -> Vec<u8> {
    let mut key = Vec::new();
    event.write_key(&mut key);
    key
}

fn queue_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}
