//! The stack: Kafka, a schema registry, ClickHouse and Prometheus as plain processes on loopback, without Docker.
//!
//! [`Stack::up`] brings an instance up, whatever state an earlier run left it in, and returns a guard: unless
//! [`Stack::keep`] is called, dropping it stops what it started (and nothing that was running before).
//!
//! An instance is a data folder; two instances share nothing but the installed software.

pub(crate) mod cli;
mod clickhouse;
pub(crate) mod cluster;
pub(crate) mod fetch;
mod file;
pub(crate) mod http;
pub(crate) mod install;
mod kafka;
mod layout;
mod manifest;
mod part;
mod ports;
mod proc_table;
pub(crate) mod process;
mod prometheus;
mod recovery;
mod registry;
mod secured;
mod start;
mod status;
mod stop;
pub(crate) mod tools;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) use self::file::StackFile;
use self::install::Cache;
pub(crate) use self::layout::{DataDir, clone_root};
use self::part::Part;
use self::ports::Ports;
use self::process::Record;
pub(crate) use self::prometheus::scrape;
use self::start::Site;
use self::stop::{STOP_GRACE, stop_parts};
use crate::interrupt::Interrupt;

/// What to bring up, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// The data folder of the instance, see [`DataDir::path_in_clone`].
    pub(crate) dir: PathBuf,
    /// Wipe its data first.
    pub(crate) fresh: bool,
    /// Install missing tools with apt-get if we may.
    pub(crate) install_missing: bool,
    /// Let Kafka's compiler optimise, which pays only where it is measured for minutes.
    pub(crate) measured: bool,
    pub(crate) interrupt: Interrupt,
}

/// A running stack; stops what it started when dropped.
#[derive(Debug)]
pub(crate) struct Stack {
    dir: DataDir,
    file: StackFile,
    started: Started,
}

/// The parts that this process has started, stopped when dropped.
#[derive(Debug)]
struct Started {
    dir: DataDir,
    parts: Vec<Part>,
}

impl Stack {
    /// Installs what is missing, starts what does not run, and returns when every part answers.
    ///
    /// # Errors
    /// If a tool is missing, a part does not come up (with the last lines of its log), or Ctrl-C comes. What was started
    /// is stopped again then.
    pub(crate) fn up(options: &Options) -> Result<Self> {
        let dir = DataDir::open(&options.dir)?;
        let _lock = lock(&dir, &options.interrupt)?;
        if options.fresh {
            stop_parts(&dir, &Part::ALL, STOP_GRACE)?;
            dir.wipe()?;
        }
        let dir = DataDir::open(&options.dir)?;
        let (cache, java) = install_software(options)?;
        let prometheus = tools::find("prometheus");
        if prometheus.is_none() {
            eprintln!("prometheus is not installed; the stack does without (Debian package: prometheus)");
        }
        let parts: Vec<Part> =
            Part::ALL.into_iter().filter(|part| *part != Part::Prometheus || prometheus.is_some()).collect();

        let ports = choose_ports(&dir)?;
        let measured = options.measured;
        let site = Site { dir: &dir, ports, cache: &cache, java: &java, prometheus: prometheus.as_deref(), measured };
        let started = site.start(&parts, &options.interrupt)?;
        clickhouse::create_database(&dir, &ports)?;
        let file = StackFile::new(&dir, &ports, prometheus.is_some());
        file.save(&dir)?;
        Ok(Self { dir, file, started })
    }

    /// Addresses and users, as in the file at [`Stack::path`].
    pub(crate) fn file(&self) -> &StackFile {
        &self.file
    }

    /// The file that tells other programs where the parts are.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.stack_file()
    }

    /// Whether everything was running already.
    pub(crate) fn was_up(&self) -> bool {
        self.started.parts.is_empty()
    }

    /// Leaves it running when this process ends.
    pub(crate) fn keep(mut self) {
        self.started.parts.clear();
    }

    /// Stops what this guard started, and says what went wrong, which dropping cannot.
    ///
    /// # Errors
    /// If a part cannot be stopped.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.started.stop()
    }

    /// Stops what this guard started and removes its data.
    ///
    /// # Errors
    /// If a part cannot be stopped or data cannot be removed.
    pub(crate) fn discard(mut self) -> Result<()> {
        self.started.stop()?;
        self.dir.wipe()
    }
}

impl Started {
    fn stop(&mut self) -> Result<()> {
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return Ok(());
        }
        stop_parts(&self.dir, &parts, STOP_GRACE).map(drop)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("cannot stop the stack: {error:#}");
        }
    }
}

/// Stops every part of an instance, and removes its data if `wipe`.
///
/// # Errors
/// If a part cannot be stopped or data cannot be removed.
pub(crate) fn down(path: &Path, wipe: bool, interrupt: &Interrupt) -> Result<()> {
    if !path.exists() {
        eprintln!("nothing to stop: there is no {}", path.display());
        return Ok(());
    }
    let dir = DataDir::open(path)?;
    let _lock = lock(&dir, interrupt)?;
    if stop_parts(&dir, &Part::ALL, STOP_GRACE)? == 0 {
        eprintln!("nothing was running");
    }
    if wipe {
        dir.wipe()?;
        eprintln!("data removed");
    }
    Ok(())
}

fn lock(dir: &DataDir, interrupt: &Interrupt) -> Result<fs::File> {
    install::lock(&dir.lock_file(), interrupt, || {
        eprintln!("another command is changing this stack; waiting for it");
    })
}

fn install_software(options: &Options) -> Result<(Cache, PathBuf)> {
    let cache = Cache::of_user()?;
    let missing = cache.missing()?;
    let java = tools::require(!missing.is_empty(), options.install_missing)?;
    for (software, _) in missing {
        cache.install(software, &options.interrupt)?;
    }
    Ok((cache, java))
}

fn choose_ports(dir: &DataDir) -> Result<Ports> {
    let earlier = Ports::load(dir)?;
    let mut kept = Vec::new();
    if let Some(earlier) = earlier {
        // A proxy may listen there while the broker behind it is down.
        kept.push(earlier.kafka_proxy);
        for part in Part::ALL {
            if Record::load_alive(dir, part)?.is_some() {
                kept.extend(earlier.of(part));
            }
        }
    }
    let ports = Ports::choose(earlier, |port| kept.contains(&port))?;
    ports.save(dir)?;
    Ok(ports)
}
