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

use self::{filter::Filter, letter::Letter};
use crate::{
    audit::{kafka::Reader, progress::Progress},
    config::{Config, Topic},
};

/// Reads dead letters of one cluster.
pub struct DeadLetterReader {
    reader: Reader,
    progress: Progress,
}

impl DeadLetterReader {
    /// A reader that waits no longer than `timeout` for anything, and gives up when told to `stop`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &Config, timeout: Duration, stop: Arc<AtomicBool>) -> Result<Self> {
        Ok(Self { reader: Reader::new(&config.kafka, "dead", timeout, stop)?, progress: Progress::default() })
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
        let ranges = self.reader.extents(letters)?;
        let total = ranges.iter().map(|(_, low, high)| high.abs_diff(*low)).sum();
        self.progress.begin(format!("dead letters of {letters}"), Some(total));
        self.reader.read(letters, &ranges, |messages| {
            self.progress.add(messages.len() as u64);
            messages.iter().map(Letter::of).filter(|letter| filter.admits(name, letter)).try_for_each(&mut each)
        })
    }

    /// The record at a place, made a letter by `make`; `None` if nothing is there, or not any more.
    fn at<T>(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        make: impl Fn(&BorrowedMessage<'_>) -> T,
    ) -> Result<Option<T>> {
        let extents = self.reader.extents(topic)?;
        let there = extents.len();
        let extent = extents.iter().find(|(other, ..)| *other == partition);
        ensure!(
            extent.is_some(),
            "topic {topic} has {there} partitions, counted from 0; there is no partition {partition}"
        );
        if extent.is_some_and(|(_, low, high)| offset < *low || offset >= *high) {
            return Ok(None);
        }
        let mut found = None;
        self.reader.read(topic, &[(partition, offset, offset + 1)], |messages| {
            found = messages.iter().find(|message| message.offset() == offset).map(&make);
            Ok(())
        })?;
        Ok(found)
    }
}
