//! What a scenario has for itself on the stack: topics, databases, a folder. All of it is dropped with its guards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::child::{Child, program};
use super::http::ClickHouse;
use super::interrupt::Interrupt;
use super::kafka::{Leftovers, create_topic, wait_for};
use super::spec::{Load, LoadShape};
use crate::manifest::Manifest;
use crate::setup::reference;
use crate::stack::{Stack, Topics};
use crate::verify::verify;

/// Of events, customers and products: the figures of all runs are of the same data.
pub(crate) const SEED: u64 = 1;
/// Of events that come after those.
pub(crate) const BACKLOG_SEED: u64 = 2;
/// For writing a topic: 20 million events take some three minutes.
const FILLED_WITHIN: Duration = Duration::from_secs(1800);

/// The stack, and what is made on it for one scenario.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) stack_file: PathBuf,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) interrupt: Interrupt,
    folder: PathBuf,
    unique: String,
    names: AtomicU32,
}

/// Topics with customers and products in them.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) prefix: String,
    pub(crate) topics: Topics,
    _leftovers: Leftovers,
}

/// The same with events, and what was sent.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) prepared: Prepared,
    pub(crate) manifest: Manifest,
}

/// A database with the shipped tables.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) name: String,
    clickhouse: ClickHouse,
}

impl World {
    /// # Errors
    /// If the stack does not run, or no folder can be made beside its file.
    pub(crate) fn new(scenario: &str, stack_file: &Path, interrupt: Interrupt) -> Result<Self> {
        let stack_file = stack_file.canonicalize().with_context(|| format!("find {}", stack_file.display()))?;
        let stack = Stack::read(&stack_file)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        let unique = format!("{scenario}_{:x}", now.as_millis());
        let folder = stack_file.with_file_name("bench").join(&unique);
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let clickhouse = ClickHouse::new(&stack)?;
        Ok(Self { stack, stack_file, clickhouse, interrupt, folder, unique, names: AtomicU32::new(0) })
    }

    /// A file in the scenario's folder, which stays behind for people to look at until the stack is wiped.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A name that nothing else has.
    pub(crate) fn name(&self, what: &str) -> String {
        format!("{what}_{}_{}", self.unique, self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes the topics of a load, and publishes customers and products.
    ///
    /// # Errors
    /// If Kafka or the registry refuses.
    pub(crate) fn prepare(&self, shape: &LoadShape) -> Result<Prepared> {
        let prefix = format!("{}-", self.name("bench"));
        let topics = Topics::new(&prefix);
        let mut leftovers = Leftovers::new(&self.stack);
        let Topics { orders, dead_letters, customers, products } = &topics;
        leftovers.add_topics([orders, dead_letters, customers, products].map(String::clone));
        wait_for(reference(&self.stack, &topics, SEED, shape.partitions, |_| ()))??;
        Ok(Prepared { prefix, topics, _leftovers: leftovers })
    }

    /// `millrace-bench generate` into these topics, and the manifest that it will write.
    ///
    /// # Errors
    /// If the program is not there.
    pub(crate) fn generator(&self, to: &Prepared, load: &Load, seed: u64, rate: u64) -> Result<(Command, PathBuf)> {
        let manifest = self.file(&format!("{}.json", self.name("manifest")));
        let mut command = Command::new(program("millrace-bench")?);
        command.arg("generate").arg("--stack").arg(&self.stack_file).args(["--topic-prefix", &to.prefix]);
        command.args(["--seed", &seed.to_string(), "--events", &load.events.to_string(), "--rate", &rate.to_string()]);
        let LoadShape { duplicates, poison, compression, schemas, traced, partitions: _ } = &load.shape;
        command.args(["--duplicates", &duplicates.to_string(), "--poison", &poison.to_string()]);
        command.args(["--compression", compression]);
        if let Some(schemas) = schemas {
            command.args(["--schemas", schemas]);
        }
        if let Some(traced) = traced {
            command.args(["--traced", &traced.to_string()]);
        }
        command.arg("--manifest").arg(&manifest);
        Ok((command, manifest))
    }

    /// Writes a load into topics of its own.
    ///
    /// # Errors
    /// If a part refuses, or the generator fails.
    pub(crate) fn fill(&self, load: &Load) -> Result<Filled> {
        let prepared = self.prepare(&load.shape)?;
        let manifest = self.send(&prepared, load, SEED)?;
        Ok(Filled { prepared, manifest })
    }

    /// Sends the events of a seed as fast as it goes; what was sent.
    ///
    /// # Errors
    /// If the generator fails.
    pub(crate) fn send(&self, to: &Prepared, load: &Load, seed: u64) -> Result<Manifest> {
        let (command, manifest) = self.generator(to, load, seed, 0)?;
        let child = Child::start(command, &manifest.with_extension("log"))?;
        self.interrupt.until("the topic is filled", FILLED_WITHIN, || Ok(child.has_ended().then_some(())))?;
        child.finish(Duration::from_secs(5))?;
        Manifest::read(&manifest)
    }

    /// `millrace-bench replay` of a topic into these topics, at a pace.
    ///
    /// # Errors
    /// If the program is not there.
    pub(crate) fn replayer(&self, from: &Prepared, to: &Prepared, rate: u64) -> Result<Command> {
        let mut command = Command::new(program("millrace-bench")?);
        command.arg("replay").arg("--stack").arg(&self.stack_file).args(["--topic-prefix", &to.prefix]);
        command.args(["--from", &from.topics.orders, "--rate", &rate.to_string()]);
        Ok(command)
    }

    /// A new database with the shipped tables; the pipeline's user has its rights in every database with this prefix.
    ///
    /// # Errors
    /// If ClickHouse refuses.
    pub(crate) fn database(&self) -> Result<Database> {
        let name = self.name("millrace_test_bench");
        self.clickhouse.ask("system", &format!("CREATE DATABASE {name}"))?;
        let database = Database { name, clickhouse: self.clickhouse.clone() };
        // Tables only: what rollups cost is measured by itself.
        let tables = millrace_schemas::CLICKHOUSE_DDL.iter().filter(|(_, sql)| sql.contains("\nCREATE TABLE "));
        for (_, statement) in tables {
            self.clickhouse.ask(&database.name, statement)?;
        }
        Ok(database)
    }

    /// A topic for the dead letters of one run, and a group for it; both go with the guard.
    ///
    /// # Errors
    /// If Kafka refuses.
    pub(crate) fn dead_letters_and_group(&self) -> Result<(String, String, Leftovers)> {
        let (topic, group) = (self.name("dead"), self.name("group"));
        create_topic(&self.stack, &topic, 1)?;
        let mut leftovers = Leftovers::new(&self.stack);
        leftovers.add_topics([topic.clone()]);
        leftovers.add_group(&group);
        Ok((topic, group, leftovers))
    }

    /// Compares every row and dead letter with what was sent.
    ///
    /// # Errors
    /// If they cannot be read.
    pub(crate) fn verify(&self, manifest: &Manifest, database: &Database) -> Result<crate::verify::Verdict> {
        let stack = Stack { database: database.name.clone(), ..self.stack.clone() };
        wait_for(verify(&stack, manifest, "orders"))?
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Err(error) = self.clickhouse.ask("system", &format!("DROP DATABASE IF EXISTS {} SYNC", self.name)) {
            eprintln!("left in ClickHouse: database {}: {error:#}", self.name);
        }
    }
}
