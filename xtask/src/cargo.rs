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

/// Builds packages in the one profile that everything here shares, showing cargo's own progress.
///
/// # Errors
/// If cargo fails.
pub(crate) fn build(packages: &[&str]) -> Result<Programs> {
    let packages: Vec<&str> = packages.iter().flat_map(|package| ["-p", package]).collect();
    build_with(&packages)
}

/// Builds `millrace-faulty`, which is `millrace` with faults on purpose; the other programs stay as they are.
///
/// # Errors
/// If cargo fails.
pub(crate) fn build_faulty() -> Result<Programs> {
    build_with(&["-p", "millrace-consumers", "--features", "fault-injection", "--bin", "millrace-faulty"])
}

fn build_with(arguments: &[&str]) -> Result<Programs> {
    let mut command = command()?;
    command.args(["build", "--release", "--locked"]).args(arguments);
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
