//! Starting the parts that do not run as they should, and waiting until every one of them answers.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::install::{Cache, Software};
use super::layout::DataDir;
use super::part::{Launch, Part};
use super::ports::Ports;
use super::process::{self, Identity, Record};
use super::recovery::{self, Decision, Found, READY_LIMIT};
use super::stop::{STOP_GRACE, remove_stack_file, stop_parts};
use super::{Started, clickhouse, kafka, prometheus, registry};
use crate::interrupt::Interrupt;

/// How long a part that was found running may take to answer before it counts as hung.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(50);
/// How much of its log is quoted when a part fails.
const LOG_LINES: usize = 20;

/// All that the parts of one instance are made from.
pub(super) struct Site<'a> {
    pub(super) dir: &'a DataDir,
    pub(super) ports: Ports,
    pub(super) cache: &'a Cache,
    pub(super) java: &'a Path,
    pub(super) prometheus: Option<&'a Path>,
    /// See [`super::Options`].
    pub(super) measured: bool,
}

/// A part that does not answer yet.
struct Waiting {
    part: Part,
    identity: Identity,
    since: Instant,
}

impl Site<'_> {
    /// Returns a guard over those that it has started, once all are ready.
    pub(super) fn start(&self, parts: &[Part], interrupt: &Interrupt) -> Result<Started> {
        let mut started = Started { dir: self.dir.clone(), parts: Vec::new() };
        let mut waiting = Vec::new();
        for part in parts.iter().copied() {
            interrupt.check()?;
            let launch = self.launch(part)?;
            let record = Record::load(self.dir, part)?;
            let found = Found::new(record.as_ref(), &launch, || self.answers(part));
            let decision = recovery::decide(&found, STOP_GRACE);
            if decision == Decision::Keep {
                continue;
            }
            // Listed before anything is done: dropping the guard then stops it, however far we come.
            started.parts.push(part);
            remove_stack_file(self.dir)?;
            let identity = match (decision, record) {
                (Decision::Wait, Some(record)) => {
                    say(part, "is starting already");
                    record.identity
                }
                (Decision::Replace(reason, grace), _) => {
                    say(part, &format!("{reason}; starting it again"));
                    stop_parts(self.dir, &[part], grace)?;
                    self.spawn(&launch)?
                }
                _ => self.spawn(&launch)?,
            };
            waiting.push(Waiting { part, identity, since: Instant::now() });
        }
        while !waiting.is_empty() {
            interrupt.check()?;
            let mut still = Vec::new();
            for one in waiting {
                if !self.ready(&one)? {
                    still.push(one);
                }
            }
            waiting = still;
            thread::sleep(POLL);
        }
        Ok(started)
    }

    fn launch(&self, part: Part) -> Result<Launch> {
        let kafka = self.cache.folder(Software::Kafka);
        let apicurio = self.cache.folder(Software::Apicurio);
        match part {
            Part::Kafka => kafka::prepare(self.dir, &self.ports, self.java, &kafka, self.measured),
            Part::Registry => registry::prepare(self.dir, "127.0.0.1", &self.ports, self.java, &apicurio),
            Part::ClickHouse => clickhouse::prepare(self.dir, &self.ports, &self.cache.libchdb()),
            Part::Prometheus => {
                let program = self.prometheus.context("prometheus is not installed")?;
                prometheus::prepare(self.dir, &self.ports, program)
            }
        }
    }

    fn spawn(&self, launch: &Launch) -> Result<Identity> {
        let identity = process::spawn(self.dir, launch)?;
        say(launch.part, &format!("starting, pid {}", identity.pid));
        Ok(identity)
    }

    fn ready(&self, one: &Waiting) -> Result<bool> {
        let answer = probe(self.dir, &self.ports, one.part);
        let name = one.part.name();
        let log = self.dir.log(one.part);
        let tail = || format!("{} ends with\n{}", log.display(), process::log_tail(&log, LOG_LINES));
        // Asked after the probe: an answer counts only if it came from this process, not from a stranger on its port.
        ensure!(one.identity.alive(), "{name} ended while it started; {}", tail());
        let Err(problem) = answer else {
            say(one.part, &format!("ready after {:.1} s", one.since.elapsed().as_secs_f64()));
            return Ok(true);
        };
        if one.since.elapsed() > READY_LIMIT {
            bail!("{name} is not ready after {READY_LIMIT:?}: {problem:#}; {}", tail());
        }
        Ok(false)
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

fn say(part: Part, what: &str) {
    eprintln!("{:<11}{what}", part.name());
}

/// Whether a part does its work now.
pub(super) fn probe(dir: &DataDir, ports: &Ports, part: Part) -> Result<()> {
    match part {
        Part::Kafka => kafka::probe(ports),
        Part::Registry => registry::probe(ports),
        Part::ClickHouse => clickhouse::probe(dir, ports),
        Part::Prometheus => prometheus::probe(ports),
    }
}
