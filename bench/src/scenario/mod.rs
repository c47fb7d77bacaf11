//! `millrace-bench scenario`: measures what a file in `bench/scenarios` says, on a running stack. It drives built programs
//! and links none of the pipeline; everything that it starts it ends, and what it makes it drops.

mod child;
mod config;
mod drain;
mod http;
mod interrupt;
mod kafka;
mod landing;
mod live;
mod machine;
mod meter;
mod prober;
mod proc;
mod queries;
mod restart;
pub(crate) mod result;
mod scrape;
mod sink;
mod spec;
mod stats;
mod systems;
mod window;
mod world;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use self::interrupt::Interrupt;
use self::machine::Machine;
use self::result::{Report, Run, judge, medians};
use self::spec::{Kind, Scenario};
use self::world::World;

/// Which scenarios, and how.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name of a file in the folder of scenarios, without `.toml`; or `all`
    #[arg(default_value = "all")]
    scenario: String,
    /// File that `cargo xtask stack up` wrote
    #[arg(long, default_value = ".stack/stack.json")]
    stack: PathBuf,
    /// Folder of the scenarios
    #[arg(long, default_value = "bench/scenarios")]
    scenarios: PathBuf,
    /// Folder for the results; with --quick none are written unless it is given
    #[arg(long)]
    results: Option<PathBuf>,
    /// One line of JSON per scenario on standard output
    #[arg(long)]
    json: bool,
    /// Few events, to see whether it works
    #[arg(long)]
    quick: bool,
    /// Repeat so many times instead of as the scenario says
    #[arg(long)]
    runs: Option<u32>,
    /// List the scenarios and their goals
    #[arg(long)]
    list: bool,
}

/// Runs them one after the other. A run that failed or lost something is an exit status of 1.
///
/// # Errors
/// If a scenario cannot be read, or cannot be begun.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mut scenarios = Scenario::read_all(&args.scenarios)?;
    if args.list {
        list(&scenarios);
        return Ok(ExitCode::SUCCESS);
    }
    if args.scenario != "all" {
        let known: Vec<String> = scenarios.iter().map(|scenario| scenario.name.clone()).collect();
        scenarios.retain(|scenario| scenario.name == args.scenario);
        ensure!(!scenarios.is_empty(), "there is no scenario {}; there are: {}", args.scenario, known.join(", "));
    }
    let interrupt = Interrupt::install()?;
    let machine = Machine::here();
    let mut all_well = true;
    for scenario in scenarios {
        let mut scenario = if args.quick { scenario.quick() } else { scenario };
        scenario.runs = args.runs.unwrap_or(scenario.runs);
        let report = measure(args, &scenario, &machine, &interrupt)?;
        // What was cut short takes no place of what was not.
        if interrupt.requested() {
            break;
        }
        all_well &= report.runs.iter().all(Run::is_right);
        tell_goals(&report);
        write(args, &report)?;
    }
    Ok(if all_well && !interrupt.requested() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn measure(args: &Args, scenario: &Scenario, machine: &Machine, interrupt: &Interrupt) -> Result<Report> {
    eprintln!("{}: {}", scenario.name, scenario.description);
    let world = World::new(&scenario.name, &args.stack, interrupt.clone())?;
    let tell = &mut |run: &Run| eprintln!("  {}", run.line());
    let runs = match &scenario.kind {
        Kind::Drain(drain) => drain::run(&world, drain, scenario.runs, tell),
        Kind::Live(live) => live::run(&world, live, scenario.runs, tell),
        Kind::Window(window) => window::run(&world, window, scenario.runs, tell),
        Kind::Restart(restart) => restart::run(&world, restart, scenario.runs, tell),
        Kind::Queries(queries) => queries::run(&world, queries, scenario.runs, tell),
    };
    let mut runs = runs.with_context(|| format!("run the scenario {}", scenario.name))?;
    // Results are published: they name no folder of this machine.
    let here = std::env::current_dir().unwrap_or_default().display().to_string();
    for failure in runs.iter_mut().filter_map(|run| run.failure.as_mut()) {
        *failure = failure.replace(&here, ".");
    }
    let medians = medians(&runs);
    let goals = scenario.goals.iter().map(|goal| judge(goal, &medians)).collect();
    let quick = if args.quick { " --quick" } else { "" };
    Ok(Report {
        scenario: scenario.name.clone(),
        kind: scenario.kind.name().to_owned(),
        description: scenario.description.clone(),
        command: format!("cargo xtask bench --scenario {} --runs {}{quick}", scenario.name, scenario.runs),
        quick: args.quick,
        date: machine::today(),
        machine: machine.clone(),
        goals,
        medians,
        runs,
    })
}

fn write(args: &Args, report: &Report) -> Result<()> {
    if args.json {
        println!("{}", serde_json::to_string(report).context("write the results")?);
    }
    let standard = (!args.quick).then(|| PathBuf::from("bench/results"));
    let Some(folder) = args.results.clone().or(standard) else { return Ok(()) };
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let path = folder.join(format!("{}.json", report.scenario));
    let text = serde_json::to_string_pretty(report).context("write the results")? + "\n";
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    eprintln!("  written to {}", path.display());
    Ok(())
}

fn tell_goals(report: &Report) {
    for reached in &report.goals {
        let measured = reached.measured.map_or("not measured".to_owned(), |value| value.to_string());
        let verdict = if reached.reached { "reached" } else { "MISSED" };
        eprintln!("  {verdict}: {} (measured {measured})", reached.goal.text);
    }
}

fn list(scenarios: &[Scenario]) {
    for scenario in scenarios {
        println!("{:<12} {}", scenario.name, scenario.description);
        for goal in &scenario.goals {
            println!("{:<12}   goal: {}", "", goal.text);
        }
    }
}
