//! Ctrl-C, SIGTERM and SIGHUP as a flag that long waits look at.
//!
//! Never ends the process by itself: whoever waits returns an error, and the guards on the way out stop what they started.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// How often who waits for a signal looks.
const LOOK: Duration = Duration::from_millis(100);

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

    /// # Errors
    /// If a signal has come.
    pub(crate) fn check(&self) -> Result<()> {
        if self.requested() {
            bail!("interrupted");
        }
        Ok(())
    }
}
