//! What librdkafka's thread calls: delivery reports, errors, log lines. It never blocks and never sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering};
use std::time::Instant;

use millrace_identity::Tokens;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use tokio::sync::{Notify, Semaphore};

use crate::delivery::{Cause, Delivered, DeliveryError, Slot, Timing};
use crate::telemetry::Telemetry;

/// What is shared between the publisher and librdkafka's thread.
pub(crate) struct Session {
    pub(crate) topic: String,
    /// One permit per event that may be under way.
    pub(crate) room: Semaphore,
    pub(crate) room_total: u32,
    /// Someone waits because librdkafka's own queue was full.
    pub(crate) crowded: AtomicBool,
    pub(crate) report_seen: Notify,
    pub(crate) telemetry: Telemetry,
    /// Events handed over so far; wraps.
    pub(crate) sent: AtomicUsize,
    /// Events without an answer. Not what is left of `room`: who flushes takes every place that gets free, and waits for the rest.
    /// For a moment below 0 if an answer is faster than who sent.
    pub(crate) under_way: AtomicIsize,
}

/// With more events than this under way only one in `TIMED_ONE_IN` is timed, for all of them: two looks at the clock cost as much as
/// encoding an event.
const BUSY: usize = 1_000;
const TIMED_ONE_IN: usize = 16;

impl Session {
    /// Begins to time an event that is about to be sent, or leaves it to another.
    pub(crate) fn timing(&self) -> Option<Timing> {
        let stands_for = if self.in_flight() <= BUSY { 1 } else { TIMED_ONE_IN };
        let chosen = self.sent.fetch_add(1, Ordering::Relaxed).is_multiple_of(stands_for);
        chosen.then(|| Timing { sent_at: Instant::now(), stands_for })
    }

    pub(crate) fn in_flight(&self) -> usize {
        usize::try_from(self.under_way.load(Ordering::Relaxed)).unwrap_or(0)
    }
}

pub(crate) struct Reports(pub(crate) Arc<Session>, pub(crate) Option<Arc<Tokens>>);

impl ProducerContext for Reports {
    type DeliveryOpaque = Arc<Slot>;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: Arc<Slot>) {
        let session = &self.0;
        if let Some(span) = &slot.span {
            span.end(match result {
                Ok(message) => Ok(Delivered { partition: message.partition(), offset: message.offset() }),
                Err((error, _)) => Err(Cause::of(error)),
            });
        }
        slot.settle(match result {
            Ok(message) => {
                session.telemetry.delivered(slot.timing);
                Ok(Delivered { partition: message.partition(), offset: message.offset() })
            }
            Err((error, message)) => {
                let cause = Cause::of(error);
                session.telemetry.failed(cause);
                let key = String::from_utf8_lossy(message.key().unwrap_or_default());
                Err(Box::new(DeliveryError {
                    cause,
                    key: key.into_owned(),
                    topic: session.topic.clone(),
                    detail: describe(error),
                }))
            }
        });
        session.under_way.fetch_sub(1, Ordering::Relaxed);
        session.room.add_permits(1);
        session.telemetry.in_flight(session.in_flight());
        if session.crowded.load(Ordering::Relaxed) {
            session.report_seen.notify_waiters();
        }
    }
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// librdkafka's thread waits for the issuer when a token is due, ten seconds at most; the brokers do not have to.
    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let tokens = self.1.as_ref().ok_or("no issuer of tokens is configured")?;
        let token = tokens.token().map_err(|error| format!("{error:#}").replace('\0', " "))?;
        Ok(OAuthToken { token: token.text, principal_name: token.client_id, lifetime_ms: token.until_ms })
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::error!(facility, "{message}")
            }
            RDKafkaLogLevel::Warning => tracing::warn!(facility, "{message}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(facility, "{message}")
            }
            RDKafkaLogLevel::Debug => tracing::debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Not the answer to any event: librdkafka goes on trying, and each event gets its answer in time.
        tracing::warn!(topic = self.0.topic, error = describe(&error), "Kafka client: {reason}");
    }
}

/// librdkafka's words for an error, without the type names around them.
pub(crate) fn describe(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => format!("{} ({code:?})", code_text(code)),
        None => error.to_string(),
    }
}

fn code_text(code: RDKafkaErrorCode) -> String {
    // Its Display is "Code (text)"; the text alone reads better in a sentence.
    let text = code.to_string();
    match text.split_once(" (") {
        Some((_, inner)) => inner.trim_end_matches(')').to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_under_way_are_told_while_somebody_waits_for_all_of_them() {
        let session = Session {
            topic: "orders".into(),
            room: Semaphore::new(10),
            room_total: 10,
            crowded: Default::default(),
            report_seen: Notify::new(),
            telemetry: Telemetry::new("orders"),
            sent: Default::default(),
            under_way: AtomicIsize::new(1),
        };
        session.room.acquire().await.unwrap().forget();
        let flush = session.room.acquire_many(session.room_total);
        tokio::pin!(flush);
        assert!(futures::poll!(&mut flush).is_pending());
        assert_eq!(session.in_flight(), 1);
    }
}
