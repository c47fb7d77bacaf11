//! The delivery protocol, simulated from a seed: the real [`TopicPipeline`](super::super::TopicPipeline) in up to four
//! consumers, among models of Kafka, ClickHouse and producers, while anything in the fault matrix goes wrong.
//!
//! What the shell does around the core is mirrored step by step, and between any two steps anybody else may act, die,
//! sleep, or be told late. A seed is a whole run:
//! `MILLRACE_SEED=<n> cargo test --release -p millrace-pipeline simulator -- --nocapture` replays one with its trace;
//! `MILLRACE_SEEDS=<count>` tries that many instead of the default; `MILLRACE_CASE=<name>` replays one of [`CASES`].

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
mod window;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use self::{faults::Faults, run::Sim};

const SEEDS: u64 = 10_000;
/// Seeds within which a control has to fail.
const CONTROL_SEEDS: u64 = 4_000;

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
    lease: bool,
    /// Whether a batch holds rows of one shard's partitions only.
    lanes: bool,
}

const AS_BUILT: Protocol = Protocol {
    fence: true,
    token: true,
    load: true,
    dedup: true,
    quiet: true,
    commit_after_rows: true,
    lease: true,
    lanes: true,
};

/// A protocol under conditions, and what must go wrong with it.
#[derive(Debug)]
struct Case {
    name: &'static str,
    protocol: Protocol,
    /// Whether SIGKILL of the server may come between a month's token and its rows.
    torn_commits: bool,
    /// Whether tokens may be forgotten while their insert is still being tried.
    short_memory: bool,
    wrong: Option<&'static str>,
}

const fn without(name: &'static str, protocol: Protocol, wrong: &'static str) -> Case {
    Case { name, protocol, torn_commits: false, short_memory: false, wrong: Some(wrong) }
}

const CASES: [Case; 10] = [
    Case { name: "as built", protocol: AS_BUILT, torn_commits: true, short_memory: true, wrong: None },
    without("fence", Protocol { fence: false, ..AS_BUILT }, "twice"),
    without("token", Protocol { token: false, ..AS_BUILT }, "twice"),
    without("load", Protocol { load: false, ..AS_BUILT }, "twice"),
    without("dedup", Protocol { dedup: false, ..AS_BUILT }, "twice"),
    without("quiet", Protocol { quiet: false, ..AS_BUILT }, "twice"),
    without("acknowledgement", Protocol { commit_after_rows: false, ..AS_BUILT }, "nowhere"),
    Case { torn_commits: true, ..without("lease, torn", Protocol { lease: false, ..AS_BUILT }, "") },
    Case { short_memory: true, ..without("lease, late", Protocol { lease: false, ..AS_BUILT }, "twice") },
    // The fence of the one shard lets no batch in that holds a partition of the other.
    without("lanes", Protocol { lanes: false, ..AS_BUILT }, "stands still"),
];

#[expect(clippy::disallowed_methods, reason = "which seeds to run is the developer's choice")]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn number(name: &str) -> Option<u64> {
    told(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text} is no number")))
}

/// Runs seeds on all cores; what went wrong at the lowest seed at which anything did.
#[expect(clippy::disallowed_methods, reason = "seeds are independent: each core takes the next")]
fn search(seeds: u64, case: &Case) -> (Faults, Option<(u64, String)>) {
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
                    let (happened, outcome) = Sim::new(seed, case, false).run();
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

/// Runs seeds of a case in which nothing may go wrong.
#[expect(clippy::print_stdout, reason = "how often each fault happened is the worth of the test")]
fn must_hold(seeds: u64, case: &Case) {
    let (faults, found) = search(seeds, case);
    println!("{}:\n{faults}", case.name);
    if let Some((seed, wrong)) = found {
        panic!(
            "{wrong}\nreplay: MILLRACE_SEED={seed} MILLRACE_CASE='{}' \
             cargo test --release -p millrace-pipeline simulator -- --nocapture",
            case.name
        );
    }
    assert_eq!(faults.missing(), [], "a fault that never happens proves nothing");
}

#[test]
fn simulator_every_event_lands_exactly_once_whatever_fails() {
    if let Some(seed) = number("MILLRACE_SEED") {
        let name = told("MILLRACE_CASE").unwrap_or_else(|| CASES[0].name.into());
        let case = CASES.iter().find(|case| case.name == name);
        let case = case.unwrap_or_else(|| panic!("MILLRACE_CASE: there is no case {name:?}"));
        let (_, outcome) = Sim::new(seed, case, true).run();
        return outcome.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    must_hold(number("MILLRACE_SEEDS").unwrap_or(SEEDS), &CASES[0]);
}

/// Each control has to fail, or the simulator would not notice.
#[test]
#[expect(clippy::print_stdout, reason = "which seed shows what each part of the protocol is for")]
fn simulated_without_any_one_part_of_the_protocol_events_are_doubled_or_lost() {
    for case in &CASES {
        let Some(expected) = case.wrong else { continue };
        let (_, found) = search(CONTROL_SEEDS, case);
        let (seed, wrong) = found.unwrap_or_else(|| panic!("the simulator would not notice: {case:?}"));
        println!("{:>16}: seed {seed:>4}: {wrong}", case.name);
        assert!(wrong.contains(expected), "{case:?}: {wrong}");
    }
}
