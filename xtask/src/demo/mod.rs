//! `cargo xtask demo`: the main job end to end on real parts, from a producer to SQL answers.
//!
//! Builds, brings a stack of its own up with fresh data, loads reference data, runs producer and pipeline, watches both,
//! verifies every row, asks a few questions, and stops all that it started, whatever happens on the way.

pub(crate) mod child;
pub(crate) mod config;
mod metrics;
mod observe;
mod questions;
pub(crate) mod topic;
mod watch;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;
use serde_json::{Value, json};

use self::{child::Child, topic::Topic, watch::Watch};
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
    /// Which topics, all read by one process
    #[arg(long, value_enum, value_delimiter = ',', default_value = "orders")]
    topics: Vec<Topic>,
    /// Events of each topic, each sent at least once
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
    /// Records per second that each producer offers; 0 is as many as it can
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Of everything that is generated
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the stack and the pipeline running
    #[arg(long)]
    keep: bool,
    /// Let Prometheus scrape all of it, and draw the dashboards' panels from what it has
    #[arg(long)]
    observe: bool,
    /// With --observe: stay until Ctrl-C, for a look at Prometheus
    #[arg(long, requires = "observe", conflicts_with = "keep")]
    stay: bool,
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
    ended: SystemTime,
    memory_mib_max: u64,
    topics: Vec<Shown>,
}

/// What became of a topic.
struct Shown {
    topic: Topic,
    verdict: Value,
    landed: metrics::Landed,
}

/// # Errors
/// If a part cannot be brought up, or a program of ours fails. Differences that the verifier finds are an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if !(0.0..=1.0).contains(&args.duplicates) || !(0.0..=1.0).contains(&args.poison) {
        bail!("--duplicates and --poison are shares; expected a number from 0 to 1, such as 0.05");
    }
    if (1..args.topics.len()).any(|at| args.topics[..at].contains(&args.topics[at])) {
        bail!("--topics names a topic twice; expected each once, such as orders,payments");
    }
    if args.events == 0 {
        bail!("--events 0 leaves nothing to show; expected at least 1");
    }
    if args.observe {
        observe::require(args.install_missing || cargo::in_ci())?;
    }
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    say("1/6 build", "millrace and millrace-bench, release profile");
    let programs = cargo::build(&["millrace", "millrace-bench"])?;
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
    let (figures, pipeline) = demo.run_job()?;
    if args.observe {
        observe::draw(&demo, figures.seconds, figures.ended)?;
    }

    say("6/6 ask", "a few questions, as the read-only analyst");
    questions::ask(stack.file(), &args.topics)?;
    println!();
    figures.tell();
    if args.stay {
        observe::tell(stack.file())?;
        println!("everything goes on until Ctrl-C");
        interrupt.wait();
    }
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
        println!("{}", figures.report());
    }
    Ok(if figures.topics.iter().any(Shown::differs) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
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
    fn run_job(&self) -> Result<(Figures, Child)> {
        let topics = &self.args.topics;
        let config = config::write(self.dir, self.stack.file(), topics)?;
        let stack_file = self.stack.path();
        let stack_file = stack_file.display().to_string();
        let seed = self.args.seed.to_string();
        say("3/6 prepare", "tables by `millrace migrate`, reference data by the generator, then `millrace check`");
        self.millrace("migrate", &config)
            .args(["--apply", "--user", &self.stack.file().admin.user, "--password-file"])
            .arg(&self.stack.file().admin.password_file)
            .run_quietly()?;
        for topic in topics {
            self.bench("reference")
                .args(["--stack", &stack_file, "--seed", &seed, "--kind", topic.name()])
                .run_quietly()?;
        }
        self.millrace("check", &config).run_quietly()?;
        self.interrupt.check()?;

        let produce =
            || -> Result<Vec<Child>> { topics.iter().map(|topic| self.generate(*topic, &stack_file, &seed)).collect() };
        let run = self.millrace("run", &config);
        let mut watch = Watch::new(topics, self.args.events, self.interrupt.clone());
        let (begin, pipeline);
        if self.args.observe {
            observe::tell(self.stack.file())?;
        }
        if self.args.backlog {
            say("4/6 run", "producers fill the topics; `millrace run` starts when they are done");
            watch.until_sent(&mut produce()?)?;
            begin = Instant::now();
            pipeline = run.start(&self.dir.join("millrace.log"))?;
            if self.args.observe {
                watch.until_ready(&pipeline)?;
                observe::scrape(self, &pipeline, &[])?;
            }
            watch.until_landed(&pipeline, &mut [])?;
        } else {
            say("4/6 run", "producers and `millrace run` together");
            pipeline = run.start(&self.dir.join("millrace.log"))?;
            watch.until_ready(&pipeline)?;
            begin = Instant::now();
            let mut producers = produce()?;
            if self.args.observe {
                observe::scrape(self, &pipeline, &producers)?;
            }
            watch.until_landed(&pipeline, &mut producers)?;
        }
        let (seconds, ended) = (begin.elapsed().as_secs_f64(), SystemTime::now());
        let memory_mib_max = pipeline.memory_mib_max();

        say("5/6 verify", "every row and every dead letter against what was sent");
        let mut shown = Vec::new();
        for (topic, landed) in topics.iter().zip(watch.landed()) {
            let mut verify = self.bench("verify");
            verify.args(["--json", "--stack", &stack_file, "--manifest"]).arg(self.manifest(*topic));
            let verdict = verify.output_json()?;
            for sample in verdict["samples"].as_array().into_iter().flatten() {
                println!("      {}", sample.as_str().unwrap_or_default());
            }
            shown.push(Shown { topic: *topic, verdict, landed });
        }
        Ok((Figures { seconds, ended, memory_mib_max, topics: shown }, pipeline))
    }

    fn generate(&self, topic: Topic, stack_file: &str, seed: &str) -> Result<Child> {
        let args = self.args;
        let mut generate = self.bench("generate");
        generate
            .args(["--stack", stack_file, "--kind", topic.name(), "--seed", seed])
            .args(["--events", &args.events.to_string(), "--duplicates", &args.duplicates.to_string()])
            // On loopback there is no network to spare: 126,000 events/s live without LZ4, 119,000/s with it (means of
            // two alternating runs each).
            .args(["--poison", &args.poison.to_string(), "--compression", "none"])
            .args(["--rate", &args.rate.to_string(), "--manifest"])
            .arg(self.manifest(topic));
        if args.observe {
            generate.args(["--metrics", "127.0.0.1:0"]);
        }
        generate.start(&generate_log(self.dir, topic))
    }

    fn manifest(&self, topic: Topic) -> PathBuf {
        self.dir.join(format!("manifest.{}.json", topic.name()))
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
    Topic::value_variants().iter().try_for_each(|topic| child::stop_recorded(&generate_log(dir, *topic)))
}

fn generate_log(dir: &Path, topic: Topic) -> PathBuf {
    dir.join(format!("generate-{}.log", topic.name()))
}

impl Shown {
    fn count(&self, key: &str) -> u64 {
        self.verdict[key].as_u64().unwrap_or_default()
    }

    fn landed(&self) -> u64 {
        self.count("rows") + self.count("duplicates_dropped") + self.count("dead_letters")
    }

    fn differs(&self) -> bool {
        ["lost", "doubled", "wrong", "rollups_wrong"].iter().any(|key| self.count(key) != 0)
            || self.count("dead_letters") != self.count("poison_sent")
    }

    fn tell(&self, seconds: f64) {
        println!(
            "{}: {} of {} events landed exactly once in {seconds:.1} s: {:.0} events/s; freshness p50 {} ms, p99 {} ms",
            self.topic.name(),
            self.count("rows"),
            self.count("unique_valid"),
            self.landed() as f64 / seconds,
            self.landed.freshness_ms(0.5),
            self.landed.freshness_ms(0.99),
        );
        println!(
            "{}: dropped {} duplicates; {} dead letters for {} unreadable records; {} lost, {} doubled, {} wrong",
            self.topic.name(),
            self.count("duplicates_dropped"),
            self.count("dead_letters"),
            self.count("poison_sent"),
            self.count("lost"),
            self.count("doubled"),
            self.count("wrong"),
        );
    }

    fn report(&self, seconds: f64) -> Value {
        json!({
            "produced": self.verdict["produced"],
            "unique_valid": self.verdict["unique_valid"],
            "rows": self.verdict["rows"],
            "duplicates_dropped": self.verdict["duplicates_dropped"],
            "dead_letters": self.verdict["dead_letters"],
            "lost": self.verdict["lost"],
            "doubled": self.verdict["doubled"],
            "wrong": self.verdict["wrong"],
            "events_per_second": (self.landed() as f64 / seconds).round(),
            "freshness_ms_p50": self.landed.freshness_ms(0.5),
            "freshness_ms_p99": self.landed.freshness_ms(0.99),
        })
    }
}

impl Figures {
    fn tell(&self) {
        self.topics.iter().for_each(|topic| topic.tell(self.seconds));
        if self.topics.len() > 1 {
            let landed: u64 = self.topics.iter().map(Shown::landed).sum();
            println!("together {:.0} events/s in one process", landed as f64 / self.seconds);
        }
        println!("memory of millrace {} MiB", self.memory_mib_max);
    }

    /// The figures of the only topic, or of each by its name; then those of the process.
    fn report(&self) -> Value {
        let mut report = match self.topics.as_slice() {
            [only] => only.report(self.seconds),
            topics => topics.iter().map(|shown| (shown.topic.name().to_owned(), shown.report(self.seconds))).collect(),
        };
        report["seconds"] = json!((self.seconds * 1000.0).round() / 1000.0);
        report["memory_mib_max"] = json!(self.memory_mib_max);
        report
    }
}

fn next_commands(kept: bool) {
    println!("\nnext:");
    if kept {
        println!("  cargo xtask stack status                     what runs, and where");
    } else {
        println!("  cargo xtask demo --keep                      the same, left running for your own questions");
    }
    println!("  cargo xtask demo --backlog                   how fast a full topic drains");
    println!("  cargo xtask demo --topics orders,payments    a second topic, by configuration only");
    println!("  cargo xtask demo --observe --stay            dashboards and alerts, on a real Prometheus");
    println!("  cargo run --release --bin millrace -- config   a commented configuration to start from");
}

fn relative(dir: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    dir.strip_prefix(&here).map_or_else(|_| dir.display().to_string(), |path: &Path| path.display().to_string())
}

/// Heading of a step.
fn say(step: &str, what: &str) {
    println!("[{step}] {what}");
}
