//! The fault matrix against the real parts: each case injects its faults into a running stack and several `millrace`
//! processes, heals them, and is judged by the oracle. `cargo xtask chaos` builds the programs, brings a stack of its own
//! up, and runs this.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program of tests: a case that panics has failed, and what it prints is what it is for"
)]

mod cases;
mod fleet;
mod guard;
mod landings;
mod report;
mod trial;

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::cases::Case;
use crate::guard::Guard;
use crate::report::Row;

/// Injects faults into real parts, and judges what is left.
#[derive(Parser)]
struct Cli {
    /// Number or name of a case, `all` of them, or `random` for a mix of faults
    #[arg(long, default_value = "all")]
    case: String,
    /// Replays a run; by default a new one, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Repeat for so many minutes, each time with the next seed
    #[arg(long)]
    minutes: Option<f64>,
    /// One line of JSON per case on standard output
    #[arg(long)]
    json: bool,
    /// Leave a guard of the protocol out: the cases that rest on it have to fail
    #[arg(long, value_enum)]
    without: Option<Guard>,
    /// Run no negative controls after the cases
    #[arg(long)]
    no_controls: bool,
    /// Only every Nth case and control, beginning with the Kth: for N stacks side by side
    #[arg(long, value_name = "K/N", value_parser = shard, default_value = "1/1")]
    shard: (usize, usize),
    /// List the cases
    #[arg(long)]
    list: bool,
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    parsed.filter(|(k, n)| (1..=*n).contains(k)).ok_or_else(|| "expected K/N with K from 1 to N".to_owned())
}

/// What of a list is in a shard.
fn sharded<T>(list: Vec<T>, (k, n): (usize, usize)) -> Vec<T> {
    list.into_iter().skip(k - 1).step_by(n).collect()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let cases = cases::all();
    if cli.list {
        for case in &cases {
            println!("{:>3}  {:<28} {}", case.number, case.name, case.what);
        }
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<&Case> = match cli.case.as_str() {
        // The mix is for as long as one likes; all the others have an end.
        "all" => cases.iter().filter(|case| case.name != "random").collect(),
        wanted => cases.iter().filter(|case| case.name == wanted || case.number.to_string() == wanted).collect(),
    };
    let chosen: Vec<&Case> =
        chosen.into_iter().filter(|case| cli.without.is_none_or(|guard| case.rests_on.contains(&guard))).collect();
    let chosen = sharded(chosen, cli.shard);
    if chosen.is_empty() {
        eprintln!("error: no such case (or none that rests on that guard): {}; --list shows all", cli.case);
        return ExitCode::from(2);
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let first_seed = cli.seed.unwrap_or(since_1970 % 1_000_000);
    let ends = cli.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));

    let mut rows = Vec::new();
    for round in 0.. {
        for case in &chosen {
            let time_left = ends.map(|ends| ends.saturating_duration_since(Instant::now()));
            if round > 0 && time_left == Some(Duration::ZERO) {
                break;
            }
            let row = trial::run(case, first_seed + round, cli.without, time_left);
            row.show(cli.json);
            rows.push(row);
        }
        if ends.is_none_or(|ends| Instant::now() >= ends) {
            break;
        }
    }
    if cli.without.is_none() && cli.case == "all" && !cli.no_controls {
        rows.extend(controls(&cases, &sharded(Guard::ALL.to_vec(), cli.shard), first_seed, cli.json));
    }
    report::summary(&rows);
    if report::as_expected(&rows) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Each guard is left out in the first case that rests on it; where the oracle holds all the same, the next one is tried.
fn controls(cases: &[Case], guards: &[Guard], seed: u64, json: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    for guard in guards.iter().copied() {
        for case in cases.iter().filter(|case| case.rests_on.contains(&guard)) {
            let row = trial::run(case, seed, Some(guard), None);
            row.show(json);
            let caught = row.missed();
            rows.push(row);
            if caught {
                break;
            }
        }
    }
    rows
}
