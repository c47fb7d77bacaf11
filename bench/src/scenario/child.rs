//! Programs that the runner starts: each writes a log, none outlives its guard.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::proc::Stat;

/// Lines of a log that are shown when its program fails.
const LINES_SHOWN: usize = 15;

/// A running program, killed when dropped.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    name: String,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

/// A program of ours: from the folder that `MILLRACE_BIN` names, or from the one that this program lies in.
///
/// # Errors
/// If it is not there.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("MILLRACE_BIN") {
        Some(folder) => PathBuf::from(folder),
        None => {
            std::env::current_exe().context("find this program")?.parent().map(Path::to_path_buf).unwrap_or_default()
        }
    };
    let program = folder.join(name);
    if !program.is_file() {
        bail!("the program {name} was not built");
    }
    Ok(program)
}

impl Child {
    /// Starts it with its output in a file.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let file = File::create(log).with_context(|| format!("make {}", log.display()))?;
        let errors = file.try_clone().with_context(|| format!("make {}", log.display()))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let process = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { process, name, log: log.to_owned(), ended: None })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it has ended; until [`Child::finish`] the system remembers its processor time.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_some() || Stat::read(self.pid()).is_none_or(|stat| stat.state == 'Z')
    }

    /// # Errors
    /// If it has ended, with the last lines of its log.
    pub(crate) fn check_running(&mut self) -> Result<()> {
        if self.has_ended() {
            let status = self.process.wait().with_context(|| format!("look after {}", self.name))?;
            self.ended = Some(status);
            bail!("{} ended ({status}); its log ends:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If it ended badly, or not in time; with the last lines of its log.
    pub(crate) fn finish(mut self, patience: Duration) -> Result<()> {
        let begun = Instant::now();
        while !self.has_ended() {
            if begun.elapsed() > patience {
                bail!("{} did not end within {patience:?}; its log ends:\n{}", self.name, self.tail());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let status = self.process.wait().with_context(|| format!("look after {}", self.name))?;
        self.ended = Some(status);
        if !status.success() {
            bail!("{} failed ({status}); its log ends:\n{}", self.name, self.tail());
        }
        Ok(())
    }

    /// Asks it to leave, and waits.
    ///
    /// # Errors
    /// As for [`Child::finish`].
    pub(crate) fn stop(self, patience: Duration) -> Result<()> {
        if !self.has_ended() {
            kill_process(Pid::from_child(&self.process), Signal::TERM)
                .with_context(|| format!("ask {} to leave", self.name))?;
        }
        self.finish(patience)
    }

    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
