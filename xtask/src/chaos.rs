//! `cargo xtask chaos`: builds the programs, brings a stack of its own up, and lets the cases of the fault matrix loose.

use std::{
    env,
    path::PathBuf,
    process::{self, Command, ExitCode},
};

use anyhow::{Context as _, Result};

use crate::{
    cargo::{self, Programs},
    interrupt::Interrupt,
    stack::{DataDir, Options, Stack, tools},
};

/// Inject faults into real parts, and prove that every event still lands exactly once
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number or name of a case, `all` of them, or `random` for a mix of faults; --list shows them
    #[arg(long, default_value = "all")]
    case: String,
    /// Replay a run; by default a new seed, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// Repeat for so many minutes, each time with the next seed
    #[arg(long)]
    minutes: Option<f64>,
    /// One line of JSON per case on standard output
    #[arg(long)]
    json: bool,
    /// Leave a guard of the protocol out (fence, token, load or dedup): a case has to fail then
    #[arg(long, value_parser = ["fence", "token", "load", "dedup"])]
    without: Option<String>,
    /// Run no negative controls after all cases
    #[arg(long)]
    no_controls: bool,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Leave the stack running
    #[arg(long)]
    keep: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// # Errors
/// If the programs cannot be built or the stack cannot be brought up. Cases that fail are an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    if args.list {
        let programs = cargo::build(&["millrace-chaos"])?;
        let status = Command::new(programs.path("millrace-chaos")).arg("--list").status();
        return cargo::exit_code(status.context("start millrace-chaos")?);
    }
    let programs = build(args.install_missing)?;
    let stack = Stack::up(&Options {
        dir: DataDir::path_in_clone(Some("chaos"))?,
        fresh: true,
        install_missing: args.install_missing || cargo::in_ci(),
        measured: false,
        interrupt: interrupt.clone(),
    })?;
    let mut command = command(&programs, &stack)?;
    command.args(["--case", &args.case]);
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if let Some(minutes) = args.minutes {
        command.args(["--minutes", &minutes.to_string()]);
    }
    if let Some(guard) = &args.without {
        command.args(["--without", guard]);
    }
    command.args(args.json.then_some("--json")).args(args.no_controls.then_some("--no-controls"));
    let status = interrupt.run(&mut command).context("run millrace-chaos")?;
    if args.keep {
        eprintln!("left running: {}", stack.path().display());
        stack.keep();
    } else {
        stack.stop()?;
    }
    cargo::exit_code(status)
}

/// Builds everything that the cases start, after a look for the tools that they need.
///
/// # Errors
/// If a tool is missing, or cargo fails.
pub(crate) fn build(install_missing: bool) -> Result<Programs> {
    tools::require_for_chaos(install_missing || cargo::in_ci())?;
    cargo::build_faulty()?;
    cargo::build(&["millrace", "millrace-bench", "millrace-chaos"])
}

/// The program of the cases, against this stack.
///
/// # Errors
/// If this program cannot be found.
pub(crate) fn command(programs: &Programs, stack: &Stack) -> Result<Command> {
    let mut command = Command::new(programs.path("millrace-chaos"));
    command.env("MILLRACE_STACK", stack.path()).env("MILLRACE_BIN", programs.folder());
    // Cases that kill a part of the stack bring it back with this very program, which `cargo test` has built anew meanwhile.
    command.env("MILLRACE_XTASK", program_for_others()?);
    Ok(command)
}

/// This very program, for another process to start as long as this one runs.
///
/// # Errors
/// If it cannot be found.
pub(crate) fn program_for_others() -> Result<PathBuf> {
    let linux = PathBuf::from(format!("/proc/{}/exe", process::id()));
    if linux.exists() { Ok(linux) } else { env::current_exe().context("find this program") }
}
