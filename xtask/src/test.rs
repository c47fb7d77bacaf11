//! `cargo xtask test`: every test there is, the ones on real parts against a stack of their own; and `cargo xtask lint`.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    alerts,
    cargo::{self, Programs},
    chaos, fuzz, instructions,
    interrupt::Interrupt,
    k8s, page,
    stack::{DataDir, Options, Stack, tools},
};

/// Run every test: unit, property and golden tests, then those on a real stack
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only those that need no stack
    #[arg(long)]
    unit: bool,
    /// Leave the tests' stack running
    #[arg(long)]
    keep: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// Tests on the real parts: packages, target, and arguments of the test programs.
const ON_REAL_PARTS: [Suite; 2] = [
    Suite { what: "each part against real Kafka, registry and ClickHouse", target: "it", arguments: &[] },
    Suite {
        what: "the built programs end to end, killed and cut off under load",
        target: "e2e",
        // They share two cores and measure nothing, but a crowd of them would only time out.
        arguments: &["--test-threads=1"],
    },
];

/// How long each target of libFuzzer runs; `cargo xtask fuzz` runs them for as long as one likes.
const FUZZ_SECONDS: u64 = 10;

struct Suite {
    what: &'static str,
    target: &'static str,
    arguments: &'static [&'static str],
}

/// What is looked at of a row that millrace-chaos prints.
#[derive(serde::Deserialize)]
struct CaseRow {
    without: Option<String>,
    passed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// # Errors
/// If the stack cannot be brought up. Tests that fail are an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let begin = Instant::now();
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    let mut counts = Counts::default();
    say("unit, property, golden and documentation tests");
    let mut unit = cargo::command()?;
    unit.args(["test", "--release", "--locked", "--workspace", "--no-fail-fast"]);
    let mut all_well = counted(unit, &mut counts, &interrupt)?;
    interrupt.check()?;
    say("alert rules, by promtool");
    let (passed, failed) = alerts::check(args.install_missing || cargo::in_ci())?;
    counts.passed += passed;
    counts.failed += failed;
    interrupt.check()?;
    say("manifests for Kubernetes, by real schemas and by rules of our own");
    let (passed, failed) = k8s::check(args.install_missing || cargo::in_ci(), &interrupt)?;
    counts.passed += passed;
    counts.failed += failed;
    interrupt.check()?;
    if !args.unit {
        say("instructions per event of each stage, against what they were");
        let (passed, failed) = instructions::check(&instructions::build(args.install_missing)?)?;
        counts.passed += passed;
        counts.failed += failed;
        interrupt.check()?;
        say("hostile bytes for whatever reads bytes of others, by libFuzzer");
        let (passed, failed) = fuzz::check(FUZZ_SECONDS)?;
        counts.passed += passed;
        counts.failed += failed;
        interrupt.check()?;
        say("a stack for the tests, with fresh data");
        tools::require_for_chaos(args.install_missing || cargo::in_ci())?;
        tools::require_for_page(args.install_missing || cargo::in_ci())?;
        cargo::build_faulty()?;
        let programs = cargo::build_tests()?;
        let stack = Stack::up(&Options {
            dir: DataDir::path_in_clone(Some("test"))?,
            fresh: true,
            install_missing: args.install_missing || cargo::in_ci(),
            measured: false,
            interrupt: interrupt.clone(),
        })?;
        for suite in &ON_REAL_PARTS {
            say(suite.what);
            all_well &= suite.run(&stack.path(), &mut counts, &interrupt)?;
            interrupt.check()?;
        }
        say("the page of the admin port, in a real browser");
        let (passed, failed) = page::check(&programs, &stack, &interrupt)?;
        counts.passed += passed;
        counts.failed += failed;
        interrupt.check()?;
        say("every case of the fault matrix, and the negative controls, on two stacks side by side");
        let second = Stack::up(&Options {
            dir: DataDir::path_in_clone(Some("test-2"))?,
            fresh: true,
            install_missing: args.install_missing || cargo::in_ci(),
            measured: false,
            interrupt: interrupt.clone(),
        })?;
        all_well &= cases(&programs, &[&stack, &second], &mut counts, &interrupt)?;
        second.stop()?;
        if args.keep {
            println!("left running: {}", stack.path().display());
            stack.keep();
        } else {
            stack.stop()?;
        }
    }
    println!("\nafter {:.0} s:", begin.elapsed().as_secs_f64());
    println!("{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    if counts.passed == 0 {
        bail!("no test was run");
    }
    Ok(if all_well && counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Formatting, clippy and documentation, with warnings as errors, and the dependency rules where cargo-deny is there.
///
/// # Errors
/// If one of them finds something.
pub(crate) fn lint() -> Result<ExitCode> {
    check("formatting", &["fmt", "--all", "--check"], &[])?;
    // Those on real parts are no part of all targets, and all targets leave out whatever is named beside them.
    for targets in ["--all-targets", "--test it --test e2e"] {
        let clippy = format!("clippy --release --locked --workspace {targets} --all-features -- -D warnings");
        check("clippy", &clippy.split(' ').collect::<Vec<_>>(), &[])?;
    }
    let doc = ["doc", "--release", "--locked", "--workspace", "--no-deps", "--document-private-items"];
    check("documentation", &doc, &[("RUSTDOCFLAGS", "-D warnings")])?;
    if cargo::command()?.args(["deny", "--version"]).output().is_ok_and(|output| output.status.success()) {
        check("dependencies", &["deny", "--locked", "check", "bans", "licenses", "sources"], &[])?;
    } else {
        println!(
            "== dependencies: cargo-deny is not installed, deny.toml not checked (cargo install cargo-deny --locked)"
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn check(what: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    say(what);
    let status = cargo::command()?.args(arguments).envs(variables.iter().copied()).status().context("start cargo")?;
    if !status.success() {
        bail!("{what}: cargo {} failed ({status})", arguments.join(" "));
    }
    Ok(())
}

impl Suite {
    fn run(&self, stack: &Path, counts: &mut Counts, interrupt: &Interrupt) -> Result<bool> {
        let mut command = cargo::command()?;
        // Of the whole workspace, as the unit tests: another choice of packages has other features, and is compiled anew.
        command.args(["test", "--release", "--locked", "--workspace", "--no-fail-fast", "--test", self.target]);
        command.arg("--").args(self.arguments).env("MILLRACE_STACK", stack);
        command.env("MILLRACE_XTASK", chaos::program_for_others()?);
        counted(command, counts, interrupt)
    }
}

/// Runs tests, shows what they print as it comes, and counts them by their closing lines.
fn counted(mut command: Command, counts: &mut Counts, interrupt: &Interrupt) -> Result<bool> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut tests = interrupt.spawn(command).context("start cargo")?;
    let output = tests.child.stdout.take().context("read what cargo prints")?;
    for line in BufReader::new(output).lines() {
        let line = line.context("read what cargo prints")?;
        println!("{line}");
        if let Some(found) = closing_line(&line) {
            counts.passed += found.passed;
            counts.failed += found.failed;
            counts.ignored += found.ignored;
        }
    }
    Ok(tests.wait().context("wait for cargo")?.success())
}

/// Runs the fault matrix, an equal share on each stack, and counts its cases. A negative control is a case that has to fail;
/// it is counted with the exit status of its share only, since it may take several cases to find one that rests on its guard.
fn cases(programs: &Programs, stacks: &[&Stack], counts: &mut Counts, interrupt: &Interrupt) -> Result<bool> {
    let mut shares = Vec::new();
    for (at, stack) in stacks.iter().enumerate() {
        let mut command = chaos::command(programs, stack)?;
        command.args(["--json", "--shard", &format!("{}/{}", at + 1, stacks.len())]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        shares.push(interrupt.spawn(command).context("start millrace-chaos")?);
    }
    let mut all_well = true;
    for mut share in shares {
        // What the others print meanwhile waits for its turn: it is a line for each case.
        let output = share.child.stdout.take().context("read what millrace-chaos prints")?;
        for line in BufReader::new(output).lines() {
            let row: CaseRow = serde_json::from_str(&line.context("read what millrace-chaos prints")?)
                .context("read a row of millrace-chaos")?;
            if row.without.is_none() {
                counts.passed += u64::from(row.passed);
                counts.failed += u64::from(!row.passed);
            }
        }
        let well = share.wait().context("wait for millrace-chaos")?.success();
        counts.passed += u64::from(well);
        counts.failed += u64::from(!well);
        all_well &= well;
    }
    Ok(all_well)
}

/// `test result: ok. 12 passed; 0 failed; 1 ignored; …`
fn closing_line(line: &str) -> Option<Counts> {
    let (_, figures) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = Counts::default();
    for figure in figures.split("; ") {
        let Some((number, what)) = figure.split_once(' ') else { continue };
        let Ok(number) = number.parse() else { continue };
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.ignored = number,
            _ => {}
        }
    }
    Some(counts)
}

fn say(what: &str) {
    println!("== {what}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_counted_and_other_lines_are_not() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.10s";
        assert_eq!(closing_line(line), Some(Counts { passed: 12, failed: 3, ignored: 1 }));
        assert_eq!(closing_line("test a::b ... ok"), None);
        assert_eq!(closing_line("running 3 tests"), None);
    }
}
