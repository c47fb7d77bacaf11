//! Watches producers and pipeline, a line a second for each topic, until everything that was sent has landed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    child::Child,
    metrics::{self, Landed},
    topic::Topic,
};
use crate::interrupt::Interrupt;

const LOOK: Duration = Duration::from_millis(100);
const SAY: Duration = Duration::from_secs(1);
/// Nothing landing for this long while something is missing is a failure.
const STALLED: Duration = Duration::from_secs(60);
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What is known so far.
pub(super) struct Watch {
    events: u64,
    interrupt: Interrupt,
    feeds: Vec<Feed>,
}

/// One topic, and what was sent to it.
struct Feed {
    topic: Topic,
    sent: u64,
    /// Records sent in all, once the producer has said so.
    total: Option<u64>,
    landed: Landed,
    said_settled: u64,
}

impl Watch {
    /// Topics to each of which about so many events are sent; producers are given in their order.
    pub(super) fn new(topics: &[Topic], events: u64, interrupt: Interrupt) -> Self {
        let feed = |&topic| Feed { topic, sent: 0, total: None, landed: Landed::default(), said_settled: 0 };
        Self { events, interrupt, feeds: topics.iter().map(feed).collect() }
    }

    /// What has landed of each topic, in their order.
    pub(super) fn landed(&self) -> Vec<Landed> {
        self.feeds.iter().map(|feed| feed.landed.clone()).collect()
    }

    /// Waits for the producers' end.
    pub(super) fn until_sent(&mut self, producers: &mut [Child]) -> Result<()> {
        let mut said = Instant::now();
        while self.feeds.iter().any(|feed| feed.total.is_none()) {
            self.pause()?;
            self.look_at_producers(producers)?;
            if said.elapsed() >= SAY {
                said = Instant::now();
                for feed in &self.feeds {
                    println!("      {:<8} produced {:>10}  of about {}", feed.topic.name(), feed.sent, self.events);
                }
            }
        }
        for feed in &self.feeds {
            println!("      {:<8} produced {:>10}", feed.topic.name(), feed.sent);
        }
        Ok(())
    }

    /// Waits until the pipeline would process an event.
    pub(super) fn until_ready(&mut self, pipeline: &Child) -> Result<()> {
        let begin = Instant::now();
        while !metrics::url(&pipeline.log()).is_some_and(|url| metrics::ready(&url)) {
            self.pause()?;
            if begin.elapsed() > READY_WITHIN {
                bail!("millrace is not ready after {READY_WITHIN:?}; its log:\n{}", pipeline.log());
            }
        }
        Ok(())
    }

    /// Waits until every record that was sent is a row, a dropped duplicate or a dead letter.
    pub(super) fn until_landed(&mut self, pipeline: &Child, producers: &mut [Child]) -> Result<()> {
        let (mut said, mut moved) = (Instant::now(), Instant::now());
        while self.feeds.iter().any(Feed::is_behind) {
            self.pause()?;
            self.look_at_producers(producers)?;
            let before = self.settled();
            if let Some(mut landed) = metrics::url(&pipeline.log()).and_then(|url| metrics::read(&url).ok()) {
                for feed in &mut self.feeds {
                    feed.landed = landed.remove(feed.topic.name()).unwrap_or_default();
                }
            }
            if self.settled() > before {
                moved = Instant::now();
            }
            if moved.elapsed() > STALLED {
                bail!("nothing has landed for {STALLED:?}; the log of millrace:\n{}", pipeline.log());
            }
            if said.elapsed() >= SAY {
                let seconds = said.elapsed().as_secs_f64();
                said = Instant::now();
                self.feeds.iter_mut().for_each(|feed| feed.say(seconds));
            }
        }
        Ok(())
    }

    fn settled(&self) -> u64 {
        self.feeds.iter().map(|feed| feed.landed.settled()).sum()
    }

    fn pause(&self) -> Result<()> {
        thread::sleep(LOOK);
        self.interrupt.check()
    }

    fn look_at_producers(&mut self, producers: &mut [Child]) -> Result<()> {
        for (feed, producer) in self.feeds.iter_mut().zip(producers).filter(|(feed, _)| feed.total.is_none()) {
            let ended = producer.ended()?;
            let log = producer.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(sent) = lines.filter_map(|line| line["sent"].as_u64()).next_back() {
                feed.sent = sent;
            }
            feed.total = ended.then_some(feed.sent);
        }
        Ok(())
    }
}

impl Feed {
    fn is_behind(&self) -> bool {
        self.total.is_none_or(|total| self.landed.settled() < total)
    }

    fn say(&mut self, seconds: f64) {
        let settled = self.landed.settled();
        let rate = (settled - self.said_settled) as f64 / seconds;
        self.said_settled = settled;
        println!(
            "      {:<8} produced {:>10}  landed {settled:>10}  behind {:>9}  {rate:>8.0}/s  freshness p50 {:>6} ms  p99 {:>6} ms",
            self.topic.name(),
            self.sent,
            self.sent.saturating_sub(settled),
            self.landed.freshness_ms(0.5),
            self.landed.freshness_ms(0.99),
        );
    }
}
