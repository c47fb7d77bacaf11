//! `cargo xtask reproducible`: the same commit, built twice from nothing in different folders, has to give the same bytes.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::{cargo, stack::clone_root};

/// Build `millrace` of HEAD twice from nothing, in different folders, and compare the two byte by byte
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Keep the folders, to look for what differs
    #[arg(long)]
    keep: bool,
}

/// Of different lengths, since a path is often the whole difference.
const FOLDERS: [&str; 2] = ["one", "another-folder"];

/// # Errors
/// If one cannot be built. That they differ is an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = clone_root()?.join("target/reproducible");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    let (commit, seconds) = (git(&["rev-parse", "HEAD"])?, git(&["log", "-1", "--format=%ct"])?);
    let mut digests = Vec::new();
    for name in FOLDERS {
        let folder = root.join(name);
        check_out(&folder, &commit)?;
        let begin = Instant::now();
        let program = build(&folder, &commit, &seconds)?;
        let bytes = fs::read(&program).with_context(|| format!("read {}", program.display()))?;
        let digest = format!("{:x}", Sha256::digest(&bytes));
        println!("{digest}  {} bytes  {} s  {}", bytes.len(), begin.elapsed().as_secs(), program.display());
        digests.push(digest);
    }
    let same = digests.iter().all(|digest| *digest == digests[0]);
    println!("{commit}: {}", if same { "the same bytes" } else { "the two DIFFER (compare them with diffoscope)" });
    if !args.keep && same {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The files of a commit, without the git folder.
///
/// # Errors
/// If git or tar fails.
pub(crate) fn check_out(folder: &Path, commit: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let mut archive = Command::new("git");
    archive.args(["archive", "--format=tar", commit]).current_dir(clone_root()?).stdout(Stdio::piped());
    let mut archive = archive.spawn().context("start git archive")?;
    let tar = archive.stdout.take().context("read what git archive writes")?;
    let unpacked = Command::new("tar").args(["-x", "-C"]).arg(folder).stdin(tar).status().context("start tar")?;
    let archived = archive.wait().context("wait for git archive")?;
    ensure!(archived.success() && unpacked.success(), "git archive {commit} | tar -x: {archived}, {unpacked}");
    Ok(())
}

/// The program; wherever it was built, it says that its sources were in `/src` and its crates in `/cargo`.
fn build(folder: &Path, commit: &str, seconds: &str) -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home =
        home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo"))).context("find cargo's home")?;
    let places = [(folder, "/src"), (home.as_path(), "/cargo")];
    let flags = |flag: &str| places.map(|(from, to)| format!("{flag}={}={to}", from.display())).join(" ");
    let target = folder.join("target");
    let mut build = cargo::command()?;
    build.args(["build", "--release", "--locked", "-p", "millrace-consumers", "--bin", "millrace"]);
    build.current_dir(folder).env("CARGO_TARGET_DIR", &target).env("CARGO_INCREMENTAL", "0");
    build.env("RUSTFLAGS", flags("--remap-path-prefix")).env("CFLAGS", flags("-ffile-prefix-map"));
    build.env("MILLRACE_COMMIT", commit).env("SOURCE_DATE_EPOCH", seconds);
    // That of this clone would have cargo find its packages here.
    build.env_remove("CARGO_MANIFEST_DIR");
    let status = build.status().context("start cargo")?;
    if !status.success() {
        bail!("cargo build in {} failed: {status}", folder.display());
    }
    Ok(target.join("release/millrace"))
}

/// What git says of this clone, without the newline at its end.
///
/// # Errors
/// If it fails.
pub(crate) fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(arguments).current_dir(clone_root()?).output().context("start git")?;
    ensure!(output.status.success(), "git {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).context("read what git says")?.trim_end().to_owned())
}
