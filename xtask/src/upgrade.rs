//! `cargo xtask upgrade`: an earlier version of `millrace` and this one in one group, upgraded and rolled back under load.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cargo, chaos,
    interrupt::Interrupt,
    reproducible::{check_out, git},
    stack::{DataDir, Options, Stack, clone_root},
};

/// Upgrade an earlier version to this one process by process under load, change schema and table, and go back
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Commit, branch or tag of the earlier version; by default the one that xtask/assets/previous_release names
    #[arg(long, value_name = "REV")]
    from: Option<String>,
    /// Replay a run; by default a new seed, which is printed
    #[arg(long)]
    seed: Option<u64>,
    /// One line of JSON on standard output
    #[arg(long)]
    json: bool,
    /// Leave the stack running
    #[arg(long)]
    keep: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// The commit that users run when this version comes out. Whoever releases a version writes its commit here afterwards.
const PREVIOUS_RELEASE: &str = include_str!("../assets/previous_release");

/// # Errors
/// If a version cannot be built or the stack cannot be brought up. That the upgrade fails is an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    let commit = commit(args.from.as_deref().unwrap_or(PREVIOUS_RELEASE.trim()))?;
    ensure!(
        commit != git(&["rev-parse", "HEAD"])?,
        "{commit} is this very version; name an earlier one with --from REV (a tag, a branch, a commit)"
    );
    let previous = build_previous(&commit, &interrupt)?;
    interrupt.check()?;
    let programs = cargo::build(&["millrace", "millrace-bench", "millrace-chaos"])?;
    let stack = Stack::up(&Options {
        dir: DataDir::path_in_clone(Some("upgrade"))?,
        fresh: true,
        install_missing: args.install_missing || cargo::in_ci(),
        measured: false,
        interrupt: interrupt.clone(),
    })?;
    let mut command = chaos::command(&programs, &stack)?;
    command.args(["--case", "upgrade"]).args(args.json.then_some("--json")).env("MILLRACE_PREVIOUS", previous);
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    let status = interrupt.run(&mut command).context("run millrace-chaos")?;
    if args.keep {
        eprintln!("left running: {}", stack.path().display());
        stack.keep();
    } else {
        stack.stop()?;
    }
    cargo::exit_code(status)
}

/// The full name of a commit of this clone.
fn commit(revision: &str) -> Result<String> {
    git(&["rev-parse", "--verify", "--quiet", &format!("{revision}^{{commit}}")]).with_context(|| {
        format!("{revision} is no commit of this clone; a shallow clone gets it by `git fetch --unshallow`")
    })
}

/// Builds `millrace` of a commit, or takes the one that was built before. It shares this clone's folder of built crates for those of
/// others; its program is set aside.
fn build_previous(commit: &str, interrupt: &Interrupt) -> Result<PathBuf> {
    let target = clone_root()?.join("target");
    let folder = target.join("upgrade").join(commit);
    let program = folder.join("millrace");
    if program.is_file() {
        eprintln!("the earlier version is there: {}", program.display());
        return Ok(program);
    }
    let sources = folder.join("sources");
    if sources.exists() {
        fs::remove_dir_all(&sources).with_context(|| format!("remove {}", sources.display()))?;
    }
    eprintln!("building {commit} in {}", folder.display());
    let begin = Instant::now();
    check_out(&sources, commit)?;
    forget_own_crates()?;
    let mut build = cargo::command()?;
    build.args(["build", "--release", "--locked", "--workspace", "--bin", "millrace"]);
    if sources.join("schemas/examples/features.rs").exists() {
        // The crates of others are then those that this version is built with; see `build_command` in xtask/src/cargo.rs.
        build.args(["--example", "features"]);
    }
    build.current_dir(&sources).env("CARGO_TARGET_DIR", &target);
    // No SOURCE_DATE_EPOCH: build scripts of others' C code would run again for it, in both builds.
    build.env("MILLRACE_COMMIT", commit);
    // That of this clone would have cargo find its packages here.
    build.env_remove("CARGO_MANIFEST_DIR");
    let status = interrupt.run(&mut build).context("start cargo")?;
    if !status.success() {
        bail!("cargo build of {commit} failed: {status}");
    }
    let draft = folder.join("millrace.draft");
    fs::copy(target.join("release/millrace"), &draft).context("set the earlier program aside")?;
    fs::rename(&draft, &program).context("set the earlier program aside")?;
    forget_own_crates()?;
    eprintln!("built in {} s: {}", begin.elapsed().as_secs(), version(&program)?);
    Ok(program)
}

/// Cargo knows our own crates by where they lie in their checkout, and whether they are fresh by the times of files: it would take
/// those of one checkout for those of the other.
fn forget_own_crates() -> Result<()> {
    let status =
        cargo::command()?.args(["clean", "--release", "--locked", "--workspace"]).status().context("start cargo")?;
    if !status.success() {
        bail!("cargo clean failed: {status}");
    }
    Ok(())
}

/// What a build says of itself.
fn version(program: &PathBuf) -> Result<String> {
    let output = Command::new(program).arg("--version").output().context("ask the earlier version for its name")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_release_is_named_by_its_whole_commit() {
        let named = PREVIOUS_RELEASE.trim_end();
        assert!(named.len() == 40 && named.bytes().all(|digit| digit.is_ascii_hexdigit()), "{named}");
    }
}
