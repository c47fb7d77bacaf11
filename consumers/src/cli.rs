//! The command line of `millrace`: what can be asked for, and how the answer leaves. It does none of the work.
//!
//! Exit status: 0 it went well; 1 it failed, or `check`, `audit` or `status` found a problem; 2 the command line or the configuration
//! is wrong.

mod dead;
mod migrate;
mod query;
mod replay;
mod trace_event;
mod watch;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};

use self::{migrate::Migration, replay::RangeReplay};
use crate::{
    allocator,
    audit::{self, Options, Wanted},
    build, check,
    config::{self, Config, ConfigErrors, LogLevel, Secret, Topic},
    one_line, run,
    telemetry::{logs, metrics},
};

/// Avro events from Kafka into ClickHouse, exactly once.
#[derive(Parser)]
#[command(
    name = "millrace",
    version = build::DESCRIPTION.as_str(),
    after_help = "Exit status: 0 good; 1 failed, or a problem found; 2 the command line or the configuration is wrong."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read, deduplicate, enrich and insert until told to stop (SIGTERM drains; a second one leaves at once)
    Run {
        #[command(flatten)]
        config: ConfigFile,
        /// Least important log lines to write, over log.level of the configuration
        #[arg(long, value_name = "LEVEL", value_parser = levels())]
        log_level: Option<String>,
    },
    /// Try everything that `run` needs, write nothing, and tell every problem at once
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// Look at the configuration only, without connections
        #[arg(long)]
        offline: bool,
        /// One line of JSON instead of text
        #[arg(long)]
        json: bool,
        /// Longest wait for one answer, with its unit
        #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
        timeout: Duration,
    },
    /// Show what would be made, added or widened in ClickHouse; with --plan, as an SQL script; with --apply, do it
    Migrate(Migration),
    /// Account for every event: compare Kafka and ClickHouse, and tell what is lost, doubled or unexplained. It writes
    /// nothing and may run beside a live pipeline
    Audit {
        #[command(flatten)]
        config: ConfigFile,
        #[command(flatten)]
        scope: AuditScope,
        /// Samples of each finding
        #[arg(long, value_name = "N", default_value_t = 10)]
        samples: usize,
        /// Memory to use, with its unit; with less, Kafka is read more often
        #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = size)]
        max_memory: usize,
        /// Longest silence of a server, with its unit
        #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
        timeout: Duration,
        /// One line of JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Land what is missing in ClickHouse of a range of offsets or times, whatever the dedup window. It may run beside a
    /// live pipeline, and again: what is in the table is left alone
    Replay(RangeReplay),
    /// Look at the events that could not be read, and replay them
    Dead {
        #[command(subcommand)]
        command: dead::DeadCommand,
    },
    /// Ask a running process how it is, over its admin API; exit status 0 if it is ready and all topics run
    Status(watch::StatusArguments),
    /// Watch a running process: rates, lag, freshness, partitions, breakers and errors, each second
    Top(watch::DoorArguments),
    /// Ask a running process whether it is alive, for the health check of a container
    Health(watch::HealthArguments),
    /// The way of one event: its record, and its row, its original or its dead letter
    TraceEvent(trace_event::TraceEvent),
    /// Ask ClickHouse one of the queries that come with Millrace; it only reads
    Query(query::QueryArguments),
    /// Print a commented default configuration
    Config,
}

/// What is audited; default: every topic, from its oldest offset to the committed one.
#[derive(Args)]
struct AuditScope {
    /// Only this topic, into whichever tables its events go
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Only this Kafka partition; with several topics in the configuration --topic is needed too
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// First offset to look at
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    from: Option<i64>,
    /// Offset to stop before
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = clap::value_parser!(i64).range(1..))]
    to: Option<i64>,
}

#[derive(Args)]
struct ConfigFile {
    /// Configuration file; `millrace config` prints one to start from
    #[arg(long = "config", value_name = "FILE", env = "MILLRACE_CONFIG", default_value = "millrace.toml")]
    path: PathBuf,
}

/// Why a command ends with another status than 0.
enum Failure {
    /// Status 2.
    Config(ConfigErrors),
    /// Status 2.
    Usage(String),
    /// Status 1.
    Failed(anyhow::Error),
    /// Status 1; everything has been said.
    Told,
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Does what the command line asks for.
pub fn main() -> ExitCode {
    allocator::few_arenas();
    let failure = match execute(Cli::parse().command) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    let (status, text) = match failure {
        Failure::Config(errors) => (2, errors.to_string()),
        Failure::Usage(text) => (2, text),
        Failure::Failed(error) => (1, one_line(format!("{error:#}"))),
        Failure::Told => return ExitCode::from(1),
    };
    let mut stderr = io::stderr().lock();
    for line in text.lines() {
        // Nobody is left to be told if this fails.
        _ = writeln!(stderr, "error: {line}");
    }
    ExitCode::from(status)
}

fn execute(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { config, log_level } => {
            let mut config = Config::load(&config.path)?;
            if let Some((_, level)) = LogLevel::NAMES.iter().find(|(name, _)| Some(*name) == log_level.as_deref()) {
                config.log.level = *level;
            }
            logs::init(&config.log, &config.traces.service_name)?;
            let rendering = metrics::install()?;
            metrics::start_at_zero(&config.topics);
            let runtime = runtime()?;
            let outcome = runtime.block_on(run::run(config, rendering));
            // After a second signal nothing is waited for.
            runtime.shutdown_background();
            Ok(outcome?)
        }
        Command::Check { config, offline, json, timeout } => check(&config.path, offline, json, timeout),
        Command::Migrate(migration) => migration.execute(),
        Command::Audit { config, scope, samples, max_memory, timeout, json } => {
            let wanted = Wanted { partition: scope.partition, from: scope.from, to: scope.to };
            audit(&config.path, scope.topic.as_deref(), Options { wanted, samples, max_memory, timeout }, json)
        }
        Command::Replay(range) => range.run(),
        Command::Dead { command } => command.execute(),
        Command::Status(status) => status.execute(),
        Command::Top(door) => door.top(),
        Command::Health(health) => health.execute(),
        Command::TraceEvent(event) => event.run(),
        Command::Query(query) => query.execute(),
        Command::Config => Ok(print(config::DEFAULT)?),
    }
}

fn check(path: &Path, offline: bool, json: bool, timeout: Duration) -> Result<(), Failure> {
    let report = match Config::load(path) {
        Ok(config) if offline => check::offline(&config),
        Ok(config) => {
            let runtime = runtime()?;
            let report = runtime.block_on(check::check(&config, timeout));
            // A client that still waits for its server must not hold the answer up.
            runtime.shutdown_background();
            report
        }
        Err(errors) if json => check::Report::from(errors),
        Err(errors) => return Err(errors.into()),
    };
    print(&if json { format!("{}\n", report.to_json()) } else { report.to_string() })?;
    if report.problems() == 0 { Ok(()) } else { Err(Failure::Told) }
}

fn audit(path: &Path, topic: Option<&str>, options: Options, json: bool) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let topics = sections(&config, topic, path)?;
    let Wanted { partition, from, to } = options.wanted;
    let names = names(&topics);
    if partition.is_some() && names.len() > 1 {
        return Err(Failure::Usage(format!(
            "--partition: of which topic? Name one with --topic: {}",
            names.join(", ")
        )));
    }
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(Failure::Usage(format!(
            "--from {from} --to {to}: nothing lies between; expected --to greater than --from"
        )));
    }
    let runtime = runtime()?;
    let report = runtime.block_on(audit::audit(&config, &topics, options));
    // A server that still owes an answer must not hold this up.
    runtime.shutdown_background();
    let report = report?;
    print(&if json { format!("{}\n", report.to_json()) } else { report.to_string() })?;
    if report.violations() == 0 { Ok(()) } else { Err(Failure::Told) }
}

/// The password in the file of `--password-file`.
fn password_in(file: &Path) -> Result<Secret> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read the password of --user from {}", file.display()))?;
    Ok(Secret::new(text.trim_end_matches(['\n', '\r'])))
}

/// The sections of the topic of this name, or all.
fn sections<'c>(config: &'c Config, topic: Option<&str>, path: &Path) -> Result<Vec<&'c Topic>, Failure> {
    let all: Vec<&Topic> = config.topics.iter().collect();
    let Some(name) = topic else { return Ok(all) };
    let known = names(&all);
    if !known.contains(&name) {
        let hint = config::did_you_mean(name, known.iter().copied());
        let (path, known) = (path.display(), known.join(", "));
        return Err(Failure::Usage(format!("--topic: {name} is not in {path}, which has {known}{hint}")));
    }
    Ok(all.into_iter().filter(|section| section.spec.topic == name).collect())
}

/// The one section of this topic that writes this table, as far as either is named.
fn section<'c>(
    config: &'c Config,
    topic: Option<&str>,
    table: Option<&str>,
    path: &Path,
) -> Result<&'c Topic, Failure> {
    let of_topic = sections(config, topic, path)?;
    let told = |sections: &[&Topic]| {
        let each = sections.iter().map(|section| format!("{} into {}", section.spec.topic, section.table));
        each.collect::<Vec<String>>().join(", ")
    };
    let meant: Vec<&Topic> =
        of_topic.iter().copied().filter(|section| table.is_none_or(|table| table == section.table)).collect();
    match (&meant[..], table) {
        ([section], _) => Ok(section),
        ([], Some(table)) => {
            Err(Failure::Usage(format!("--table: no section writes {table}; there are {}", told(&of_topic))))
        }
        _ => Err(Failure::Usage(format!("of which topic? Name one with --topic and --table: {}", told(&meant)))),
    }
}

/// The topics of sections, each once.
fn names<'c>(sections: &[&'c Topic]) -> Vec<&'c str> {
    let mut names = Vec::new();
    for section in sections {
        if !names.contains(&section.spec.topic.as_str()) {
            names.push(section.spec.topic.as_str());
        }
    }
    names
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")
}

/// To standard output; a reader that has seen enough, such as `head`, is no error.
fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}

fn levels() -> PossibleValuesParser {
    PossibleValuesParser::new(LogLevel::NAMES.iter().map(|(name, _)| *name))
}

fn size(text: &str) -> Result<usize, String> {
    config::parse_size(text).ok_or_else(|| "expected a size such as 512MiB or 2GiB".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "expected a duration such as 500ms, 10s or 1m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
