//! `cargo xtask fuzz-admin`: requests made out of the description of the admin API, right ones and wrong ones, against a real
//! `millrace run`, by schemathesis. `xtask/assets/fuzz_admin.py` drives it; what it needs is installed into
//! `target/fuzz-admin/`.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cargo::{self, exit_code},
    interrupt::Interrupt,
    stack::clone_root,
};

/// Give the admin API requests of all kinds, made out of its description (schemathesis)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Requests that are made up for each operation; those that are tried each time come besides
    #[arg(long, default_value_t = 50)]
    examples: u32,
    /// The same seed gives the same requests
    #[arg(long, default_value_t = 1)]
    seed: u32,
}

/// Pinned: a later one may find more, and that is for a commit of its own.
const PACKAGES: [&str; 3] = ["schemathesis==4.32.5", "PyJWT==2.15.1", "cryptography==50.0.2"];

/// # Errors
/// If something cannot be built, installed or started. What is found is an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    let programs = cargo::build(&["millrace"])?;
    interrupt.check()?;
    let root = clone_root()?;
    let folder = root.join("target/fuzz-admin");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let python = install(&folder, &PACKAGES)?;
    interrupt.check()?;
    let status = Command::new(python)
        .arg(root.join("xtask/assets/fuzz_admin.py"))
        .args([&programs.path("millrace"), &folder])
        .args([args.examples.to_string(), args.seed.to_string()])
        .status()
        .context("start fuzz_admin.py")?;
    exit_code(status)
}

/// A Python of the folder's own with these packages; one that is there already is not asked for again.
///
/// # Errors
/// If there is no Python with venv, or pip cannot install them.
pub(crate) fn install(folder: &Path, packages: &[&str]) -> Result<std::path::PathBuf> {
    let environment = folder.join("venv");
    let python = environment.join("bin/python");
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
        if !made.is_ok_and(|status| status.success()) {
            // Half of one would be taken for a whole one the next time.
            _ = fs::remove_dir_all(&environment);
            bail!("python3 with its module venv is missing; on Debian: apt-get install python3-venv");
        }
    }
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(packages)
        .status()
        .context("start pip")?;
    if !installed.success() {
        bail!("pip could not install {}", packages.join(", "));
    }
    Ok(python)
}
