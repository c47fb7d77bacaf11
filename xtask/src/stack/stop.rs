//! Stopping parts: all at once, by what their pid files say, and nothing that these do not name.

use std::fs;
use std::io;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::layout::DataDir;
use super::part::Part;
use super::process::{self, Record, Stopped};

/// How long a part may take to stop by itself; ClickHouse's launcher gives its child 20 s.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(30);

/// Stops parts, all at once, and returns how many were running.
pub(super) fn stop_parts(dir: &DataDir, parts: &[Part], grace: Duration) -> Result<usize> {
    remove_stack_file(dir)?;
    let mut running = Vec::new();
    for part in parts {
        match Record::load_alive(dir, *part)? {
            Some(record) => running.push((*part, record.identity)),
            None => Record::remove(dir, *part)?,
        }
    }
    let results: Vec<(Part, Result<Stopped>)> = thread::scope(|scope| {
        let stops: Vec<_> =
            running.iter().map(|(part, identity)| (*part, scope.spawn(|| process::stop(identity, grace)))).collect();
        let join = |(part, stop): (Part, ScopedJoinHandle<'_, Result<Stopped>>)| {
            (part, stop.join().unwrap_or_else(|_| bail!("the thread that stopped it panicked")))
        };
        stops.into_iter().map(join).collect()
    });
    let mut first_error = Ok(());
    for (part, result) in results {
        match result {
            Ok(stopped) => {
                let how = if stopped == Stopped::Killed { " (killed: it did not stop by itself)" } else { "" };
                eprintln!("{:<11}stopped{how}", part.name());
                Record::remove(dir, part)?;
            }
            Err(error) => {
                first_error = first_error.and(Err(error).with_context(|| format!("cannot stop {}", part.name())));
            }
        }
    }
    first_error.map(|()| running.len())
}

/// While a part is missing nobody should find the others through it.
pub(super) fn remove_stack_file(dir: &DataDir) -> Result<()> {
    match fs::remove_file(dir.stack_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.stack_file().display()))
        }
        _ => Ok(()),
    }
}
