//! Ctrl-C, SIGTERM and SIGHUP as a flag that long waits look at.
//!
//! Never ends the process by itself: whoever waits returns an error, and the guards on the way out stop what they started.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often who waits for a signal looks.
const LOOK: Duration = Duration::from_millis(100);
/// A program that was told to end and has not after so long is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Set once one of the signals has come; clones share the flag.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals over from their default action, for the whole process.
    ///
    /// # Errors
    /// If the handlers cannot be registered.
    pub(crate) fn install() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Whether to give up and clean up.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Comes back once a signal has come.
    pub(crate) fn wait(&self) {
        while !self.requested() {
            thread::sleep(LOOK);
        }
    }

    /// Starts a program in a group of its own, which ends with us: when a signal comes, all of the group is told to end, and killed
    /// if it does not. A signal may come to us alone, as from a CI that cancels.
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn spawn(&self, command: &mut Command) -> io::Result<Running> {
        let child = command.process_group(0).spawn()?;
        let (group, interrupt, over) = (Pid::from_child(&child), self.clone(), Arc::new(AtomicBool::new(false)));
        let ended = Arc::clone(&over);
        thread::spawn(move || {
            let mut told: Option<Instant> = None;
            while !ended.load(Ordering::Relaxed) {
                // A group that has ended meanwhile needs nothing.
                match told {
                    None if interrupt.requested() => {
                        _ = kill_process_group(group, Signal::TERM);
                        told = Some(Instant::now());
                    }
                    Some(since) if since.elapsed() > ENDS_WITHIN => {
                        _ = kill_process_group(group, Signal::KILL);
                        return;
                    }
                    _ => {}
                }
                thread::sleep(LOOK);
            }
        });
        Ok(Running { child, over })
    }

    /// Runs a program to its end, as [`Interrupt::spawn`].
    ///
    /// # Errors
    /// If it cannot be started.
    pub(crate) fn run(&self, command: &mut Command) -> io::Result<ExitStatus> {
        self.spawn(command)?.wait()
    }

    /// # Errors
    /// If a signal has come.
    pub(crate) fn check(&self) -> Result<()> {
        if self.requested() {
            bail!("interrupted");
        }
        Ok(())
    }
}

/// A program that runs in a group of its own; dropped before its end, it is killed with all of its group.
pub(crate) struct Running {
    pub(crate) child: Child,
    over: Arc<AtomicBool>,
}

impl Running {
    /// # Errors
    /// If it cannot be waited for.
    pub(crate) fn wait(mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait();
        self.over.store(true, Ordering::Relaxed);
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over.swap(true, Ordering::Relaxed) && matches!(self.child.try_wait(), Ok(None)) {
            _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_program_and_what_it_has_started_end_with_us() {
        let interrupt = Interrupt(Arc::default());
        let script = "sleep 600 & echo started; wait";
        let mut command = Command::new("sh");
        let mut running = interrupt.spawn(command.args(["-c", script]).stdout(std::process::Stdio::piped())).unwrap();
        let mut output = running.child.stdout.take().unwrap();
        let mut started = [0; 8];
        output.read_exact(&mut started).unwrap();
        interrupt.0.store(true, Ordering::Relaxed);
        // The pipe ends when nobody holds it any more.
        output.read_to_end(&mut Vec::new()).unwrap();
        assert!(!running.wait().unwrap().success());
    }
}
