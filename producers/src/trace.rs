//! The W3C `traceparent` header: taken from the caller or from the span of the publish, or begun here so that an event can
//! be followed at all. It never exports a span.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use opentelemetry::trace::SpanContext;

/// A `traceparent` value, version 00, as <https://www.w3.org/TR/trace-context/#traceparent-header> says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceParent([u8; TraceParent::LEN]);

impl TraceParent {
    const LEN: usize = 55;

    /// Reads a header value that came from elsewhere; `None` if it is not valid (then the specification says to begin
    /// a new trace: [`TraceParent::generate`]).
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; Self::LEN] = text.as_bytes().try_into().ok()?;
        let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let set = |part: &[u8]| part.iter().any(|&b| b != b'0');
        let shape = bytes.starts_with(b"00-") && bytes[35] == b'-' && bytes[52] == b'-';
        (shape
            && hex(&bytes[3..35])
            && set(&bytes[3..35])
            && hex(&bytes[36..52])
            && set(&bytes[36..52])
            && hex(&bytes[53..]))
        .then_some(Self(bytes))
    }

    /// A trace of its own, flagged as not recorded, because nobody holds its first span. Ids are random, not secret.
    pub fn generate() -> Self {
        let mut bytes = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(next_random(), &mut bytes[3..19]);
        write_hex(next_random(), &mut bytes[19..35]);
        write_hex(next_random(), &mut bytes[36..52]);
        Self(bytes)
    }

    /// That of a span.
    pub(crate) fn of(span: &SpanContext) -> Self {
        let mut bytes = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let trace = u128::from_be_bytes(span.trace_id().to_bytes());
        write_hex((trace >> 64) as u64, &mut bytes[3..19]);
        write_hex(trace as u64, &mut bytes[19..35]);
        write_hex(u64::from_be_bytes(span.span_id().to_bytes()), &mut bytes[36..52]);
        if span.is_sampled() {
            bytes[54] = b'1';
        }
        Self(bytes)
    }

    /// The header value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

fn write_hex(value: u64, out: &mut [u8]) {
    for (digit, out) in out.iter_mut().enumerate() {
        let nibble = (value >> (60 - 4 * digit)) & 0xf;
        *out = b"0123456789abcdef"[nibble as usize];
    }
}

/// SplitMix64 with a random start per thread: a few nanoseconds, never zero here because an all-zero id is invalid.
pub(crate) fn next_random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().hash_one(std::thread::current().id()));
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)).max(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_values_are_valid_and_differ() {
        let (first, second) = (TraceParent::generate(), TraceParent::generate());
        assert_ne!(first, second);
        for value in [first, second] {
            let text = std::str::from_utf8(value.as_bytes()).unwrap();
            assert_eq!(TraceParent::parse(text), Some(value));
        }
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(TraceParent::parse(valid).is_some());
        for text in [
            "",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(text), None, "{text}");
        }
    }
}
