//! What is compared: programs or tables that land a topic in a table. One module each.

mod kafka_engine;
mod millrace;
mod plain_consumer;

use anyhow::Result;

pub(crate) use self::millrace::Millrace;
use super::kafka::Leftovers;
use super::result::Figures;
use super::spec::{Overrides, SystemName};
use super::world::{Database, Prepared, World};

/// What a system is to do in one run.
pub(crate) struct Job<'a> {
    pub(crate) world: &'a World,
    pub(crate) source: &'a Prepared,
    pub(crate) database: &'a Database,
    pub(crate) dead_letter_topic: String,
    pub(crate) group: String,
    /// Processes; or consumers in one, for a system that has no process of its own.
    pub(crate) consumers: u32,
    pub(crate) config: &'a Overrides,
    pub(crate) _leftovers: Leftovers,
}

impl<'a> Job<'a> {
    /// # Errors
    /// If Kafka refuses the topic of the dead letters.
    pub(crate) fn new(
        world: &'a World,
        source: &'a Prepared,
        database: &'a Database,
        consumers: u32,
        config: &'a Overrides,
    ) -> Result<Self> {
        let (dead_letter_topic, group, leftovers) = world.dead_letters_and_group()?;
        Ok(Self { world, source, database, dead_letter_topic, group, consumers, config, _leftovers: leftovers })
    }
}

/// A system at work; it ends when this is dropped.
pub(crate) trait System {
    /// Its processes, if it has some.
    fn pids(&self) -> Vec<u32>;

    /// # Errors
    /// If it does not run any more.
    fn check(&mut self) -> Result<()>;

    /// Records of the topic that it is done with, where it says so.
    fn settled(&self) -> Option<u64> {
        None
    }

    /// What it says of itself at the end.
    fn figures(&self) -> Figures {
        Figures::new()
    }

    /// Ends it in good order.
    ///
    /// # Errors
    /// If it does not end, or ends badly.
    fn stop(self: Box<Self>) -> Result<()>;
}

/// Starts a system on a job.
///
/// # Errors
/// If it cannot be started.
pub(crate) fn start(name: SystemName, job: &Job<'_>) -> Result<Box<dyn System>> {
    Ok(match name {
        SystemName::Millrace => Box::new(Millrace::start(job)?),
        SystemName::KafkaEngineVanilla => Box::new(kafka_engine::KafkaEngine::start(job, kafka_engine::VANILLA)?),
        SystemName::KafkaEngineTuned => Box::new(kafka_engine::KafkaEngine::start(job, kafka_engine::TUNED)?),
        SystemName::PlainConsumer => Box::new(plain_consumer::PlainConsumer::start(job)?),
    })
}

/// Whether a system remembers ids, so that duplicates make no rows.
pub(crate) fn deduplicates(name: SystemName) -> bool {
    name == SystemName::Millrace
}
