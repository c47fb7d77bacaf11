//! `cargo xtask instructions`: how many instructions each stage of the pipeline takes for an event, counted by valgrind on a
//! fixed input. Times differ from run to run on a shared machine; instructions do not, so that a test can hold on to them.

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    cargo::{self, Programs},
    stack::{clone_root, tools},
};

/// Count the instructions that each stage takes for an event; more than 5 % above bench/instructions.json fails
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Take the figures of now for the ones to hold on to
    #[arg(long)]
    accept: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// As `millrace-bench stage` knows them.
const STAGES: [&str; 4] = ["publish", "decode", "chunk", "encode"];
/// The function whose instructions count, and all that it calls.
const COUNTED: &str = "--toggle-collect=*counted_round*";
/// A stage may take so many hundredths more than it did.
const GROWTH_PERCENT: u64 = 5;
/// Instructions per event that a stage may grow by whatever it takes: hashes have other seeds in each run.
const NEGLIGIBLE: u64 = 10;

/// Instructions per event, by stage.
type Counts = BTreeMap<String, u64>;

/// # Errors
/// If valgrind is missing, or the program cannot be built. A stage that has grown is an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let programs = build(args.install_missing)?;
    if args.accept {
        let counts = STAGES.iter().map(|stage| Ok(((*stage).to_owned(), count(&programs, stage)?)));
        let counts = counts.collect::<Result<Counts>>()?;
        let text = serde_json::to_string_pretty(&counts).context("write the counts")?;
        fs::write(baseline_file()?, text + "\n").context("write bench/instructions.json")?;
        println!("bench/instructions.json is written; name what has grown in the changelog:");
        counts.iter().for_each(|(stage, count)| println!("  {}", in_changelog(stage, *count)));
        return Ok(ExitCode::SUCCESS);
    }
    let (_, failed) = check(&programs)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds what is counted, after a look for valgrind.
///
/// # Errors
/// If valgrind is missing, or cargo fails.
pub(crate) fn build(install_missing: bool) -> Result<Programs> {
    tools::require_for_instructions(install_missing || cargo::in_ci())?;
    cargo::build(&["millrace-bench"])
}

/// Counts all stages and holds each against what it was; how many have passed, and how many not.
///
/// # Errors
/// If something cannot be counted or read.
pub(crate) fn check(programs: &Programs) -> Result<(u64, u64)> {
    let text = fs::read_to_string(baseline_file()?).context("read bench/instructions.json")?;
    let before: Counts = serde_json::from_str(&text).context("read bench/instructions.json")?;
    let changelog = fs::read_to_string(clone_root()?.join("CHANGELOG.md")).context("read CHANGELOG.md")?;
    // Lines are broken anywhere.
    let changelog = changelog.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut passed, mut failed) = (0, 0);
    for stage in STAGES {
        let known = *before.get(stage).with_context(|| format!("bench/instructions.json knows no stage {stage}"))?;
        let found = count(programs, stage)?;
        let problem = problem(stage, known, found, &changelog);
        println!("  {stage}: {found} instructions per event, {known} before{}", problem.as_deref().unwrap_or_default());
        if problem.is_none() { passed += 1 } else { failed += 1 }
    }
    Ok((passed, failed))
}

fn problem(stage: &str, known: u64, found: u64, changelog: &str) -> Option<String> {
    if found > known + (known * GROWTH_PERCENT / 100).max(NEGLIGIBLE) {
        return Some(format!(
            ": more than {GROWTH_PERCENT} % above. Mend it, or say why in the changelog and run `cargo xtask instructions --accept`"
        ));
    }
    let line = in_changelog(stage, known);
    (!changelog.contains(&line)).then(|| format!(": CHANGELOG.md does not say \"{line}\""))
}

/// How the changelog has to name a figure.
fn in_changelog(stage: &str, count: u64) -> String {
    format!("`{stage}` {count} instructions per event")
}

fn count(programs: &Programs, stage: &str) -> Result<u64> {
    let mut command = std::process::Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED]);
    command.arg(programs.path("millrace-bench")).args(["stage", stage]);
    let output = command.output().context("start valgrind")?;
    let (said, printed) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    ensure!(output.status.success(), "valgrind failed ({}):\n{said}", output.status);
    let events: u64 = printed.trim().parse().context("millrace-bench stage prints a number of events")?;
    let collected =
        said.lines().find_map(|line| line.split_once("Collected : ")).context("valgrind counted nothing")?.1;
    let collected: u64 = collected.trim().parse().context("valgrind prints a number of instructions")?;
    if collected == 0 || events == 0 {
        bail!("nothing was counted: is `counted_round` still a function of its own?");
    }
    Ok(collected / events)
}

fn baseline_file() -> Result<PathBuf> {
    Ok(clone_root()?.join("bench/instructions.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_fails_and_so_does_a_figure_that_the_changelog_does_not_name() {
        let changelog = "* Faster: `decode` 1000 instructions per event.";
        assert_eq!(problem("decode", 1000, 1050, changelog), None);
        assert_eq!(problem("decode", 1000, 700, changelog), None);
        assert_eq!(problem("decode", 20, 30, "`decode` 20 instructions per event"), None);
        assert!(problem("decode", 20, 31, "`decode` 20 instructions per event").is_some());
        assert!(problem("decode", 1000, 1051, changelog).unwrap().contains("more than 5 %"));
        assert!(problem("decode", 1100, 1050, changelog).unwrap().contains("CHANGELOG.md does not say"));
    }
}
