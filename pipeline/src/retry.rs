//! When to try again: exponential backoff with jitter, and a circuit breaker shared by all who call one server.
//!
//! Neither sleeps nor looks at a clock: the caller brings the time and the randomness.

use std::time::Duration;

use crate::dedup::Millis;

/// Exponential backoff with full jitter between half and all of the step.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// First step.
    pub first: Duration,
    /// Longest step.
    pub longest: Duration,
}

impl Backoff {
    /// How long to wait before attempt number `attempt` (1 for the first retry); `random` is uniform in 0..1.
    pub fn delay(&self, attempt: u32, random: f64) -> Duration {
        let step = self.first.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        step.min(self.longest).mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }
}

/// State of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// Calls are held back.
    Open,
    /// One call is let through to see.
    HalfOpen,
}

/// Opens after consecutive failures, lets one call through after a rest, closes when it succeeds.
#[derive(Debug)]
pub struct Breaker {
    failures_to_open: u32,
    rest_ms: Millis,
    failures: u32,
    opened_at: Option<Millis>,
    /// Since when the one call that is let through is under way.
    probing: Option<Millis>,
}

impl Breaker {
    /// A closed breaker that opens after `failures_to_open` failures in a row and rests for `rest`.
    pub fn new(failures_to_open: u32, rest: Duration) -> Self {
        let rest_ms = Millis::try_from(rest.as_millis()).unwrap_or(Millis::MAX);
        Self { failures_to_open, rest_ms, failures: 0, opened_at: None, probing: None }
    }

    /// Whether a call may go now; `Err` holds how long to wait before asking again. A probe that has not been reported
    /// for as long as a rest no longer holds the others back: whoever made it may be gone.
    ///
    /// # Errors
    /// While open, and while another call is the probe.
    pub fn permit(&mut self, now: Millis) -> Result<(), Duration> {
        let Some(opened_at) = self.opened_at else { return Ok(()) };
        let rested_at = opened_at.saturating_add(self.rest_ms);
        if now < rested_at {
            return Err(Duration::from_millis(rested_at - now));
        }
        if self.probing.is_some_and(|since| now < since.saturating_add(self.rest_ms)) {
            return Err(Duration::from_millis(self.rest_ms.clamp(1, 100)));
        }
        self.probing = Some(now);
        Ok(())
    }

    /// A call succeeded.
    pub fn succeeded(&mut self) {
        self.failures = 0;
        self.opened_at = None;
        self.probing = None;
    }

    /// A call failed in a way that says the server is in trouble.
    pub fn failed(&mut self, now: Millis) {
        self.failures = self.failures.saturating_add(1);
        if self.probing.is_some() || self.failures >= self.failures_to_open {
            self.opened_at = Some(now);
            self.probing = None;
        }
    }

    /// The state, for a metric.
    pub fn state(&self) -> BreakerState {
        match (self.opened_at, self.probing) {
            (None, _) => BreakerState::Closed,
            (Some(_), None) => BreakerState::Open,
            (Some(_), Some(_)) => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests;
