//! `millrace-bench`: prepares, loads and verifies a running stack.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a command line talks to its user")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use millrace_bench::generate::{
    Load, Progress, Versions, generate, generate_payments, spacing_over_months, start_ending_now,
};
use millrace_bench::manifest::{Kind, Manifest};
use millrace_bench::orders::Timeline;
use millrace_bench::replay::{Replay, replay};
use millrace_bench::setup::{payment_reference, reference};
use millrace_bench::stack::{PaymentTopics, Stack, Topics};
use millrace_bench::stages::{CHUNK, Stage, Stages};
use millrace_bench::verify::{Verdict, verify};
use millrace_producers::Compression;
use signal_hook::consts::SIGTERM;

/// Also in place of libc's malloc: what librdkafka allocates in one thread it frees in another, which costs glibc a
/// quarter of the load's CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Prepares, loads and verifies a running stack.
#[derive(Parser)]
#[command(name = "millrace-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the topics, register the schemas, publish what events are enriched with
    Reference {
        #[command(flatten)]
        target: Target,
        /// Of which events
        #[arg(long, value_enum, default_value_t = Kind::Orders)]
        kind: Kind,
        /// Seed of customers, products and payment methods; the same as for generate
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Partitions of the topic of events
        #[arg(long, default_value_t = 4)]
        partitions: i32,
    },
    /// Send events, duplicates and unreadable records; progress as JSON lines on standard error. SIGTERM ends it early
    Generate {
        #[command(flatten)]
        target: Target,
        /// Which events
        #[arg(long, value_enum, default_value_t = Kind::Orders)]
        kind: Kind,
        #[command(flatten)]
        load: LoadOptions,
        /// File to write down what was sent
        #[arg(long)]
        manifest: PathBuf,
        /// Serve the publisher's metrics there while it sends, at /metrics; port 0 takes a free one, which is said
        #[arg(long, value_name = "HOST:PORT")]
        metrics: Option<SocketAddr>,
    },
    /// Send the records of a topic to the topic of events at a pace; progress as JSON lines on standard error
    Replay {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: ReplayOptions,
    },
    /// Compare every row and every dead letter with what was sent; exit status 1 if anything differs
    Verify {
        /// File that `cargo xtask stack up` wrote
        #[arg(long, default_value = ".stack/stack.json")]
        stack: PathBuf,
        /// File that generate wrote
        #[arg(long)]
        manifest: PathBuf,
        /// Table of the events; by default that of their kind
        #[arg(long)]
        table: Option<String>,
        /// Print the verdict as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Go through a stage of the pipeline so often, for a profiler; prints how many events took part
    Stage {
        /// Which
        #[arg(value_enum)]
        stage: Stage,
        /// How often
        #[arg(long, default_value_t = 4)]
        rounds: usize,
    },
    /// Measure what a file in bench/scenarios says; `cargo xtask bench` brings the stack for it
    Scenario(millrace_bench::scenario::Args),
    /// Write the tables and pictures of bench/README.md anew, from bench/results/*.json
    Report(millrace_bench::report::Args),
    /// What a number of events a second needs, and how throughput grows with consumers: a model of bench/results/*.json
    Scaling(millrace_bench::scaling::Args),
    /// Draw the panels of a Grafana dashboard from a Prometheus, as a picture
    Panels(millrace_bench::panels::Args),
    /// Measure what making and encoding an event costs, without Kafka
    Cost {
        /// Events
        #[arg(long, default_value_t = 1_000_000)]
        events: u64,
    },
}

#[derive(Args)]
struct Target {
    /// File that `cargo xtask stack up` wrote
    #[arg(long, default_value = ".stack/stack.json")]
    stack: PathBuf,
    /// Put before the names of all topics
    #[arg(long, default_value = "")]
    topic_prefix: String,
}

#[derive(Args)]
struct LoadOptions {
    /// Seed of everything
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Events, each sent at least once
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Leave out the events before this one, which an earlier run with the same options has sent
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Duplicates as a share of the events
    #[arg(long, default_value_t = 0.05)]
    duplicates: f64,
    /// Unreadable records as a share of the events
    #[arg(long, default_value_t = 0.0005)]
    poison: f64,
    /// Records per second; 0 is as fast as possible
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Time of the first event, milliseconds since 1970 UTC; by default the last event happens about now
    #[arg(long)]
    start_ms: Option<i64>,
    /// Spread the events over so many months; by default they are a millisecond apart
    #[arg(long)]
    span_months: Option<f64>,
    /// Compression of batches
    #[arg(long, value_enum, default_value_t = CompressionOption::Lz4)]
    compression: CompressionOption,
    /// Schema versions: the first only, the second only, or every other event in the second
    #[arg(long, value_enum, default_value_t = Schemas::First)]
    schemas: Schemas,
    /// Give every event a `traceparent` header, as EventPublisher does by default
    #[arg(long)]
    traceparent: bool,
    /// Share of the events that begin a trace, 0 to 1; all then have a `traceparent`
    #[arg(long, default_value_t = 0.0)]
    traced: f64,
}

#[derive(Args)]
struct ReplayOptions {
    /// Topic to read, written before by generate; the target's topic of events must have as many partitions
    #[arg(long)]
    from: String,
    /// Records per second; 0 is as fast as possible
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Stop after so many seconds; by default when everything is sent
    #[arg(long)]
    seconds: Option<u64>,
    /// File that generate wrote when it filled the topic: only its records are sent
    #[arg(long)]
    from_manifest: Option<PathBuf>,
    /// File to write down what was sent; verify can use it
    #[arg(long, requires = "from_manifest", conflicts_with = "seconds")]
    manifest: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompressionOption {
    None,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, ValueEnum)]
enum Schemas {
    First,
    Second,
    Alternating,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(Cli::parse().command)));
    result.unwrap_or_else(|error| {
        eprintln!("millrace-bench: {error:#}");
        ExitCode::from(2)
    })
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Reference { target, kind, seed, partitions } => {
            let (stack, topics) = target.read()?;
            let step = |step: &str| eprintln!("{step}");
            let prepared = match kind {
                Kind::Orders => serde_json::to_value(reference(&stack, &topics, seed, partitions, step).await?)?,
                Kind::Payments => {
                    let topics = PaymentTopics::new(&target.topic_prefix);
                    serde_json::to_value(payment_reference(&stack, &topics, seed, partitions, step).await?)?
                }
            };
            eprintln!("{prepared}");
        }
        Command::Generate { target, kind, load, manifest, metrics } => {
            let (stack, topics) = target.read()?;
            if let Some(address) = metrics {
                let address = millrace_bench::exposition::serve(address)?;
                eprintln!("{}", serde_json::json!({ "metrics": format!("http://{address}/metrics") }));
            }
            let progress = Arc::new(Progress::default());
            let shown = tokio::spawn(show(Arc::clone(&progress)));
            signal_hook::flag::register(SIGTERM, Arc::clone(&progress.ends))?;
            let load = load.load()?;
            let sent = match kind {
                Kind::Orders => generate(&stack, &topics, &load, progress).await,
                Kind::Payments => {
                    generate_payments(&stack, &PaymentTopics::new(&target.topic_prefix), &load, progress).await
                }
            };
            shown.abort();
            let sent = sent?;
            sent.write(&manifest)?;
            let total = sent.delivered as f64;
            eprintln!(
                "{}",
                serde_json::json!({
                    "sent": sent.delivered, "seconds": sent.seconds, "events": sent.events,
                    "duplicates": sent.duplicates, "poison": sent.poison.len(),
                    "records_per_second": (total / sent.seconds) as u64,
                    "cpu_us_per_record": sent.cpu_seconds.map(|cpu| cpu * 1e6 / total),
                })
            );
        }
        Command::Replay { target, options } => {
            let (stack, topics) = target.read()?;
            let progress = Arc::new(Progress::default());
            let shown = tokio::spawn(show(Arc::clone(&progress)));
            let done = options.run(&stack, topics, &progress).await;
            shown.abort();
            eprintln!("{}", done?);
        }
        Command::Verify { stack, manifest, table, json } => {
            let manifest = Manifest::read(&manifest)?;
            let table = table.unwrap_or_else(|| manifest.kind.table().to_owned());
            let verdict = verify(&Stack::read(&stack)?, &manifest, &table).await?;
            if json {
                println!("{}", serde_json::to_string(&verdict)?);
            } else {
                tell(&verdict);
            }
            return Ok(if verdict.is_right() { ExitCode::SUCCESS } else { ExitCode::from(1) });
        }
        Command::Stage { stage, rounds } => {
            let mut stages = Stages::new(4 * CHUNK);
            let prepared = stages.prepare();
            let events: usize = (0..rounds).map(|_| stages.counted_round(stage, &prepared)).sum();
            println!("{events}");
        }
        // It waits for other programs most of the time, and has no use for a runtime.
        Command::Scenario(args) => return tokio::task::block_in_place(|| millrace_bench::scenario::run(&args)),
        Command::Report(args) => millrace_bench::report::run(&args)?,
        Command::Scaling(args) => millrace_bench::scaling::run(&args)?,
        Command::Panels(args) => millrace_bench::panels::run(&args)?,
        Command::Cost { events } => println!("{}", serde_json::to_string(&millrace_bench::cost::measure(events)?)?),
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(progress: Arc<Progress>) {
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    loop {
        tick.tick().await;
        let sent = progress.sent.load(Ordering::Relaxed);
        let seconds = (began.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        eprintln!("{}", serde_json::json!({ "sent": sent, "seconds": seconds }));
    }
}

fn tell(verdict: &Verdict) {
    println!(
        "{} records sent: {} events, {} duplicates, {} unreadable",
        verdict.produced,
        verdict.unique_valid,
        verdict.produced - verdict.unique_valid - verdict.poison_sent,
        verdict.poison_sent
    );
    println!("{} rows: {} lost, {} doubled, {} wrong", verdict.rows, verdict.lost, verdict.doubled, verdict.wrong);
    println!(
        "{} dead letters: {} missing, {} unexpected, {} wrong",
        verdict.dead_letters, verdict.dead_letters_missing, verdict.dead_letters_unexpected, verdict.dead_letters_wrong
    );
    println!("{} groups of rollups and answers: {} wrong", verdict.rollup_groups, verdict.rollups_wrong);
    for sample in &verdict.samples {
        println!("  {sample}");
    }
    println!(
        "{}",
        if verdict.is_right() { "everything arrived as it must" } else { "NOT everything arrived as it must" }
    );
}

impl ReplayOptions {
    async fn run(&self, stack: &Stack, to: Topics, progress: &Progress) -> Result<serde_json::Value> {
        let limit = self.seconds.map(Duration::from_secs);
        let what = Replay { from: self.from.clone(), to, rate: self.rate, limit };
        let source = self.from_manifest.as_deref().map(Manifest::read).transpose()?;
        let range = source.as_ref().map(|source| (&source.begin_offsets, &source.end_offsets));
        let sent = replay(stack, &what, range, &progress.sent).await?;
        if let (Some(source), Some(file)) = (&source, &self.manifest) {
            sent.manifest(source, &what.to)?.write(file)?;
        }
        let records = sent.records as f64;
        Ok(serde_json::json!({
            "sent": sent.records, "seconds": sent.seconds, "records_per_second": (records / sent.seconds) as u64,
            "cpu_us_per_record": sent.cpu_seconds.map(|cpu| cpu * 1e6 / records),
        }))
    }
}

impl Target {
    fn read(&self) -> Result<(Stack, Topics)> {
        Ok((Stack::read(&self.stack)?, Topics::new(&self.topic_prefix)))
    }
}

impl LoadOptions {
    fn load(&self) -> Result<Load> {
        let spacing_us = match self.span_months {
            Some(months) => spacing_over_months(months, self.events)?,
            None => 1000,
        };
        let start_ms = match self.start_ms {
            Some(start_ms) => start_ms,
            None => start_ending_now(self.events, spacing_us)?,
        };
        Ok(Load {
            seed: self.seed,
            first: self.first,
            events: self.events,
            timeline: Timeline { start_ms, spacing_us },
            duplicates: self.duplicates,
            poison: self.poison,
            rate: self.rate,
            schemas: match self.schemas {
                Schemas::First => Versions::First,
                Schemas::Second => Versions::Second,
                Schemas::Alternating => Versions::Alternating,
            },
            traceparent: self.traceparent,
            traced: self.traced,
            compression: match self.compression {
                CompressionOption::None => Compression::None,
                CompressionOption::Lz4 => Compression::Lz4,
                CompressionOption::Zstd => Compression::Zstd,
            },
        })
    }
}
