//! The section `[retry]`: when something that failed is tried again, and when it is left in peace. One for all targets: what
//! they differ by is only whether they may be given up, and that is no matter of taste.

use std::time::Duration;

use millrace_pipeline::retry::{Backoff, Budget};

use super::reader::{Section, duration, integer};

/// When something that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Between attempts.
    pub backoff: Backoff,
    /// Failures of a target in a row that open its circuit breaker.
    pub failures_to_open: u32,
    /// How long an open breaker lets nobody through.
    pub rest: Duration,
    /// For what may be given up: questions that commands ask of the registry.
    pub budget: Budget,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            backoff: Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) },
            failures_to_open: 5,
            rest: Duration::from_secs(5),
            budget: Budget { attempts: 5, time: Duration::from_secs(30) },
        }
    }
}

pub(super) fn read(mut section: Section<'_, '_>) -> Option<Retry> {
    let default = Retry::default();
    let (millisecond, second) = (Duration::from_millis(1), Duration::from_secs(1));
    let first = section.or("first", default.backoff.first, duration(10 * millisecond..=10 * second));
    // A poll loop that stands still for a minute counts as stuck, and a starting topic beats between attempts.
    let longest = section.optional("longest", duration(100 * millisecond..=30 * second));
    let failures_to_open = section.or("failures_to_open", default.failures_to_open as usize, integer(1..=1000));
    let rest = section.or("rest", default.rest, duration(100 * millisecond..=30 * second));
    let attempts = section.or("max_attempts", default.budget.attempts as usize, integer(1..=1000));
    let time = section.or("give_up_after", default.budget.time, duration(Duration::ZERO..=3600 * second));
    let first = first?;
    let longest = match longest? {
        Some(found) if found.value < first => {
            section.report(found.at, "longest", "is shorter than `first`; expected at least as long");
            return None;
        }
        found => found.map_or(default.backoff.longest.max(first), |found| found.value),
    };
    section.finish();
    Some(Retry {
        backoff: Backoff { first, longest },
        failures_to_open: failures_to_open? as u32,
        rest: rest?,
        budget: Budget { attempts: attempts? as u32, time: time? },
    })
}
