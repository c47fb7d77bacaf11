//! `millrace dead`: reads the dead-letter topics for people. It writes nothing, joins no group and commits nothing, so that
//! it may run beside a live pipeline.

pub mod filter;
pub mod letter;
pub mod list;
pub mod show;
pub mod walk;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Result, ensure};
use rdkafka::{Message, message::BorrowedMessage};

use self::{
    filter::Filter,
    letter::{Letter, Place},
};
use crate::{
    audit::{kafka::Reader, progress::Progress},
    config::{Config, Kafka, Topic},
};

/// Reads dead letters of one cluster.
pub struct DeadLetterReader {
    kafka: Kafka,
    timeout: Duration,
    stop: Arc<AtomicBool>,
    progress: Progress,
}

impl DeadLetterReader {
    /// A reader that waits no longer than `timeout` for anything, and gives up when told to `stop`.
    pub fn new(config: &Config, timeout: Duration, stop: Arc<AtomicBool>) -> Self {
        Self { kafka: config.kafka.clone(), timeout, stop, progress: Progress::default() }
    }

    /// How far it is, to be told of while it reads.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Hands over the dead letters of `topic` that `filter` means and that are there now, in the order of each partition.
    /// Without a filter, records that somebody else or another topic has left there are among them. Blocks.
    ///
    /// # Errors
    /// When the topic does not exist, Kafka is silent for too long or refuses, or the error of `each`.
    pub fn read(&self, topic: &Topic, filter: &Filter, mut each: impl FnMut(Letter) -> Result<()>) -> Result<()> {
        let (name, letters) = (&topic.spec.topic, &topic.dead_letter_topic);
        let reader = self.reader(topic)?;
        let ranges = reader.extents(letters)?;
        let total = ranges.iter().map(|(_, low, high)| high.abs_diff(*low)).sum();
        self.progress.begin(format!("dead letters of {letters}"), Some(total));
        reader.read(letters, &ranges, |messages| {
            self.progress.add(messages.len() as u64);
            messages.iter().map(Letter::of).filter(|letter| filter.admits(name, letter)).try_for_each(&mut each)
        })
    }

    fn reader(&self, topic: &Topic) -> Result<Reader> {
        Reader::new(&topic.kafka(&self.kafka), "dead", self.timeout, Arc::clone(&self.stop))
    }

    /// The record at a place of `name`, the topic's own or that of its dead letters, made a letter by `make`; `None` if
    /// nothing is there, or not any more.
    fn at<T>(
        &self,
        topic: &Topic,
        Place { topic: name, partition, offset }: &Place,
        make: impl Fn(&BorrowedMessage<'_>) -> T,
    ) -> Result<Option<T>> {
        let reader = self.reader(topic)?;
        let extents = reader.extents(name)?;
        let there = extents.len();
        let extent = extents.iter().find(|(other, ..)| other == partition);
        ensure!(
            extent.is_some(),
            "topic {name} has {there} partitions, counted from 0; there is no partition {partition}"
        );
        if extent.is_some_and(|(_, low, high)| offset < low || offset >= high) {
            return Ok(None);
        }
        let mut found = None;
        reader.read(name, &[(*partition, *offset, offset + 1)], |messages| {
            found = messages.iter().find(|message| message.offset() == *offset).map(&make);
            Ok(())
        })?;
        Ok(found)
    }
}
