//! When to try again: exponential backoff with jitter, a budget where giving up is right, and a circuit breaker shared by all
//! who call one target.
//!
//! None of them sleeps or looks at a clock: the caller brings the time and the randomness.

use std::time::Duration;

use crate::dedup::Millis;

/// Exponential backoff, with jitter between half and all of the step: those who failed together do not come back together,
/// and none comes back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How often and how long something is tried that may be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most attempts, the first one among them.
    pub attempts: u32,
    /// From the beginning of the first attempt: no attempt begins later.
    pub time: Duration,
}

impl Budget {
    /// Whether another attempt may begin after waiting for `delay`, if `made` have failed in `elapsed` by now.
    pub fn allows(&self, made: u32, elapsed: Duration, delay: Duration) -> bool {
        made < self.attempts && elapsed.saturating_add(delay) <= self.time
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

/// By what right a call goes; it is handed back with what came of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// The breaker was closed.
    Free,
    /// It is the one call that is let through to see: the so manieth.
    Probe(u64),
}

/// Opens after consecutive failures, lets one call through after a rest, closes when it succeeds.
#[derive(Debug)]
pub struct Breaker {
    failures_to_open: u32,
    rest_ms: Millis,
    is: Is,
    probes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Is {
    Closed { failures: u32 },
    Open { until: Millis },
    HalfOpen { probe: u64 },
}

impl Breaker {
    /// A closed breaker that opens after `failures_to_open` failures in a row and rests for `rest`.
    pub fn new(failures_to_open: u32, rest: Duration) -> Self {
        let rest_ms = Millis::try_from(rest.as_millis()).unwrap_or(Millis::MAX);
        Self { failures_to_open, rest_ms, is: Is::Closed { failures: 0 }, probes: 0 }
    }

    /// Whether a call may go now; `Err` holds how long to wait before asking again, unless the state changes sooner. Every permit is to be handed back, by
    /// [`Breaker::succeeded`], [`Breaker::failed`] or [`Breaker::abandoned`]: while a probe is out nobody else goes.
    ///
    /// # Errors
    /// While open, and while another call is the probe.
    pub fn permit(&mut self, now: Millis) -> Result<Permit, Duration> {
        match self.is {
            Is::Closed { .. } => Ok(Permit::Free),
            Is::Open { until } if now < until => Err(Duration::from_millis(until - now)),
            Is::Open { .. } => {
                self.probes += 1;
                self.is = Is::HalfOpen { probe: self.probes };
                Ok(Permit::Probe(self.probes))
            }
            Is::HalfOpen { .. } => Err(Duration::from_millis(self.rest_ms.max(1))),
        }
    }

    /// A call succeeded, or the target was heard of otherwise: it is well, whoever asked.
    pub fn succeeded(&mut self) {
        self.is = Is::Closed { failures: 0 };
    }

    /// A call failed in a way that says the target is in trouble. One that went before the breaker opened says nothing new.
    pub fn failed(&mut self, permit: Permit, now: Millis) {
        let open = Is::Open { until: now.saturating_add(self.rest_ms) };
        match (self.is, permit) {
            (Is::Closed { failures }, _) => {
                let failures = failures.saturating_add(1);
                self.is = if failures >= self.failures_to_open { open } else { Is::Closed { failures } };
            }
            (Is::HalfOpen { probe }, Permit::Probe(of)) if of == probe => self.is = open,
            (Is::HalfOpen { .. } | Is::Open { .. }, _) => {}
        }
    }

    /// A call ended without a word on the target: the next one is the probe in its place.
    pub fn abandoned(&mut self, permit: Permit, now: Millis) {
        if let (Is::HalfOpen { probe }, Permit::Probe(of)) = (self.is, permit)
            && of == probe
        {
            self.is = Is::Open { until: now };
        }
    }

    /// The state, for a metric. An open breaker whose rest is over is open until somebody calls.
    pub fn state(&self) -> BreakerState {
        match self.is {
            Is::Closed { .. } => BreakerState::Closed,
            Is::Open { .. } => BreakerState::Open,
            Is::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

#[cfg(test)]
mod tests;
