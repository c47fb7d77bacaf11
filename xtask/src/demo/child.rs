//! Programs of ours, run to their end or left running under a guard that stops them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{self, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    interrupt::Interrupt,
    stack::process::{self as processes, Identity},
};

const POLL: Duration = Duration::from_millis(50);
/// Lines of a log that are shown when its program fails.
const LINES_SHOWN: usize = 15;

/// A program of ours, about to be run.
pub(crate) struct Command {
    inner: process::Command,
    name: String,
    interrupt: Interrupt,
}

impl Command {
    pub(crate) fn new(program: &Path, interrupt: Interrupt) -> Self {
        let name = program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Self { inner: process::Command::new(program), name, interrupt }
    }

    pub(crate) fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(arg);
        self
    }

    pub(crate) fn args<'a>(&mut self, args: impl IntoIterator<Item = &'a str>) -> &mut Self {
        self.inner.args(args);
        self
    }

    /// Runs it to its end; what it prints is shown only if it fails.
    pub(crate) fn run_quietly(&mut self) -> Result<()> {
        let output = self.inner.stdin(Stdio::null()).output().with_context(|| format!("start {}", self.name))?;
        self.interrupt.check()?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            bail!("{} failed ({}):\n{}", self.name, output.status, tail(&String::from_utf8_lossy(&said)));
        }
        Ok(())
    }

    /// Runs it to its end and reads the JSON object that it prints, whatever its exit status.
    pub(crate) fn output_json(&mut self) -> Result<Value> {
        self.inner.stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = self.inner.output().with_context(|| format!("start {}", self.name))?;
        self.interrupt.check()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().unwrap_or_default();
        serde_json::from_str(last)
            .with_context(|| format!("{} ({}) printed no JSON object, but: {last}", self.name, output.status))
    }

    /// Starts it with its output in a file.
    pub(crate) fn start(mut self, log: &Path) -> Result<Child> {
        let file = File::create(log).with_context(|| format!("make {}", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("make {}", log.display()))?;
        self.inner.stdin(Stdio::null()).stdout(file).stderr(errors);
        let process = self.inner.spawn().with_context(|| format!("start {}", self.name))?;
        let child = Child { process: Some(process), log: log.to_owned(), name: self.name };
        record(log, child.pid())?;
        Ok(child)
    }
}

/// A running program, killed when dropped.
pub(crate) struct Child {
    process: Option<process::Child>,
    log: PathBuf,
    name: String,
}

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, process::Child::id)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ended well; it still runs if not.
    ///
    /// # Errors
    /// If it ended badly, with the last lines of its log.
    pub(crate) fn ended(&mut self) -> Result<bool> {
        let Some(process) = &mut self.process else { return Ok(true) };
        match process.try_wait().with_context(|| format!("look after {}", self.name))? {
            None => Ok(false),
            Some(status) if status.success() => Ok(true),
            Some(status) => bail!("{} failed ({status}); its log ends:\n{}", self.name, tail(&self.log())),
        }
    }

    /// Most memory that it ever held, in MiB.
    pub(crate) fn memory_mib_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default() / 1024
    }

    /// Asks it to leave, and waits.
    pub(crate) fn stop(mut self, patience: Duration) -> Result<()> {
        let pid = self.process.as_ref().map(Pid::from_child).context("it is running")?;
        kill_process(pid, Signal::TERM).with_context(|| format!("ask {} to leave", self.name))?;
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if self.ended()? {
                self.process = None;
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!("{} did not leave within {patience:?} of SIGTERM; its log ends:\n{}", self.name, tail(&self.log()));
    }

    /// Leaves it running when this program ends; its pid.
    pub(crate) fn leave(mut self) -> u32 {
        let pid = self.pid();
        self.process = None;
        pid
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn pid_file(log: &Path) -> PathBuf {
    log.with_extension("pid")
}

fn record(log: &Path, pid: u32) -> Result<()> {
    let path = pid_file(log);
    let identity = serde_json::to_vec(&Identity::of(pid)).context("encode a pid")?;
    fs::write(&path, identity).with_context(|| format!("write {}", path.display()))
}

/// Kills the program that was recorded beside `log`, if it is still the same process.
pub(crate) fn stop_recorded(log: &Path) -> Result<()> {
    let path = pid_file(log);
    let Ok(recorded) = fs::read(&path) else { return Ok(()) };
    if let Ok(Some(identity)) = serde_json::from_slice::<Option<Identity>>(&recorded)
        && identity.alive()
    {
        println!("      stopping process {} of an earlier demo", identity.pid);
        processes::stop(&identity, Duration::from_secs(1))?;
    }
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES_SHOWN)..].iter().map(|line| format!("    {line}\n")).collect()
}
