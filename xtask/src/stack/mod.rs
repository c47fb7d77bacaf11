//! The stack: Kafka, a schema registry, ClickHouse and Prometheus as plain processes on loopback, without Docker.
//!
//! [`Stack::up`] brings an instance up, whatever state an earlier run left it in, and returns a guard: unless
//! [`Stack::keep`] is called, dropping it stops what it started (and nothing that was running before).
//!
//! An instance is a data folder; two instances share nothing but the installed software.

pub(crate) mod cli;
mod clickhouse;
mod fetch;
mod file;
mod http;
mod install;
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
mod status;
mod tools;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::file::StackFile;
use self::install::{Cache, Software};
pub(crate) use self::layout::DataDir;
use self::part::{Launch, Part};
use self::ports::Ports;
use self::process::{Identity, Record, Stopped};
use self::recovery::{Decision, Found};
use crate::interrupt::Interrupt;

/// How long a part may take until it serves: Kafka after a kill -9 on a busy machine is the slowest.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long a part that was found running may take to answer before it counts as hung.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a part may take to stop by itself; ClickHouse's launcher gives its child 20 s.
const STOP_GRACE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// What to bring up, and how.
#[derive(Debug)]
pub(crate) struct Options {
    /// The data folder of the instance, see [`DataDir::path_in_clone`].
    pub(crate) dir: PathBuf,
    /// Wipe its data first.
    pub(crate) fresh: bool,
    /// Install missing tools with apt-get if we may.
    pub(crate) install_missing: bool,
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
            stop_parts(&dir, &Part::ALL)?;
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
        let site = Site { dir: &dir, ports, cache: &cache, java: &java, prometheus: prometheus.as_deref() };
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
}

impl Started {
    fn stop(&mut self) -> Result<()> {
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            return Ok(());
        }
        stop_parts(&self.dir, &parts).map(drop)
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
    if stop_parts(&dir, &Part::ALL)? == 0 {
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

/// All that the parts of one instance are made from.
struct Site<'a> {
    dir: &'a DataDir,
    ports: Ports,
    cache: &'a Cache,
    java: &'a Path,
    prometheus: Option<&'a Path>,
}

impl Site<'_> {
    fn launch(&self, part: Part) -> Result<Launch> {
        let kafka = self.cache.folder(Software::Kafka);
        let apicurio = self.cache.folder(Software::Apicurio);
        match part {
            Part::Kafka => kafka::prepare(self.dir, &self.ports, self.java, &kafka),
            Part::Registry => registry::prepare(self.dir, &self.ports, self.java, &apicurio),
            Part::ClickHouse => clickhouse::prepare(self.dir, &self.ports, &self.cache.libchdb()),
            Part::Prometheus => {
                let program = self.prometheus.context("prometheus is not installed")?;
                prometheus::prepare(self.dir, &self.ports, program)
            }
        }
    }

    /// Starts those that do not run as they should, and waits until all are ready.
    fn start(&self, parts: &[Part], interrupt: &Interrupt) -> Result<Started> {
        let begin = Instant::now();
        let mut started = Started { dir: self.dir.clone(), parts: Vec::new() };
        let mut waiting = Vec::new();
        for part in parts.iter().copied() {
            interrupt.check()?;
            let launch = self.launch(part)?;
            let record = Record::load(self.dir, part)?;
            let found = Found::new(record.as_ref(), &launch, || self.answers(part));
            match recovery::decide(&found) {
                Decision::Keep => continue,
                Decision::Start => {}
                Decision::Replace(reason) => {
                    eprintln!("{:<11}{reason}; starting it again", part.name());
                    stop_parts(self.dir, &[part])?;
                }
            }
            remove_stack_file(self.dir)?;
            // Listed before it is started: if that fails half-way, dropping the guard still stops it.
            started.parts.push(part);
            let identity = process::spawn(self.dir, &launch)?;
            eprintln!("{:<11}starting, pid {}", part.name(), identity.pid);
            waiting.push((part, identity));
        }
        while !waiting.is_empty() {
            interrupt.check()?;
            self.check_waiting(&mut waiting, begin)?;
            thread::sleep(POLL);
        }
        Ok(started)
    }

    /// Takes those that have become ready off the list.
    fn check_waiting(&self, waiting: &mut Vec<(Part, Identity)>, begin: Instant) -> Result<()> {
        let mut still = Vec::new();
        for (part, identity) in waiting.drain(..) {
            let problem = match probe(self.dir, &self.ports, part) {
                Ok(()) => {
                    let seconds = begin.elapsed().as_secs_f64();
                    eprintln!("{:<11}ready after {seconds:.1} s", part.name());
                    continue;
                }
                Err(problem) => problem,
            };
            let log = self.dir.log(part);
            if !identity.alive() {
                let tail = process::log_tail(&log, 20);
                bail!("{} ended while it started; {} ends with\n{tail}", part.name(), log.display());
            }
            if begin.elapsed() > READY_LIMIT {
                let tail = process::log_tail(&log, 20);
                let name = part.name();
                bail!("{name} is not ready after {READY_LIMIT:?}: {problem:#}; {} ends with\n{tail}", log.display());
            }
            still.push((part, identity));
        }
        *waiting = still;
        Ok(())
    }

    fn answers(&self, part: Part) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < ANSWER_LIMIT {
            if probe(self.dir, &self.ports, part).is_ok() {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }
}

/// Whether a part does its work now.
fn probe(dir: &DataDir, ports: &Ports, part: Part) -> Result<()> {
    match part {
        Part::Kafka => kafka::probe(ports),
        Part::Registry => registry::probe(ports),
        Part::ClickHouse => clickhouse::probe(dir, ports),
        Part::Prometheus => prometheus::probe(ports),
    }
}

/// Stops parts, all at once, and returns how many were running.
fn stop_parts(dir: &DataDir, parts: &[Part]) -> Result<usize> {
    remove_stack_file(dir)?;
    let mut running = Vec::new();
    for part in parts {
        match Record::load_alive(dir, *part)? {
            Some(record) => running.push((*part, record.identity)),
            None => Record::remove(dir, *part)?,
        }
    }
    let results: Vec<(Part, Result<Stopped>)> = thread::scope(|scope| {
        let stops: Vec<_> = running
            .iter()
            .map(|(part, identity)| (*part, scope.spawn(|| process::stop(identity, STOP_GRACE))))
            .collect();
        let join = |(part, stop): (Part, thread::ScopedJoinHandle<'_, Result<Stopped>>)| {
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

fn remove_stack_file(dir: &DataDir) -> Result<()> {
    match fs::remove_file(dir.stack_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.stack_file().display()))
        }
        _ => Ok(()),
    }
}
