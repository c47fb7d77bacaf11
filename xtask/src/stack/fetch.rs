//! Running Maven, npm and tar: with signs of life while they work, and their own words when they fail.

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::process::log_tail;
use crate::interrupt::Interrupt;

/// Pinned, so that everybody runs the same; 2.8 is what Maven 3.8 takes by default.
pub(crate) const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:2.8";
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Maven, told to talk to a log file rather than to a person.
pub(crate) fn maven() -> Command {
    let mut command = Command::new("mvn");
    command.args(["--batch-mode", "--quiet"]);
    command
}

/// Runs a command to its end, in `folder`.
///
/// # Errors
/// If it fails, with the last lines it printed; or Ctrl-C, after which it no longer runs.
pub(crate) fn run(mut command: Command, folder: &Path, interrupt: &Interrupt) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let log_path = folder.join("fetch.log");
    let log = fs::File::create(&log_path).with_context(|| format!("cannot write {}", log_path.display()))?;
    let error_log = log.try_clone().context("cannot share the log file")?;
    let mut child = command
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(error_log)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut progress = Progress::new(&name);
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot watch {name}"))? {
            break status;
        }
        if interrupt.requested() {
            child.kill().with_context(|| format!("cannot stop {name}"))?;
            child.wait().with_context(|| format!("cannot stop {name}"))?;
            bail!("interrupted");
        }
        progress.report(folder);
        thread::sleep(Duration::from_millis(50));
    };
    progress.end();
    if !status.success() {
        bail!("{name} failed ({status}); its last lines:\n{}", log_tail(&log_path, 20));
    }
    // Or it would count as a part of what is installed.
    fs::remove_file(&log_path).with_context(|| format!("cannot remove {}", log_path.display()))
}

/// "mvn: 12 MB, 3 s": rewritten in place on a terminal, a line every 5 s elsewhere.
struct Progress<'a> {
    name: &'a str,
    begin: Instant,
    last: Instant,
    terminal: bool,
    shown: bool,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str) -> Self {
        let now = Instant::now();
        Self { name, begin: now, last: now, terminal: std::io::stderr().is_terminal(), shown: false }
    }

    fn report(&mut self, folder: &Path) {
        let every = if self.terminal { Duration::from_millis(500) } else { REPORT_EVERY };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        self.shown = true;
        let megabytes = bytes_in(folder) / 1_000_000;
        let line = format!("  {}: {megabytes} MB, {} s", self.name, self.begin.elapsed().as_secs());
        if self.terminal {
            eprint!("\r{line}  ");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    fn end(&self) {
        if self.terminal && self.shown {
            eprint!("\r{:60}\r", "");
        }
    }
}

fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        Some(if meta.is_dir() { bytes_in(&entry.path()) } else { meta.len() })
    });
    sizes.sum()
}
