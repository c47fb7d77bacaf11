//! What making and encoding an event costs, in one thread and without Kafka.

use std::hint::black_box;
use std::time::Instant;

use anyhow::Result;
use millrace_producers::{Encoder, Event};
use serde::Serialize;

use crate::orders::{Lookups, Orders, Timeline, blank};

/// Microseconds per event.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// Making the event.
    pub make_us: f64,
    /// Encoding key and value.
    pub encode_us: f64,
    /// Average size of the value.
    pub bytes: f64,
}

/// Makes so many events, then makes and encodes them; the second less the first is the encoding.
pub fn measure(events: u64) -> Result<Cost> {
    let orders = Orders::new(1, Timeline { start_ms: 1_767_225_600_000, spacing_us: 1000 });
    let encoder = Encoder::new(1)?;
    let (mut event, mut lookups) = (blank(), Lookups::default());
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut bytes = 0;
    let began = Instant::now();
    for n in 0..events {
        orders.write_event(n, &mut event, &mut lookups);
        black_box(&event);
    }
    let made = began.elapsed();
    let began = Instant::now();
    for n in 0..events {
        orders.write_event(n, &mut event, &mut lookups);
        key.clear();
        value.clear();
        event.write_key(&mut key);
        encoder.encode(&event, &mut value)?;
        bytes += black_box(&value).len();
    }
    let both = began.elapsed();
    let per_event = |seconds: f64| seconds * 1e6 / events as f64;
    Ok(Cost {
        make_us: per_event(made.as_secs_f64()),
        encode_us: per_event(both.as_secs_f64() - made.as_secs_f64()),
        bytes: bytes as f64 / events as f64,
    })
}
