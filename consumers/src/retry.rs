//! Targets: servers and topics that are called again and again. Each has a circuit breaker for all who call it, and tells its
//! state by a metric, a log line when it opens or closes, and a text for readiness.
//!
//! What a caller does here never ends by itself: a landing, a dead letter and an event that waits for its schema are not given
//! up, since that would lose them. Only the commands' questions have a budget.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use metrics::{counter, gauge};
use millrace_pipeline::retry::{Breaker, BreakerState, Permit};
use tokio::sync::Notify;

use crate::{config::Retry, random, telemetry::metrics as names};

/// What is called.
#[derive(Debug)]
pub struct Target {
    name: String,
    retry: Retry,
    started: Instant,
    inside: Mutex<Inside>,
    changed: Notify,
}

#[derive(Debug)]
struct Inside {
    breaker: Breaker,
    /// Since when it is in its state.
    since: SystemTime,
    /// The error of the last call that failed, until one succeeds.
    trouble: Option<String>,
    opened: Option<Instant>,
}

/// How a target is, for whoever shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// As the label of its metrics.
    pub target: String,
    /// Of its breaker.
    pub state: BreakerState,
    /// Since when.
    pub since: SystemTime,
    /// Why the last call failed, if none has succeeded since.
    pub error: Option<String>,
}

/// A call under way; one that is dropped without a word counts for nothing.
#[derive(Debug)]
pub struct Call<'t> {
    target: &'t Target,
    permit: Option<Permit>,
}

impl Target {
    /// A target nobody has called yet; `name` is the `target` label of its metrics.
    pub fn new(name: impl Into<String>, retry: &Retry) -> Self {
        let breaker = Breaker::new(retry.failures_to_open, retry.rest);
        let inside = Inside { breaker, since: SystemTime::now(), trouble: None, opened: None };
        let target = Self {
            name: name.into(),
            retry: *retry,
            started: Instant::now(),
            inside: Mutex::new(inside),
            changed: Notify::new(),
        };
        gauge!(names::BREAKER_STATE, "target" => target.name.clone()).set(0.0);
        for counter in [names::BREAKER_OPENINGS, names::TARGET_FAILURES] {
            counter!(counter, "target" => target.name.clone()).absolute(0);
        }
        target
    }

    /// Waits until a call may go.
    pub async fn permit(&self) -> Call<'_> {
        loop {
            // Made before the question, so that no change is missed. All who wait are woken by a change and not by asking
            // now and then: there may be one for each dead letter of a batch.
            let changed = self.changed.notified();
            match self.try_permit() {
                Ok(call) => return call,
                Err(wait) => _ = tokio::time::timeout(wait, changed).await,
            }
        }
    }

    /// A call, if one may go now.
    ///
    /// # Errors
    /// How long to wait before asking again.
    pub fn try_permit(&self) -> Result<Call<'_>, Duration> {
        let permit = self.change(|breaker, now| breaker.permit(now))?;
        Ok(Call { target: self, permit: Some(permit) })
    }

    /// How long to wait after so many failures of one caller in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        self.retry.backoff.delay(failures, random())
    }

    /// It has just answered somebody else: whoever is next may call at once, and nothing is told of earlier trouble, which
    /// nobody might disprove if there is nothing left to call it for.
    pub fn answered(&self) {
        self.change(|breaker, _| breaker.succeeded());
        self.lock().trouble = None;
    }

    /// Why calls are held back: the last error, unless the breaker is closed.
    pub fn trouble(&self) -> Option<String> {
        let inside = self.lock();
        inside.trouble.clone().filter(|_| inside.breaker.state() != BreakerState::Closed)
    }

    /// Why the last call failed, if none has succeeded since.
    pub fn last_error(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let inside = self.lock();
        let (state, since, error) = (inside.breaker.state(), inside.since, inside.trouble.clone());
        Status { target: self.name.clone(), state, since, error }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the breaker, and tells what it is then if that is news.
    fn change<T>(&self, act: impl FnOnce(&mut Breaker, u64) -> T) -> T {
        let now = self.started.elapsed().as_millis() as u64;
        let mut inside = self.lock();
        let before = inside.breaker.state();
        let result = act(&mut inside.breaker, now);
        let state = inside.breaker.state();
        if state == before {
            return result;
        }
        inside.since = SystemTime::now();
        self.changed.notify_waiters();
        let value = match state {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        gauge!(names::BREAKER_STATE, "target" => self.name.clone()).set(value);
        let target = &self.name;
        match (before, state) {
            (BreakerState::Closed, BreakerState::Open) => {
                inside.opened = Some(Instant::now());
                counter!(names::BREAKER_OPENINGS, "target" => target.clone()).increment(1);
                let error = inside.trouble.as_deref().unwrap_or_default();
                let rest_ms = self.retry.rest.as_millis() as u64;
                tracing::warn!(
                    target_name = target,
                    error,
                    rest_ms,
                    "circuit breaker opened: it is called no more, but once after each rest, until it answers"
                );
            }
            (_, BreakerState::Closed) => {
                let open_ms = inside.opened.take().map_or(0, |opened| opened.elapsed().as_millis() as u64);
                tracing::info!(target_name = target, open_ms, "circuit breaker closed: it answers again");
            }
            // Every few seconds for as long as it lasts; the metric has it.
            _ => tracing::debug!(target_name = target, ?state, "circuit breaker"),
        }
        result
    }
}

/// A topic that has ended calls nobody: its breaker would be open for ever.
impl Drop for Target {
    fn drop(&mut self) {
        gauge!(names::BREAKER_STATE, "target" => self.name.clone()).set(0.0);
    }
}

impl Call<'_> {
    /// The target has answered, be it that it refuses what was asked.
    pub fn succeeded(mut self) {
        self.permit = None;
        self.target.answered();
    }

    /// The target has answered that it will not do this: it is well, and still the caller waits.
    pub fn refused(mut self, error: impl Into<String>) {
        self.permit = None;
        self.target.answered();
        self.target.lock().trouble = Some(error.into());
    }

    /// The target is in trouble; `error` is one line, without secrets.
    pub fn failed(mut self, error: impl Into<String>) {
        let Some(permit) = self.permit.take() else { return };
        counter!(names::TARGET_FAILURES, "target" => self.target.name.clone()).increment(1);
        self.target.lock().trouble = Some(error.into());
        self.target.change(|breaker, now| breaker.failed(permit, now));
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.target.change(|breaker, now| breaker.abandoned(permit, now));
        }
    }
}

/// Asks until there is an answer, or an error that asking again does not mend, or the budget is spent.
///
/// # Errors
/// The last one.
pub(crate) async fn within_budget<T, E, F: Future<Output = Result<T, E>>>(
    retry: &Retry,
    worth_another: impl Fn(&E) -> bool,
    mut ask: impl FnMut() -> F,
) -> Result<T, E> {
    let begun = Instant::now();
    let mut made = 0;
    loop {
        let error = match ask().await {
            Err(error) if worth_another(&error) => error,
            settled => return settled,
        };
        made += 1;
        let delay = retry.backoff.delay(made, random());
        if !retry.budget.allows(made, begun.elapsed(), delay) {
            return Err(error);
        }
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use millrace_pipeline::retry::{Backoff, Budget};

    use super::*;

    fn retry(failures_to_open: u32, rest_ms: u64) -> Retry {
        let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(2) };
        let budget = Budget { attempts: 3, time: Duration::from_secs(10) };
        Retry { backoff, failures_to_open, rest: Duration::from_millis(rest_ms), budget }
    }

    #[tokio::test]
    async fn a_breaker_that_opens_holds_calls_back_until_one_succeeds_after_a_rest() {
        let target = Target::new("registry", &retry(2, 50));
        for error in ["first", "second"] {
            assert_eq!(target.trouble(), None);
            target.permit().await.failed(error);
        }
        let opened = Instant::now();
        assert_eq!((target.status().state, target.trouble().as_deref()), (BreakerState::Open, Some("second")));
        let probe = target.permit().await;
        assert!(opened.elapsed() >= Duration::from_millis(49), "{:?}", opened.elapsed());
        assert_eq!(target.status().state, BreakerState::HalfOpen);
        let another = tokio::time::timeout(Duration::from_millis(5), target.permit()).await;
        assert!(another.is_err(), "one call at a time");
        drop(probe);
        // Its place is free at once.
        target.permit().await.succeeded();
        assert_eq!((target.status().state, target.last_error()), (BreakerState::Closed, None));
    }

    #[tokio::test]
    async fn who_waits_goes_at_once_when_the_target_has_answered_somebody_else() {
        let target = Target::new("clickhouse/orders", &retry(1, 3_600_000));
        target.permit().await.failed("refused");
        let mut waiting = std::pin::pin!(target.permit());
        assert!(futures::poll!(&mut waiting).is_pending());
        target.answered();
        waiting.await.succeeded();
    }

    #[tokio::test]
    async fn a_refusal_is_an_answer_that_is_told() {
        let target = Target::new("dead_letters/orders", &retry(1, 3_600_000));
        target.permit().await.refused("too large");
        assert_eq!((target.status().state, target.trouble()), (BreakerState::Closed, None));
        assert_eq!(target.last_error().as_deref(), Some("too large"));
    }

    #[tokio::test]
    async fn what_may_be_given_up_is_within_its_budget_and_not_asked_again_in_vain() {
        let asked = std::cell::Cell::new(0);
        let ask = || {
            asked.set(asked.get() + 1);
            std::future::ready(Err::<(), u32>(asked.get()))
        };
        assert_eq!(within_budget(&retry(1, 1), |_| true, ask).await, Err(3));
        assert_eq!(within_budget(&retry(1, 1), |_| false, ask).await, Err(4));
        assert_eq!(within_budget(&retry(1, 1), |_| true, || std::future::ready(Ok::<_, u32>(7))).await, Ok(7));
    }
}
