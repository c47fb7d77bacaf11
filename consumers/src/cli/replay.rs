//! `millrace replay` and `millrace dead replay`: their arguments, and what they ask for.

use std::{path::Path, time::Duration};

use clap::Args;
use millrace_pipeline::spec::BatchLimits;

use super::{
    ConfigFile, Failure,
    dead::{FilterArguments, bound},
    duration, print, runtime, section,
};
use crate::{
    bound::Bound,
    config::{Config, LogLevel},
    dead::filter::Filter,
    replay::{self, What},
    telemetry::logs,
};

/// A range of a topic, to be replayed.
#[derive(Args)]
pub(super) struct RangeReplay {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    events: Events,
    /// Only this Kafka partition
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// First offset or time; default: the oldest record
    #[arg(long, value_name = "OFFSET|TIME", value_parser = bound)]
    from: Option<Bound>,
    /// Offset or time to stop before; default, and at the latest: the committed offset
    #[arg(long, value_name = "OFFSET|TIME", value_parser = bound)]
    to: Option<Bound>,
    #[command(flatten)]
    how: How,
}

/// Dead letters of a topic, to be replayed.
#[derive(Args)]
pub(super) struct LetterReplay {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    events: Events,
    #[command(flatten)]
    filter: FilterArguments,
    #[command(flatten)]
    how: How,
}

/// Which section of the configuration.
#[derive(Args)]
struct Events {
    /// Topic of the events
    #[arg(long, value_name = "NAME")]
    topic: String,
    /// The section of the topic that writes this table, where several share the topic
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
}

#[derive(Args)]
struct How {
    /// Tell what would land, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Most records to look at in a second; default: as many as can be
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Most rows in one landing. For each a live pipeline takes its partitions over again
    #[arg(long, value_name = "N", default_value_t = 400_000, value_parser = batch_rows)]
    batch_rows: usize,
    /// How long a live pipeline is left in peace after it has claimed a partition, with its unit
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pause: Duration,
    /// Samples of what cannot be read, and of what landed
    #[arg(long, value_name = "N", default_value_t = 10)]
    samples: usize,
    /// Longest silence of a server, with its unit
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
}

impl RangeReplay {
    /// Replays it.
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { config, events, partition, from, to, how } = self;
        replay(&config.path, &events, What::Records { partition, from, to }, how)
    }
}

impl LetterReplay {
    /// Replays them.
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { config, events, filter, how } = self;
        replay(&config.path, &events, What::Letters(filter.filter()), how)
    }
}

fn replay(path: &Path, events: &Events, what: What, how: How) -> Result<(), Failure> {
    let mut config = Config::load(path)?;
    let topic = section(&config, Some(&events.topic), events.table.as_deref(), path)?.clone();
    let (What::Records { from, to, .. } | What::Letters(Filter { from, to, .. })) = &what;
    let empty = match (from, to) {
        (Some(Bound::Offset(from)), Some(Bound::Offset(to))) | (Some(Bound::Time(from)), Some(Bound::Time(to))) => {
            from >= to
        }
        _ => false,
    };
    if let (true, Some(from), Some(to)) = (empty, from, to) {
        return Err(Failure::Usage(format!(
            "--from {from} --to {to}: nothing lies between; expected --to greater than --from"
        )));
    }
    // What does not go smoothly is worth a line; what does is told by the progress.
    if config.log.level != LogLevel::Error {
        config.log.level = LogLevel::Warn;
    }
    logs::init(&config.log, &config.traces.service_name)?;
    let How { dry_run, rate, batch_rows, pause, samples, timeout, json } = how;
    let options = replay::Options { dry_run, rate, batch_rows, pause, samples, timeout };
    let runtime = runtime()?;
    let report = runtime.block_on(replay::replay(&config, &topic, what, options));
    // A server that still owes an answer must not hold this up.
    runtime.shutdown_background();
    let report = report?;
    print(&if json { format!("{}\n", report.to_json()) } else { report.to_string() })?;
    Ok(report.outcome()?)
}

fn batch_rows(text: &str) -> Result<usize, String> {
    let rows = text.parse().ok().filter(|rows| (1..=BatchLimits::MAX_ROWS).contains(rows));
    rows.ok_or_else(|| format!("expected a number from 1 to {}", BatchLimits::MAX_ROWS))
}
