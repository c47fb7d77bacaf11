//! Processes that outlive us: starting one in its own session, knowing it again later, stopping it.
//!
//! A process is known by its pid *and* its start time, so a pid that the system has given to somebody else is never
//! signalled. The pid file is written by the process itself before it becomes the part (see [`exec`]), so there is no
//! moment at which a part runs that no later command can find.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use super::layout::{DataDir, read_if_there, write_atomically};
use super::part::{Launch, Part};
use super::proc_table;

/// How long a process may take to vanish after SIGKILL (the kernel frees its memory first).
const KILL_WAIT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// A log larger than this is set aside when the part starts again.
const LOG_BYTES_MAX: u64 = 32 << 20;

/// One process of this machine since it booted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: u32,
    /// Start time as the system states it; only ever compared.
    start: String,
}

impl Identity {
    /// `None` if no such process lives (a zombie does not).
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let start = proc_table::start_time(pid)?;
        Some(Self { pid, start })
    }

    pub(crate) fn alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

/// The content of a pid file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    #[serde(flatten)]
    pub(crate) identity: Identity,
    /// Of the [`Launch`] that it came from.
    pub(crate) fingerprint: String,
    pub(crate) started_unix_ms: u64,
}

impl Record {
    /// The record of a part, whether or not its process still lives. A damaged file counts as none.
    pub(crate) fn load(dir: &DataDir, part: Part) -> Result<Option<Self>> {
        let content = read_if_there(&dir.record(part))?;
        Ok(content.and_then(|content| serde_json::from_str(&content).ok()))
    }

    /// The record of a part whose process lives.
    pub(crate) fn load_alive(dir: &DataDir, part: Part) -> Result<Option<Self>> {
        Ok(Self::load(dir, part)?.filter(|record| record.identity.alive()))
    }

    pub(crate) fn remove(dir: &DataDir, part: Part) -> Result<()> {
        match fs::remove_file(dir.record(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", dir.record(part).display()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn uptime(&self) -> Duration {
        Duration::from_millis(unix_ms().saturating_sub(self.started_unix_ms))
    }
}

#[derive(clap::Args)]
pub(crate) struct ExecArgs {
    #[arg(long)]
    record: PathBuf,
    #[arg(long)]
    fingerprint: String,
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Leaves the terminal's session, writes the pid file and becomes the program: pid and start time stay the same.
///
/// # Errors
/// If any of that fails; it does not return otherwise.
pub(crate) fn exec(args: &ExecArgs) -> Result<ExitCode> {
    rustix::process::setsid().context("cannot start a session")?;
    let identity = Identity::of(std::process::id()).context("cannot read our own start time")?;
    let record = Record { identity, fingerprint: args.fingerprint.clone(), started_unix_ms: unix_ms() };
    let content = serde_json::to_vec(&record).context("cannot encode the pid file")?;
    write_atomically(&args.record, &content, 0o644)?;
    let [program, rest @ ..] = args.command.as_slice() else {
        bail!("no program given");
    };
    let error = Command::new(program).args(rest).exec();
    Err(error).with_context(|| format!("cannot start {}", program.display()))
}

/// Starts a part, its output going to its log file. Returns once its pid file is there or it has ended.
///
/// # Errors
/// If it cannot be started at all.
pub(crate) fn spawn(dir: &DataDir, launch: &Launch) -> Result<Identity> {
    Record::remove(dir, launch.part)?;
    let log = open_log(&dir.log(launch.part))?;
    let error_log = log.try_clone().context("cannot share the log file")?;
    let mut child = Command::new(own_program()?)
        .arg0("xtask")
        .args(["part-exec", "--record"])
        .arg(dir.record(launch.part))
        .args(["--fingerprint", &launch.fingerprint(), "--"])
        .arg(&launch.program)
        .args(&launch.args)
        .envs(&launch.env)
        .current_dir(dir.root())
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(error_log)
        .spawn()
        .with_context(|| format!("cannot start {}", launch.part.name()))?;
    loop {
        if let Some(record) = Record::load(dir, launch.part)? {
            return Ok(record.identity);
        }
        if let Some(status) = child.try_wait().context("cannot watch the process")? {
            let tail = log_tail(&dir.log(launch.part), 10);
            bail!("{} did not start ({status}):\n{tail}", launch.part.name());
        }
        thread::sleep(POLL);
    }
}

/// This very program, even if cargo has replaced its file meanwhile; for this process to start.
pub(crate) fn own_program() -> Result<PathBuf> {
    let linux = Path::new("/proc/self/exe");
    if linux.exists() {
        return Ok(linux.to_path_buf());
    }
    std::env::current_exe().context("cannot tell where this program lies")
}

/// How a process ended when it was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    WasGone,
    Cleanly,
    Killed,
}

/// SIGTERM, and SIGKILL if it still lives after `grace`.
///
/// # Errors
/// If it survives even that, or belongs to somebody else.
pub(crate) fn stop(identity: &Identity, grace: Duration) -> Result<Stopped> {
    if !identity.alive() {
        return Ok(Stopped::WasGone);
    }
    signal(identity, Signal::TERM)?;
    if wait_gone(identity, grace) {
        return Ok(Stopped::Cleanly);
    }
    signal(identity, Signal::KILL)?;
    if wait_gone(identity, KILL_WAIT) {
        return Ok(Stopped::Killed);
    }
    bail!("process {} does not end, even after SIGKILL", identity.pid)
}

fn signal(identity: &Identity, signal: Signal) -> Result<()> {
    if !identity.alive() {
        return Ok(());
    }
    let pid = raw_pid(identity.pid)?;
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot signal process {}", identity.pid)),
    }
}

fn wait_gone(identity: &Identity, limit: Duration) -> bool {
    let begin = Instant::now();
    while identity.alive() {
        if begin.elapsed() > limit {
            return false;
        }
        thread::sleep(POLL);
    }
    // Reap it if it was our own child; if it was not, there is nothing to reap.
    if let Ok(pid) = raw_pid(identity.pid) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
    true
}

fn raw_pid(pid: u32) -> Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.with_context(|| format!("{pid} is no pid"))
}

fn open_log(path: &Path) -> Result<fs::File> {
    let open = || -> io::Result<fs::File> {
        if fs::metadata(path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
            fs::rename(path, path.with_extension("log.1"))?;
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "---- start")?;
        Ok(file)
    };
    open().with_context(|| format!("cannot write {}", path.display()))
}

/// The last lines of a log since the part last started, indented; as much as a message should quote.
pub(crate) fn log_tail(path: &Path, lines: usize) -> String {
    const BYTES_MAX: u64 = 64 << 10;
    let read = || -> io::Result<String> {
        let mut file = fs::File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let content = read().unwrap_or_default();
    let this_run = content.rsplit("---- start\n").next().unwrap_or_default();
    let all: Vec<&str> = this_run.lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    if last.is_empty() {
        return format!("    (nothing in {})", path.display());
    }
    let quoted: Vec<String> = last.iter().map(|line| format!("    {line}")).collect();
    quoted.join("\n")
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    #[test]
    fn a_living_process_is_known_again() {
        let identity = Identity::of(std::process::id()).unwrap();
        assert!(identity.alive());
    }

    #[test]
    fn a_recycled_pid_is_another_process_and_is_not_killed() {
        let mut stranger = sleeper();
        let stale = Identity { pid: stranger.id(), start: "of an earlier process".to_owned() };
        assert!(!stale.alive());
        assert_eq!(stop(&stale, Duration::ZERO).unwrap(), Stopped::WasGone);
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger lives on");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_told_to_stop_is_gone_afterwards() {
        let mut child = sleeper();
        let identity = Identity::of(child.id()).unwrap();
        assert_eq!(stop(&identity, Duration::from_secs(5)).unwrap(), Stopped::Cleanly);
        assert!(!identity.alive());
        let _ = child.wait();
    }

    #[test]
    fn a_process_that_ignores_sigterm_is_killed() {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let identity = Identity::of(child.id()).unwrap();
        assert_eq!(stop(&identity, Duration::from_millis(100)).unwrap(), Stopped::Killed);
        let _ = child.wait();
    }

    #[test]
    fn a_zombie_counts_as_gone() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        let begin = Instant::now();
        while Identity::of(pid).is_some() {
            assert!(begin.elapsed() < Duration::from_secs(10));
            thread::sleep(POLL);
        }
        child.wait().unwrap();
    }
}
