//! `cargo xtask demo`: the main job end to end on real parts, from a producer to SQL answers.
//!
//! Builds, brings a stack of its own up with fresh data, loads reference data, runs producer and pipeline, watches both,
//! verifies every row, asks a few questions, and stops all that it started, whatever happens on the way.

mod child;
mod config;
mod metrics;
mod questions;
mod watch;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use self::{child::Child, watch::Watch};
use crate::{
    cargo,
    interrupt::Interrupt,
    stack::{DataDir, Options, Stack},
};

/// How long `millrace run` may take to drain after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);

/// Run the main job end to end: producer, Kafka, `millrace`, ClickHouse, SQL
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Order events, each sent at least once
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Fill the topic first and start the pipeline then, instead of both together
    #[arg(long)]
    backlog: bool,
    /// Events sent again, as a share
    #[arg(long, default_value_t = 0.05)]
    duplicates: f64,
    /// Unreadable records, as a share
    #[arg(long, default_value_t = 0.0005)]
    poison: f64,
    /// Records per second that the producer offers; 0 is as many as it can
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Of everything that is generated
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the stack and the pipeline running
    #[arg(long)]
    keep: bool,
    /// Print the figures as one JSON object, as the last line
    #[arg(long)]
    json: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// What is known of a run that ended.
struct Figures {
    seconds: f64,
    landed: metrics::Landed,
    memory_mib_max: u64,
}

/// # Errors
/// If a part cannot be brought up, or a program of ours fails. Differences that the verifier finds are an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !(0.0..=1.0).contains(&args.duplicates) || !(0.0..=1.0).contains(&args.poison) {
        bail!("--duplicates and --poison are shares; expected a number from 0 to 1, such as 0.05");
    }
    if args.events == 0 {
        bail!("--events 0 leaves nothing to show; expected at least 1");
    }
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    say("1/6 build", "millrace and millrace-bench, release profile");
    let programs = cargo::build(&["millrace-consumers", "millrace-bench"])?;
    interrupt.check()?;

    say("2/6 stack", "Kafka, schema registry, ClickHouse and Prometheus, with fresh data of this demo's own");
    let dir = DataDir::path_in_clone(Some("demo"))?;
    stop_earlier(&dir)?;
    let stack = Stack::up(&Options {
        dir: dir.clone(),
        fresh: true,
        install_missing: args.install_missing || cargo::in_ci(),
        measured: false,
        interrupt: interrupt.clone(),
    })?;
    let demo = Demo { args, stack: &stack, dir: &dir, programs: &programs, interrupt: &interrupt };
    let (verdict, figures, pipeline) = demo.run_job()?;

    say("6/6 ask", "a few questions, as the read-only analyst");
    questions::ask(stack.file())?;
    let differs = ["lost", "doubled", "wrong"].iter().any(|key| count(&verdict, key) != 0)
        || count(&verdict, "dead_letters") != count(&verdict, "poison_sent");
    let memory = figures.memory_mib_max;
    println!();
    println!(
        "{} of {} events landed exactly once in {:.1} s: {:.0} events/s; freshness p50 {} ms, p99 {} ms; memory of millrace {memory} MiB",
        count(&verdict, "rows"),
        count(&verdict, "unique_valid"),
        figures.seconds,
        rate(&verdict, &figures),
        figures.landed.freshness_ms(0.5),
        figures.landed.freshness_ms(0.99),
    );
    println!(
        "dropped {} duplicates; {} dead letters for {} unreadable records; {} lost, {} doubled, {} wrong",
        count(&verdict, "duplicates_dropped"),
        count(&verdict, "dead_letters"),
        count(&verdict, "poison_sent"),
        count(&verdict, "lost"),
        count(&verdict, "doubled"),
        count(&verdict, "wrong"),
    );
    if args.keep {
        println!("left running: the stack ({}) and millrace", stack.path().display());
        println!("  metrics of millrace  {}/metrics", demo.pipeline_address()?);
        println!("  stop them            kill {}; cargo xtask stack --dir {} down", pipeline.leave(), relative(&dir));
        stack.keep();
    } else {
        pipeline.stop(DRAIN)?;
        stack.stop()?;
    }
    next_commands(args.keep);
    if args.json {
        println!("{}", report(&verdict, &figures));
    }
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

struct Demo<'a> {
    args: &'a Args,
    stack: &'a Stack,
    dir: &'a Path,
    programs: &'a cargo::Programs,
    interrupt: &'a Interrupt,
}

impl Demo<'_> {
    /// Loads, runs, watches and verifies; the pipeline is still running when it returns.
    fn run_job(&self) -> Result<(Value, Figures, Child)> {
        let config = config::write(self.dir, self.stack.file())?;
        let stack_file = self.stack.path();
        let stack_file = stack_file.display().to_string();
        let seed = self.args.seed.to_string();
        say("3/6 prepare", "tables by `millrace migrate`, reference data by the generator, then `millrace check`");
        self.millrace("migrate", &config)
            .args(["--apply", "--user", &self.stack.file().admin.user, "--password-file"])
            .arg(&self.stack.file().admin.password_file)
            .run_quietly()?;
        self.bench("reference").args(["--stack", &stack_file, "--seed", &seed]).run_quietly()?;
        self.millrace("check", &config).run_quietly()?;
        self.interrupt.check()?;

        let manifest = self.dir.join("manifest.json");
        let mut generate = self.bench("generate");
        generate
            .args(["--stack", &stack_file, "--seed", &seed, "--events", &self.args.events.to_string()])
            .args(["--duplicates", &self.args.duplicates.to_string(), "--poison", &self.args.poison.to_string()])
            // On loopback there is no network to spare: 126,000 events/s live without LZ4, 119,000/s with it (means of
            // two alternating runs each).
            .args(["--rate", &self.args.rate.to_string(), "--compression", "none", "--manifest"])
            .arg(&manifest);
        let run = self.millrace("run", &config);
        let mut watch = Watch::new(self.args.events, self.interrupt.clone());
        let (begin, pipeline);
        if self.args.backlog {
            say("4/6 run", "the producer fills the topic; `millrace run` starts when it is done");
            let mut producer = generate.start(&self.dir.join("generate.log"))?;
            watch.until_sent(&mut producer)?;
            begin = Instant::now();
            pipeline = run.start(&self.dir.join("millrace.log"))?;
            watch.until_landed(&pipeline, None)?;
        } else {
            say("4/6 run", "producer and `millrace run` together");
            pipeline = run.start(&self.dir.join("millrace.log"))?;
            watch.until_ready(&pipeline)?;
            begin = Instant::now();
            let mut producer = generate.start(&self.dir.join("generate.log"))?;
            watch.until_landed(&pipeline, Some(&mut producer))?;
        }
        let seconds = begin.elapsed().as_secs_f64();
        let figures = Figures { seconds, landed: watch.landed(), memory_mib_max: pipeline.memory_mib_max() };

        say("5/6 verify", "every row and every dead letter against what was sent");
        let verdict =
            self.bench("verify").args(["--json", "--stack", &stack_file, "--manifest"]).arg(&manifest).output_json()?;
        for sample in verdict["samples"].as_array().into_iter().flatten() {
            println!("      {}", sample.as_str().unwrap_or_default());
        }
        Ok((verdict, figures, pipeline))
    }

    fn millrace(&self, command: &str, config: &Path) -> child::Command {
        let mut program = child::Command::new(&self.programs.path("millrace"), self.interrupt.clone());
        program.arg(command).arg("--config").arg(config);
        program
    }

    fn bench(&self, command: &str) -> child::Command {
        let mut program = child::Command::new(&self.programs.path("millrace-bench"), self.interrupt.clone());
        program.arg(command);
        program
    }

    fn pipeline_address(&self) -> Result<String> {
        let log = std::fs::read_to_string(self.dir.join("millrace.log")).context("read the log of millrace")?;
        Ok(metrics::url(&log).unwrap_or_default())
    }
}

/// A demo that was killed leaves its pipeline behind: it is stopped by the pid that it wrote down, if that is still it.
fn stop_earlier(dir: &Path) -> Result<()> {
    child::stop_recorded(&dir.join("millrace.log"))?;
    child::stop_recorded(&dir.join("generate.log"))
}

fn rate(verdict: &Value, figures: &Figures) -> f64 {
    (count(verdict, "rows") + count(verdict, "duplicates_dropped") + count(verdict, "dead_letters")) as f64
        / figures.seconds
}

fn report(verdict: &Value, figures: &Figures) -> Value {
    json!({
        "produced": verdict["produced"],
        "unique_valid": verdict["unique_valid"],
        "rows": verdict["rows"],
        "duplicates_dropped": verdict["duplicates_dropped"],
        "dead_letters": verdict["dead_letters"],
        "lost": verdict["lost"],
        "doubled": verdict["doubled"],
        "wrong": verdict["wrong"],
        "events_per_second": rate(verdict, figures).round(),
        "freshness_ms_p50": figures.landed.freshness_ms(0.5),
        "freshness_ms_p99": figures.landed.freshness_ms(0.99),
        "seconds": (figures.seconds * 1000.0).round() / 1000.0,
        "memory_mib_max": figures.memory_mib_max,
    })
}

fn count(verdict: &Value, key: &str) -> u64 {
    verdict[key].as_u64().unwrap_or_default()
}

fn next_commands(kept: bool) {
    println!("\nnext:");
    if kept {
        println!("  cargo xtask stack status                     what runs, and where");
    } else {
        println!("  cargo xtask demo --keep                      the same, left running for your own questions");
    }
    println!("  cargo xtask demo --backlog                   how fast a full topic drains");
    println!(
        "  cargo run --release -p millrace-consumers -- config > millrace.toml   a commented configuration to start from"
    );
}

fn relative(dir: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    dir.strip_prefix(&here).map_or_else(|_| dir.display().to_string(), |path: &Path| path.display().to_string())
}

/// Heading of a step.
fn say(step: &str, what: &str) {
    println!("[{step}] {what}");
}
