//! Runs cargo for the commands that need our own programs built.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::{Context as _, Result, bail};

use crate::stack::clone_root;

/// Programs that were built, by name.
#[derive(Debug)]
pub(crate) struct Programs(PathBuf);

impl Programs {
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// The cargo that runs us, in the clone that it runs us in.
pub(crate) fn command() -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(clone_root()?);
    Ok(command)
}

/// Builds programs in the one profile that everything here shares, showing cargo's own progress.
///
/// # Errors
/// If cargo fails.
pub(crate) fn build(programs: &[&str]) -> Result<Programs> {
    let programs: Vec<&str> = programs.iter().flat_map(|program| ["--bin", program]).collect();
    built(build_command(&programs)?)
}

/// Builds `millrace-faulty`, which is `millrace` with faults on purpose; the other programs stay as they are.
///
/// # Errors
/// If cargo fails.
pub(crate) fn build_faulty() -> Result<Programs> {
    built(build_command(&["--features", "millrace-consumers/fault-injection", "--bin", "millrace-faulty"])?)
}

/// Builds the tests that run on real parts, and with them the programs of their crates.
///
/// # Errors
/// If cargo fails.
pub(crate) fn build_tests() -> Result<Programs> {
    let mut command = command()?;
    command.args(["test", "--release", "--locked", "--workspace", "--test", "it", "--test", "e2e", "--no-run"]);
    built(command)
}

/// Builds the programs of libFuzzer; our own crates in them show which of their parts an input reaches.
///
/// # Errors
/// If cargo fails.
pub(crate) fn build_fuzzers(names: &[String]) -> Result<Programs> {
    let programs: Vec<&str> = names.iter().flat_map(|name| ["--bin", name]).collect();
    let mut command = build_command(&[&["--features", "millrace-fuzz/libfuzzer"], &programs[..]].concat())?;
    command.env("RUSTC_WORKSPACE_WRAPPER", clone_root()?.join("xtask/assets/instrumented-rustc.sh"));
    built(command)
}

/// Cargo chooses the features of third-party crates by what it is asked for, and compiles a crate once for every choice. Asked
/// for the whole workspace and one example (`schemas/examples/features.rs`), it chooses as it does for the tests, so that
/// nothing of others is compiled twice in a clone. Only what the named programs need is built.
fn build_command(arguments: &[&str]) -> Result<Command> {
    let mut command = command()?;
    command.args(["build", "--release", "--locked", "--workspace", "--example", "features"]).args(arguments);
    Ok(command)
}

fn built(mut command: Command) -> Result<Programs> {
    let status = command.status().context("start cargo")?;
    if !status.success() {
        bail!("cargo build failed: {status}");
    }
    // xtask itself was built into that folder.
    let program = env::current_exe().context("find this program")?;
    let folder = program.parent().context("find the folder of this program")?;
    Ok(Programs(folder.to_path_buf()))
}

/// The exit status of a program of ours, as our own.
pub(crate) fn exit_code(status: ExitStatus) -> Result<ExitCode> {
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Whether nobody is there to answer a question.
pub(crate) fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true")
}
