//! The delivery protocol, simulated from a seed: the real [`TopicPipeline`](super::super::TopicPipeline) in up to four
//! consumers, among models of Kafka, ClickHouse and producers, while anything in the fault matrix goes wrong.
//!
//! What the shell does around the core is mirrored step by step, and between any two steps anybody else may act, die,
//! sleep, or be told late. A seed is a whole run:
//! `MILLRACE_SEED=<n> cargo test --release -p millrace-pipeline simulator -- --nocapture` replays one with its trace;
//! `MILLRACE_SEEDS=<count>` tries that many instead of the default.

mod chaos;
mod clickhouse;
mod consumer;
mod faults;
mod group;
mod insert;
mod kafka;
mod oracle;
mod producer;
mod random;
mod run;
mod takeover;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use self::{faults::Faults, run::Sim};
use crate::dedup::Millis;

const SEEDS: u64 = 10_000;
const HOUR_MS: Millis = 3_600_000;

/// What holds; each negative control leaves one thing out.
#[derive(Clone, Copy, Debug)]
struct Protocol {
    fence: bool,
    token: bool,
    load: bool,
    dedup: bool,
    quiet: bool,
    commit_after_rows: bool,
    /// Whether the server refuses an insert that was first sent to an earlier life of it, or too long ago.
    guard: bool,
}

impl Protocol {
    const AS_BUILT: Self =
        Self { fence: true, token: true, load: true, dedup: true, quiet: true, commit_after_rows: true, guard: false };
    const GUARDED: Self = Self { guard: true, ..Self::AS_BUILT };
}

/// What ClickHouse is like.
#[derive(Clone, Copy, Debug)]
struct Conditions {
    /// Large against a run, and against jumps of the server's clock.
    window_ms: Millis,
    /// Whether SIGKILL may come between a month's token and its rows.
    torn_commits: bool,
    /// Whether tokens may be forgotten while their insert is still being tried.
    short_memory: bool,
}

impl Conditions {
    const FAIR: Self = Self { window_ms: 24 * HOUR_MS, torn_commits: false, short_memory: false };
    const HARSH: Self = Self { torn_commits: true, short_memory: true, ..Self::FAIR };
}

#[expect(clippy::disallowed_methods, reason = "which seeds to run is the developer's choice")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
}

/// Runs seeds on all cores; what went wrong at the lowest seed at which anything did.
#[expect(clippy::disallowed_methods, reason = "seeds are independent: each core takes the next")]
fn search(seeds: u64, protocol: Protocol, conditions: Conditions) -> (Faults, Option<(u64, String)>) {
    let (next, found) = (AtomicU64::new(0), Mutex::new((Faults::default(), None::<(u64, String)>)));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let mut faults = Faults::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        break;
                    }
                    let (happened, outcome) = Sim::new(seed, protocol, conditions, false).run();
                    faults.add(&happened);
                    if let Err(wrong) = outcome {
                        let first = &mut found.lock().unwrap().1;
                        if first.as_ref().is_none_or(|(other, _)| seed < *other) {
                            *first = Some((seed, wrong));
                        }
                        next.fetch_max(seeds, Ordering::Relaxed);
                    }
                }
                found.lock().unwrap().0.add(&faults);
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
#[expect(clippy::print_stdout, reason = "how often each fault happened is the worth of the test")]
fn simulator_every_event_lands_exactly_once_whatever_fails() {
    if let Some(seed) = number("MILLRACE_SEED") {
        let (_, outcome) = Sim::new(seed, Protocol::AS_BUILT, Conditions::FAIR, true).run();
        outcome.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
        return;
    }
    let (faults, found) = search(number("MILLRACE_SEEDS").unwrap_or(SEEDS), Protocol::AS_BUILT, Conditions::FAIR);
    println!("{faults}");
    if let Some((seed, wrong)) = found {
        panic!(
            "{wrong}\nreplay: MILLRACE_SEED={seed} cargo test --release -p millrace-pipeline simulator -- --nocapture"
        );
    }
    assert_eq!(faults.missing(), [], "a fault that never happens proves nothing");
}
