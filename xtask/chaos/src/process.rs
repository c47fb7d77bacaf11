//! A running `millrace`: started, watched, stopped, killed, put to sleep. Whatever happens, it does not outlive its test.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::stack::{get, program, until};

/// Lines of a log that are shown when a test fails.
const LINES_SHOWN: usize = 40;

/// A process; it does not outlive this.
pub struct Millrace {
    child: Child,
    log: PathBuf,
}

impl Millrace {
    /// `millrace run`, or that of a program of another `name`, with this file; its log goes to `log`.
    pub fn start(name: &str, config: &Path, log: PathBuf, variables: &[(&str, &str)]) -> Self {
        Self::start_as(Command::new(program(name)), config, log, variables)
    }

    /// The same by another command than the program alone, whose process becomes the program's.
    pub fn start_as(mut command: Command, config: &Path, log: PathBuf, variables: &[(&str, &str)]) -> Self {
        let file = File::create(&log).unwrap();
        command.envs(variables.iter().copied());
        command.args(["run", "--config"]).arg(config).stdin(Stdio::null());
        command.stdout(file.try_clone().unwrap()).stderr(file).env_remove("MILLRACE_CONFIG");
        Self { child: command.spawn().unwrap(), log }
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Lines of the log that hold all of `words`.
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        self.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned).collect()
    }

    /// Where it serves metrics and health, once it has said so.
    pub fn url(&self) -> Option<String> {
        let log = self.log();
        let line = log.lines().find(|line| line.contains("metrics and health are served"))?;
        Some(format!("http://{}", line.split("address=").nth(1)?.split_whitespace().next()?))
    }

    /// Status and text of `/readyz`; `None` while nothing answers.
    pub fn readiness(&self) -> Option<(u16, String)> {
        get(&format!("{}/readyz", self.url()?))
    }

    /// Whether `/healthz` says that its poll loop comes round.
    pub fn is_healthy(&self) -> bool {
        self.url().and_then(|url| get(&format!("{url}/healthz"))).is_some_and(|(status, _)| status == 200)
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map_or(0, |kib: u64| kib * 1024)
    }

    /// Sum of a metric over its labels; 0 while nothing answers.
    pub fn metric(&self, name: &str) -> f64 {
        let answer = self.url().and_then(|url| get(&format!("{url}/metrics")));
        let Some((200, text)) = answer else { return 0.0 };
        let value = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        };
        text.lines().filter_map(value).sum()
    }

    /// Its own metrics that are not 0, without the buckets of histograms.
    fn metrics_in_short(&self) -> String {
        let answer = self.url().and_then(|url| get(&format!("{url}/metrics")));
        let text = answer.map_or_else(String::new, |(_, text)| text);
        let says_much =
            |line: &&str| line.starts_with("millrace_") && !line.contains("_bucket{") && !line.ends_with(" 0");
        text.lines().filter(says_much).collect::<Vec<_>>().join("\n")
    }

    /// Rows it says to have inserted.
    pub fn rows(&self) -> u64 {
        self.metric("millrace_rows_inserted_total") as u64
    }

    /// Waits until `/readyz` says so.
    pub fn until_ready(&mut self) {
        self.until("it is ready", Duration::from_secs(30), |this| {
            this.readiness().is_some_and(|(status, _)| status == 200)
        });
    }

    /// Waits for something of it, and fails at once if it ends meanwhile.
    pub fn until(&mut self, what: &str, patience: Duration, mut is_so: impl FnMut(&Self) -> bool) {
        until(what, patience, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "millrace ended ({}) before {what}", ended.unwrap());
            is_so(self)
        });
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory it has had resident so far, in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process that runs");
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// SIGKILL, and gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ended, and after how long a wait.
    pub fn wait(&mut self, patience: Duration) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let mut status = None;
        until("millrace ends", patience, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        (status.unwrap(), begun.elapsed())
    }

    /// SIGTERM: it ends well within its drain timeout.
    pub fn terminate(&mut self) {
        // Of earlier rebalances, whose drain is shorter.
        let late = |this: &Self| this.lines(&["not everything landed in time"]).len();
        let before = late(self);
        self.signal(Signal::TERM);
        let (status, _) = self.wait(Duration::from_secs(21));
        assert!(status.success(), "after SIGTERM: {status}");
        assert_eq!(self.lines(&["drained and left the group"]).len(), 1);
        assert_eq!(late(self), before, "not everything landed in time");
    }
}

impl Drop for Millrace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ready = self
                .readiness()
                .map_or_else(|| "nothing answers".to_owned(), |(status, text)| format!("{status} {text}"));
            eprintln!("--- /readyz: {}\n{}", ready.trim_end(), self.metrics_in_short());
        }
        // SIGKILL ends a stopped process as well.
        _ = self.child.kill();
        _ = self.child.wait();
        let log = self.log();
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            eprintln!("--- {}\n{}\n---", self.log.display(), last.join("\n"));
        } else {
            assert!(!log.contains("panicked"), "{} tells of a panic", self.log.display());
        }
    }
}
