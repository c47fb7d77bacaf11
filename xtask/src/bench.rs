//! `cargo xtask bench`: builds the programs, brings a stack of its own up, and has `millrace-bench scenario` measure.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};

use crate::{
    cargo,
    interrupt::Interrupt,
    stack::{DataDir, Options, Stack, clone_root},
};

/// Measure speed, cost, freshness and memory on real parts
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Name of a file in bench/scenarios, or `all`; --list shows them
    #[arg(long, default_value = "all")]
    scenario: String,
    /// The results as one line of JSON per scenario on standard output
    #[arg(long)]
    json: bool,
    /// Repeat so many times instead of as the scenario says
    #[arg(long)]
    runs: Option<u32>,
    /// Few events, for a look whether it works; nothing is written to bench/results
    #[arg(long)]
    quick: bool,
    /// List the scenarios and their goals
    #[arg(long)]
    list: bool,
    /// Only write the tables and pictures of bench/README.md anew, from bench/results/*.json
    #[arg(long)]
    report: bool,
    /// Leave the stack running
    #[arg(long)]
    keep: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// # Errors
/// If the programs cannot be built or the stack cannot be brought up. Runs that fail are an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    let programs = cargo::build(&["millrace", "millrace-bench", "millrace-plain-consumer", "millrace-window"])?;
    let mut command = Command::new(programs.path("millrace-bench"));
    command.current_dir(clone_root()?);
    if args.report {
        return cargo::exit_code(command.arg("report").status().context("start millrace-bench")?);
    }
    command.args(["scenario", &args.scenario]);
    if args.list {
        return cargo::exit_code(command.arg("--list").status().context("start millrace-bench")?);
    }
    let stack = Stack::up(&Options {
        dir: DataDir::path_in_clone(Some("bench"))?,
        fresh: true,
        install_missing: args.install_missing || cargo::in_ci(),
        measured: true,
        interrupt: interrupt.clone(),
    })?;
    command.arg("--stack").arg(stack.path());
    command.args(args.json.then_some("--json")).args(args.quick.then_some("--quick"));
    if let Some(runs) = args.runs {
        command.args(["--runs", &runs.to_string()]);
    }
    let status = interrupt.run(&mut command).context("run millrace-bench")?;
    if args.keep {
        eprintln!("left running: {}", stack.path().display());
        stack.keep();
    } else if status.success() {
        // Tens of millions of events are gigabytes.
        stack.discard()?;
    } else {
        eprintln!("its logs and data stay in {}", DataDir::path_in_clone(Some("bench"))?.display());
        stack.stop()?;
    }
    cargo::exit_code(status)
}
