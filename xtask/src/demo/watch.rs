//! Watches producer and pipeline, a line a second, until everything that was sent has landed.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use serde_json::Value;

use super::{
    child::Child,
    metrics::{self, Landed},
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
    sent: u64,
    /// Records sent in all, once the producer has said so.
    total: Option<u64>,
    landed: Landed,
}

impl Watch {
    pub(super) fn new(events: u64, interrupt: Interrupt) -> Self {
        Self { events, interrupt, sent: 0, total: None, landed: Landed::default() }
    }

    pub(super) fn landed(&self) -> Landed {
        self.landed.clone()
    }

    /// Waits for the producer's end.
    pub(super) fn until_sent(&mut self, producer: &mut Child) -> Result<()> {
        let mut said = Instant::now();
        while self.total.is_none() {
            self.pause()?;
            self.look_at_producer(producer)?;
            if said.elapsed() >= SAY {
                said = Instant::now();
                println!("      produced {:>10}  of about {}", self.sent, self.events);
            }
        }
        println!("      produced {:>10}", self.sent);
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
    pub(super) fn until_landed(&mut self, pipeline: &Child, mut producer: Option<&mut Child>) -> Result<()> {
        let (mut said, mut moved) = (Instant::now(), Instant::now());
        let mut said_settled = 0;
        while self.total.is_none_or(|total| self.landed.settled() < total) {
            self.pause()?;
            if let Some(producer) = producer.as_deref_mut() {
                self.look_at_producer(producer)?;
            }
            let before = self.landed.settled();
            if let Some(landed) = metrics::url(&pipeline.log()).and_then(|url| metrics::read(&url).ok()) {
                self.landed = landed;
            }
            if self.landed.settled() > before {
                moved = Instant::now();
            }
            if moved.elapsed() > STALLED {
                bail!("nothing has landed for {STALLED:?}; the log of millrace:\n{}", pipeline.log());
            }
            if said.elapsed() >= SAY {
                let settled = self.landed.settled();
                let rate = (settled - said_settled) as f64 / said.elapsed().as_secs_f64();
                (said, said_settled) = (Instant::now(), settled);
                println!(
                    "      produced {:>10}  landed {settled:>10}  behind {:>9}  {rate:>8.0}/s  freshness p50 {:>6} ms  p99 {:>6} ms",
                    self.sent,
                    self.sent.saturating_sub(settled),
                    self.landed.freshness_ms(0.5),
                    self.landed.freshness_ms(0.99),
                );
            }
        }
        Ok(())
    }

    fn pause(&self) -> Result<()> {
        thread::sleep(LOOK);
        self.interrupt.check()
    }

    fn look_at_producer(&mut self, producer: &mut Child) -> Result<()> {
        if self.total.is_some() {
            return Ok(());
        }
        let ended = producer.ended()?;
        let log = producer.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(sent) = lines.filter_map(|line| line["sent"].as_u64()).next_back() {
            self.sent = sent;
        }
        if ended {
            self.total = Some(self.sent);
        }
        Ok(())
    }
}
