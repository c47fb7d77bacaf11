//! The answer to an event: where it was written, or why it was not. It never decides whether to send again.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use futures::task::AtomicWaker;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::span::PublishSpan;

/// Where an event was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Kafka partition.
    pub partition: i32,
    /// Offset in the partition.
    pub offset: i64,
}

/// Why an event was not (or perhaps not) written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The delivery timeout passed: no broker, or none that answered. It may have been written all the same.
    TimedOut,
    /// The event is larger than `max_event_bytes`, or than the broker or the topic allow.
    TooLarge,
    /// The user may not write to the topic, or may not connect at all.
    NotAuthorised,
    /// There is no such topic or partition.
    NoSuchTopic,
    /// The broker refuses the event by a policy of its own.
    Refused,
    /// The idempotent session is broken for good: make a new publisher. Events under way may have been written.
    Fatal,
    /// The publisher was closed or dropped before the event was delivered.
    Closed,
    /// The event does not fit its schema.
    Encoding,
    /// Anything else, by librdkafka's code.
    Other(RDKafkaErrorCode),
}

impl Cause {
    /// What [`Self::as_str`] may answer.
    pub(crate) const CODES: [&str; 9] = [
        "timed_out",
        "too_large",
        "not_authorised",
        "no_such_topic",
        "refused",
        "fatal",
        "closed",
        "encoding",
        "other",
    ];

    /// A short code for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TimedOut => "timed_out",
            Self::TooLarge => "too_large",
            Self::NotAuthorised => "not_authorised",
            Self::NoSuchTopic => "no_such_topic",
            Self::Refused => "refused",
            Self::Fatal => "fatal",
            Self::Closed => "closed",
            Self::Encoding => "encoding",
            Self::Other(_) => "other",
        }
    }

    pub(crate) fn of(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::MessageTimedOut | Code::RequestTimedOut | Code::OperationTimedOut) => Self::TimedOut,
            Some(Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize) => Self::TooLarge,
            Some(
                Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication,
            ) => Self::NotAuthorised,
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition | Code::InvalidTopic) => {
                Self::NoSuchTopic
            }
            Some(Code::PolicyViolation | Code::InvalidRecord | Code::InvalidTimestamp) => Self::Refused,
            Some(
                Code::Fatal
                | Code::Fenced
                | Code::OutOfOrderSequenceNumber
                | Code::InvalidProducerEpoch
                | Code::UnknownProducerId,
            ) => Self::Fatal,
            Some(Code::PurgeQueue | Code::PurgeInflight) => Self::Closed,
            Some(code) => Self::Other(code),
            None if matches!(error, KafkaError::Canceled) => Self::Closed,
            None => Self::Other(Code::Unknown),
        }
    }
}

/// An event was not (or perhaps not) written. Sending it again is safe: its duplicate will be dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    /// Why.
    pub cause: Cause,
    /// Kafka key of the event as text: for order events the event id.
    pub key: String,
    /// Topic.
    pub topic: String,
    /// What librdkafka or the encoder said.
    pub detail: String,
}

/// Why `send` did not take an event. The same as a [`DeliveryError`], only known at once.
pub type PublishError = DeliveryError;

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, topic, detail, .. } = self;
        let what = match self.cause {
            Cause::TimedOut => {
                "was not acknowledged within the delivery timeout; it may have been written all the same"
            }
            Cause::TooLarge => "is larger than the publisher, the broker or the topic allow",
            Cause::NotAuthorised => "was refused: the user may not write to the topic",
            Cause::NoSuchTopic => "was not delivered: the topic or partition does not exist",
            Cause::Refused => "was refused by a policy of the broker",
            Cause::Fatal => "was not delivered: the idempotent session is broken, make a new publisher",
            Cause::Closed => "was not delivered: the publisher was closed before",
            Cause::Encoding => "does not fit its schema",
            Cause::Other(_) => "was not delivered",
        };
        write!(f, "event {key} {what} (topic {topic}): {detail}")
    }
}

impl std::error::Error for DeliveryError {}

/// The beginning of a delivery that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    pub(crate) sent_at: Instant,
    /// As many events as this one is measured for.
    pub(crate) stands_for: usize,
}

/// One event under way: shared by the future and by the delivery report, so that an event costs one allocation.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) timing: Option<Timing>,
    pub(crate) span: Option<PublishSpan>,
    /// Offset, or one of the two below.
    offset: AtomicI64,
    /// Told before the offset.
    partition: AtomicI32,
    error: OnceLock<Box<DeliveryError>>,
    waiting: AtomicWaker,
}

/// No answer yet. (A broker that knows an event already may give a negative offset, but never one like these.)
const UNDER_WAY: i64 = i64::MIN;
/// Not written; `error` says why.
const FAILED: i64 = i64::MIN + 1;

impl Slot {
    pub(crate) fn new(timing: Option<Timing>, span: Option<PublishSpan>) -> Arc<Self> {
        Arc::new(Self {
            timing,
            span,
            offset: AtomicI64::new(UNDER_WAY),
            partition: AtomicI32::new(0),
            error: OnceLock::new(),
            waiting: AtomicWaker::new(),
        })
    }

    /// Called once, from librdkafka's thread.
    pub(crate) fn settle(&self, answer: Result<Delivered, Box<DeliveryError>>) {
        let offset = match answer {
            Ok(Delivered { partition, offset }) => {
                self.partition.store(partition, Ordering::Relaxed);
                offset
            }
            Err(error) => {
                // A second answer would be a bug of librdkafka; the first one stands.
                let _ = self.error.set(error);
                FAILED
            }
        };
        self.offset.store(offset, Ordering::Release);
        self.waiting.wake();
    }

    fn answer(&self) -> Option<Result<Delivered, DeliveryError>> {
        match self.offset.load(Ordering::Acquire) {
            UNDER_WAY => None,
            FAILED => self.error.get().map(|error| Err((**error).clone())),
            offset => Some(Ok(Delivered { partition: self.partition.load(Ordering::Relaxed), offset })),
        }
    }
}

/// Resolves when the event has been written or given up. Dropping it does not take the event back.
#[derive(Debug)]
pub struct DeliveryFuture(pub(crate) Arc<Slot>);

impl DeliveryFuture {
    /// The answer, if there is one already.
    pub fn answer(&self) -> Option<Result<Delivered, DeliveryError>> {
        self.0.answer()
    }
}

impl Future for DeliveryFuture {
    type Output = Result<Delivered, DeliveryError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(answer) = self.answer() {
            return Poll::Ready(answer);
        }
        self.0.waiting.register(context.waker());
        // The answer may have come between the look and the registration.
        self.answer().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_librdkafkas_codes() {
        for (code, cause) in [
            (RDKafkaErrorCode::MessageTimedOut, Cause::TimedOut),
            (RDKafkaErrorCode::MessageSizeTooLarge, Cause::TooLarge),
            (RDKafkaErrorCode::TopicAuthorizationFailed, Cause::NotAuthorised),
            (RDKafkaErrorCode::SaslAuthenticationFailed, Cause::NotAuthorised),
            (RDKafkaErrorCode::UnknownTopic, Cause::NoSuchTopic),
            (RDKafkaErrorCode::PolicyViolation, Cause::Refused),
            (RDKafkaErrorCode::Fatal, Cause::Fatal),
            (RDKafkaErrorCode::PurgeQueue, Cause::Closed),
            (RDKafkaErrorCode::LeaderNotAvailable, Cause::Other(RDKafkaErrorCode::LeaderNotAvailable)),
        ] {
            assert_eq!(Cause::of(&KafkaError::MessageProduction(code)), cause);
            assert!(Cause::CODES.contains(&cause.as_str()), "{cause:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_reaches_a_future_that_waits_and_one_that_comes_late() {
        let delivered = Delivered { partition: 3, offset: 14 };
        let slot = Slot::new(None, None);
        let waiting = tokio::spawn(DeliveryFuture(Arc::clone(&slot)));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        slot.settle(Ok(delivered));
        assert_eq!(waiting.await.unwrap(), Ok(delivered));
        assert_eq!(DeliveryFuture(slot).await, Ok(delivered));
        let (unknown, slot) = (Delivered { partition: 0, offset: -1 }, Slot::new(None, None));
        slot.settle(Ok(unknown));
        assert_eq!(DeliveryFuture(slot).answer(), Some(Ok(unknown)));
    }
}
