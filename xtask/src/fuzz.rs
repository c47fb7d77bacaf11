//! `cargo xtask fuzz`: hostile bytes for whatever reads bytes of others, by libFuzzer, on the stable compiler. The targets
//! and the inputs to begin with are in `consumers/fuzz/`; what is found on the way is kept in `target/fuzz/`.

use std::{
    fs::{self, File},
    path::Path,
    process::{ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{
    cargo::{self, Programs},
    interrupt::Interrupt,
    stack::clone_root,
};

/// Give hostile bytes to whatever reads bytes of others (libFuzzer)
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this one
    #[arg(long, value_parser = TARGETS.map(|(name, _)| name))]
    target: Option<String>,
    /// How long each of them
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

/// Targets, and the longest input of each in bytes.
const TARGETS: [(&str, u32); 4] = [("header", 64), ("decode", 8192), ("registry", 8192), ("config", 8192)];
/// A process that has more resident is one that believed a length.
const MEMORY_MIB: u32 = 1024;
/// One input that takes longer than this has found something.
const SECONDS_PER_INPUT: u32 = 10;
/// Lines of libFuzzer's that are shown when it has found something.
const LINES_SHOWN: usize = 40;

/// # Errors
/// If the programs cannot be built. What is found is an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    let programs = build()?;
    let mut all_well = true;
    for (name, longest) in TARGETS {
        if args.target.as_deref().is_none_or(|wanted| wanted == name) {
            all_well &= drive(&programs, name, longest, args.seconds)?;
            interrupt.check()?;
        }
    }
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs every target for so long; how many have stood it, and how many not.
///
/// # Errors
/// If the programs cannot be built or started.
pub(crate) fn check(seconds: u64) -> Result<(u64, u64)> {
    let programs = build()?;
    let (mut passed, mut failed) = (0, 0);
    for (name, longest) in TARGETS {
        if drive(&programs, name, longest, seconds)? { passed += 1 } else { failed += 1 }
    }
    Ok((passed, failed))
}

fn build() -> Result<Programs> {
    cargo::build_fuzzers(&TARGETS.map(|(name, _)| format!("fuzz-{name}")))
}

/// Whether a target stood what it was given.
fn drive(programs: &Programs, name: &str, longest: u32, seconds: u64) -> Result<bool> {
    let root = clone_root()?;
    let kept = root.join("target/fuzz").join(name);
    let (grown, found) = (kept.join("corpus"), kept.join("found"));
    for folder in [&grown, &found] {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let log = kept.join("log");
    let begun = Instant::now();
    let status = std::process::Command::new(programs.path(&format!("fuzz-{name}")))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={longest}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-timeout={SECONDS_PER_INPUT}"))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .arg("-print_final_stats=1")
        // New inputs are written to the first folder; the committed ones stay as they are.
        .args([&grown, &root.join("consumers/fuzz/corpus").join(name)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).with_context(|| format!("write {}", log.display()))?)
        .status()
        .with_context(|| format!("start fuzz-{name}"))?;
    let said = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
    let said = String::from_utf8_lossy(&said);
    let inputs = figure(&said, "stat::number_of_executed_units:").unwrap_or(0);
    let covered = said.lines().rev().find_map(|line| figure(line, " cov: ")).unwrap_or(0);
    let took = begun.elapsed().as_secs_f64();
    println!("  {name}: {inputs} inputs in {took:.0} s, {covered} places of ours reached");
    if !status.success() {
        println!("{}\n{name}: {status}; {}", last_lines(&said), again(&found));
    } else if inputs == 0 || covered == 0 {
        println!("{}\n{name}: nothing was tried, or coverage is not seen", last_lines(&said));
    }
    Ok(status.success() && inputs > 0 && covered > 0)
}

/// How to look at what was found.
fn again(found: &Path) -> String {
    format!("the input is in {}; give it to the program as its only argument", found.display())
}

/// The number behind the first `name`.
fn figure(text: &str, name: &str) -> Option<u64> {
    text.split_once(name)?.1.split_whitespace().next()?.parse().ok()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_libfuzzer_prints() {
        let said = "#524288\tpulse  cov: 812 ft: 2915 corp: 402/21Kb\nstat::number_of_executed_units: 913475\n";
        assert_eq!(figure(said, " cov: "), Some(812));
        assert_eq!(figure(said, "stat::number_of_executed_units:"), Some(913_475));
        assert_eq!(figure("nothing", " cov: "), None);
    }
}
