//! Ctrl-C, SIGTERM and SIGHUP as a flag, and waits that look at it. Whoever waits returns an error, and the guards on the
//! way out end what they started.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Set once one of the signals has come; clones share the flag.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals over from their default action.
    ///
    /// # Errors
    /// If the handlers cannot be registered.
    pub(crate) fn install() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&flag)).context("watch for Ctrl-C")?;
        }
        Ok(Self(flag))
    }

    /// Whether to give up; runs that come after are not begun.
    pub(crate) fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps.
    ///
    /// # Errors
    /// If a signal has come.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        thread::sleep(time);
        if self.requested() {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Asks every 30 ms until there is an answer.
    ///
    /// # Errors
    /// If a signal or the deadline has come, or asking failed.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ask()? {
                return Ok(answer);
            }
            if begun.elapsed() > patience {
                bail!("waited {patience:?} in vain until {what}");
            }
            self.pause(Duration::from_millis(30))?;
        }
    }
}
