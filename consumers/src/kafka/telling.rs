//! What librdkafka tells, as this process's own log lines. While a broker is away it says the same for every broker,
//! client and attempt, so a kind of line is written once and then at most every [`AGAIN_AFTER`], with the number of those
//! that were left out; at level debug all of them are written.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millrace_identity::Tokens;
use rdkafka::{
    ClientContext, client::OAuthToken, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    types::RDKafkaErrorCode,
};

use super::oauth;

const AGAIN_AFTER: Duration = Duration::from_secs(30);

static REPEATS: Mutex<Repeats> = Mutex::new(Repeats { kinds: BTreeMap::new() });

/// Says what librdkafka tells of a client.
#[derive(Clone)]
pub struct Telling {
    /// What the client is for.
    pub(super) role: &'static str,
    /// Where its tokens come from, if it needs any.
    pub(super) tokens: Option<Arc<Tokens>>,
}

impl ClientContext for Telling {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        oauth::answer(self.tokens.as_ref())
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tell_log(self.role, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tell_error(self.role, &error, reason);
    }
}

impl ConsumerContext for Telling {}

/// A log line of librdkafka.
pub(super) fn tell_log(role: &str, level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            match admit(format!("{role} {facility}")) {
                Some(left_out) => tracing::warn!(role, facility, left_out, "Kafka: {message}"),
                None => tracing::debug!(role, facility, "Kafka: {message}"),
            }
        }
        _ => tracing::debug!(role, facility, "Kafka: {message}"),
    }
}

/// What librdkafka calls an error it mostly mends by itself; what it cannot mend comes back from a call.
pub(crate) fn tell_error(role: &str, error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code();
    if code == Some(RDKafkaErrorCode::PartitionEOF) {
        return;
    }
    match admit(format!("{role} {code:?}")) {
        Some(left_out) => tracing::warn!(role, %error, left_out, "Kafka: {reason}"),
        None => tracing::debug!(role, %error, "Kafka: {reason}"),
    }
}

fn admit(kind: String) -> Option<u64> {
    REPEATS.lock().unwrap_or_else(PoisonError::into_inner).admit(kind, Instant::now())
}

/// When each kind of line was last written, and how many were left out since. Kinds are few: roles times facilities and
/// error codes.
#[derive(Debug)]
struct Repeats {
    kinds: BTreeMap<String, (Instant, u64)>,
}

impl Repeats {
    /// Whether a line is to be written, and if so, how many of its kind were left out since the last.
    fn admit(&mut self, kind: String, now: Instant) -> Option<u64> {
        match self.kinds.get_mut(&kind) {
            Some((written, left_out)) if now.duration_since(*written) < AGAIN_AFTER => {
                *left_out += 1;
                None
            }
            Some((written, left_out)) => {
                *written = now;
                Some(std::mem::take(left_out))
            }
            None => {
                self.kinds.insert(kind, (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_line_is_written_at_once_and_then_now_and_then_with_the_number_left_out() {
        let mut repeats = Repeats { kinds: BTreeMap::new() };
        let begun = Instant::now();
        let mut admit = |kind: &str, seconds| repeats.admit(kind.to_owned(), begun + Duration::from_secs(seconds));
        assert_eq!(admit("consumer FAIL", 0), Some(0));
        assert_eq!(admit("consumer FAIL", 1), None);
        assert_eq!(admit("reference FAIL", 1), Some(0));
        assert_eq!(admit("consumer FAIL", 29), None);
        assert_eq!(admit("consumer FAIL", 30), Some(2));
        assert_eq!(admit("consumer FAIL", 31), None);
        assert_eq!(admit("consumer FAIL", 3600), Some(1));
    }
}
