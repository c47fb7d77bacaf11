//! Says on standard error how far a long command is; a short one says nothing.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Work that takes no longer is not told of.
const QUIET: Duration = Duration::from_secs(3);
const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(5);

/// How far it is; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    step: Mutex<Option<Step>>,
    done: AtomicU64,
}

#[derive(Clone, Debug)]
struct Step {
    what: String,
    total: Option<u64>,
    began: Instant,
}

impl Progress {
    /// A new step begins: what it counts, and how many there are, if that is known.
    pub(crate) fn begin(&self, what: impl Into<String>, total: Option<u64>) {
        let step = Step { what: what.into(), total, began: Instant::now() };
        let mut current = self.0.step.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.done.store(0, Ordering::Relaxed);
        *current = Some(step);
    }

    /// The step goes on under another name.
    pub(crate) fn say(&self, what: impl Into<String>) {
        if let Some(step) = self.0.step.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            step.what = what.into();
        }
    }

    /// So many more are done.
    pub(crate) fn add(&self, count: u64) {
        self.0.done.fetch_add(count, Ordering::Relaxed);
    }

    /// What is counted, how many are done, and how many there are, if that is known; `None` before it has begun.
    pub(crate) fn now(&self) -> Option<(String, u64, Option<u64>)> {
        let step = self.0.step.lock().unwrap_or_else(PoisonError::into_inner);
        step.as_ref().map(|step| (step.what.clone(), self.0.done.load(Ordering::Relaxed), step.total))
    }

    /// Tells until dropped: one line that is overwritten on a terminal, a line every few seconds elsewhere.
    pub(crate) async fn tell(&self) {
        let terminal = io::stderr().is_terminal();
        let mut telling = Telling { terminal, told: false };
        tokio::time::sleep(QUIET).await;
        loop {
            let step = self.0.step.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(step) = step {
                telling.line(&describe(
                    &step.what,
                    self.0.done.load(Ordering::Relaxed),
                    step.total,
                    step.began.elapsed(),
                ));
            }
            tokio::time::sleep(if terminal { ON_TERMINAL } else { ELSEWHERE }).await;
        }
    }
}

/// Wipes its line when it is dropped.
struct Telling {
    terminal: bool,
    told: bool,
}

impl Telling {
    fn line(&mut self, text: &str) {
        let mut stderr = io::stderr().lock();
        // Progress that nobody can be told of is no reason to stop.
        _ = if self.terminal { write!(stderr, "\r\x1b[K{text}") } else { writeln!(stderr, "{text}") };
        _ = stderr.flush();
        self.told = true;
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if self.terminal && self.told {
            _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn describe(what: &str, done: u64, total: Option<u64>, took: Duration) -> String {
    let rate = (done as f64 / took.as_secs_f64().max(0.001)) as u64;
    match total {
        Some(total) if total > 0 => {
            let percent = (done.min(total) as f64 * 100.0 / total as f64) as u64;
            let left = left(done, total, took).map_or_else(String::new, |left| format!(", {} left", spoken(left)));
            format!("{what}: {done} of {total} ({percent} %), {rate}/s{left}")
        }
        _ => format!("{what}: {done}, {rate}/s"),
    }
}

/// How long the rest takes if it goes on as it has gone; unknown before anything is done.
fn left(done: u64, total: u64, took: Duration) -> Option<Duration> {
    let rest = total.checked_sub(done).filter(|rest| *rest > 0)?;
    (done > 0).then(|| took.mul_f64(rest as f64 / done as f64))
}

/// A length of time in two units at most; nobody wants more of an estimate.
fn spoken(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        seconds => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_of_what_and_how_fast() {
        let took = Duration::from_secs(2);
        assert_eq!(describe("records", 500, Some(2_000), took), "records: 500 of 2000 (25 %), 250/s, 6 s left");
        assert_eq!(describe("records", 2_000, Some(2_000), took), "records: 2000 of 2000 (100 %), 1000/s");
        assert_eq!(describe("records", 0, Some(2_000), took), "records: 0 of 2000 (0 %), 0/s");
        assert_eq!(describe("rows", 500, None, took), "rows: 500, 250/s");
    }

    #[test]
    fn an_estimate_goes_by_the_pace_so_far() {
        let took = Duration::from_secs(100);
        assert_eq!(left(0, 10, took), None);
        assert_eq!(left(10, 10, took), None);
        assert_eq!(left(11, 10, took), None, "more than was thought");
        assert_eq!(left(4, 10, took), Some(Duration::from_secs(150)));
        for (seconds, said) in
            [(0, "0 s"), (59, "59 s"), (60, "1 min 0 s"), (3_599, "59 min 59 s"), (90_061, "25 h 1 min")]
        {
            assert_eq!(spoken(Duration::from_secs(seconds)), said);
        }
    }
}
