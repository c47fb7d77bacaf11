//! Sends the events of a seed through `EventPublisher`, with duplicates and poison among them, and says what it sent.
//! Memory stays flat whatever the number of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_producers::{Compression, DeliveryFuture, Event, EventPublisher, PublisherConfig};
use millrace_schemas::OrderEvent;

use crate::cpu::cpu_seconds;
use crate::manifest::Manifest;
use crate::orders::{Lookups, Orders, Timeline, blank};
use crate::pacing::Pacing;
use crate::poison::Poisoner;
use crate::random::Random;
use crate::second_version::SecondVersion;
use crate::setup::{order_schema_id, plain_consumer, watermarks};
use crate::stack::{Stack, Topics};

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Seed of everything.
    pub seed: u64,
    /// Events, each at least once.
    pub events: u64,
    /// When they happen.
    pub timeline: Timeline,
    /// Duplicates as a share of the events.
    pub duplicates: f64,
    /// Unreadable records as a share of the events.
    pub poison: f64,
    /// Records per second; 0 is as fast as possible.
    pub rate: u64,
    /// Compression of batches.
    pub compression: Compression,
    /// Whether every other event (by number) is written in a second version of the schema.
    pub alternating_schemas: bool,
    /// Whether records carry a `traceparent` header: 68 bytes more of each.
    pub traceparent: bool,
}

/// How far a run is; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records handed to the client.
    pub sent: AtomicU64,
}

/// Times that the producer is "restarted" in a run with duplicates: a new session that sends its last events again.
const RESTARTS: u64 = 4;
/// A neighbour is at most so far back.
const NEIGHBOURS: u64 = 64;
/// Answers that may be outstanding before the oldest is waited for; twice what the publisher lets under way.
const ANSWERS: usize = 100_000;

/// Sends the load.
pub async fn generate(stack: &Stack, topics: &Topics, load: &Load, progress: Arc<Progress>) -> Result<Manifest> {
    let consumer = plain_consumer(stack)?;
    let (_, begin_offsets) = watermarks(&consumer, &topics.orders)?;
    ensure!(!begin_offsets.is_empty(), "topic {} is not there; run `millrace-bench reference` first", topics.orders);
    let schema_id = order_schema_id(stack, &topics.orders).await?;

    let mut config = PublisherConfig::new(&stack.kafka, &stack.registry, &topics.orders);
    config.compression = load.compression;
    config.generate_traceparent = load.traceparent;
    config.client_id = "millrace-bench".into();
    let second_version = match load.alternating_schemas {
        true => Some(SecondVersion::register(stack, &topics.orders).await?),
        false => None,
    };
    let mut sender = Sender {
        second_version,
        key: Vec::new(),
        value: Vec::new(),
        orders: Orders::new(load.seed, load.timeline),
        publisher: EventPublisher::connect(config.clone()).await?,
        config,
        answers: VecDeque::new(),
        event: blank(),
        lookups: Lookups::default(),
        delivered: 0,
        pacing: Pacing { began: Instant::now(), rate: load.rate },
        progress,
    };
    let mut poisoner = Poisoner::new(stack, &topics.orders, schema_id, load.seed)?;
    let mut again = Duplicates::new(load);
    let mut poison_choice = Random::new(load.seed ^ 0x6d69_7865, 0);

    let began = Instant::now();
    sender.pacing.began = began;
    for n in 0..load.events {
        sender.send(n).await?;
        if poison_choice.chance(load.poison) {
            poisoner.send(&sender.orders).await?;
            sender.progress.sent.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(earlier) = again.one_after(n) {
            sender.send(earlier).await?;
        }
        if let Some(block) = again.block_after(n) {
            sender.restart().await?;
            for earlier in block {
                sender.send(earlier).await?;
            }
        }
    }
    sender.finish().await?;
    let poison = poisoner.finish().await?;
    let seconds = began.elapsed().as_millis() as f64 / 1000.0;

    let (_, end_offsets) = watermarks(&consumer, &topics.orders)?;
    Ok(Manifest {
        seed: load.seed,
        events: load.events,
        timeline: load.timeline,
        topic: topics.orders.clone(),
        dead_letter_topic: topics.dead_letters.clone(),
        duplicates: again.sent,
        restarts: again.restarts,
        delivered: sender.delivered + poison.len() as u64,
        poison,
        begin_offsets,
        end_offsets,
        seconds,
        cpu_seconds: cpu_seconds(),
    })
}

struct Sender {
    orders: Orders,
    second_version: Option<SecondVersion>,
    /// Of an event in the second version.
    key: Vec<u8>,
    value: Vec<u8>,
    publisher: EventPublisher<OrderEvent>,
    config: PublisherConfig,
    /// Oldest first.
    answers: VecDeque<DeliveryFuture>,
    event: OrderEvent,
    lookups: Lookups,
    delivered: u64,
    pacing: Pacing,
    progress: Arc<Progress>,
}

impl Sender {
    async fn send(&mut self, n: u64) -> Result<()> {
        self.orders.write_event(n, &mut self.event, &mut self.lookups);
        let answer = match &self.second_version {
            Some(version) if n % 2 == 1 => {
                version.encode(&self.event, &mut self.value);
                self.key.clear();
                self.event.write_key(&mut self.key);
                self.publisher.send_encoded(&self.key, &self.value).await?
            }
            _ => self.publisher.send(&self.event).await?,
        };
        self.answers.push_back(answer);
        self.collect()?;
        if self.answers.len() > ANSWERS
            && let Some(oldest) = self.answers.pop_front()
        {
            oldest.await?;
            self.delivered += 1;
        }
        let sent = self.progress.sent.fetch_add(1, Ordering::Relaxed) + 1;
        self.pacing.wait(sent).await;
        Ok(())
    }

    /// Takes the answers that are there, up to the first that is not.
    fn collect(&mut self) -> Result<()> {
        while let Some(answer) = self.answers.front().and_then(DeliveryFuture::answer) {
            answer?;
            self.answers.pop_front();
            self.delivered += 1;
        }
        Ok(())
    }

    /// Ends the session and begins another, which the broker cannot know to be the same producer.
    async fn restart(&mut self) -> Result<()> {
        self.finish().await?;
        self.publisher = EventPublisher::connect(self.config.clone()).await?;
        Ok(())
    }

    async fn finish(&mut self) -> Result<()> {
        self.publisher.close(Duration::from_secs(120)).await?;
        self.collect()?;
        ensure!(self.answers.is_empty(), "{} events have no answer after close", self.answers.len());
        Ok(())
    }
}

/// Which events are sent again, and when. Half of the duplicates come in blocks after a restart; of the rest half are
/// neighbours and half anything that was sent before.
struct Duplicates {
    random: Random,
    share: f64,
    restart_every: u64,
    block: u64,
    sent: u64,
    restarts: u64,
}

impl Duplicates {
    fn new(load: &Load) -> Self {
        let total = (load.events as f64 * load.duplicates) as u64;
        let block = total / 2 / RESTARTS;
        Self {
            random: Random::new(load.seed ^ 0x6475_706c, 0),
            share: if block > 0 { load.duplicates / 2.0 } else { load.duplicates },
            restart_every: if block > 0 { load.events / (RESTARTS + 1) } else { 0 },
            block,
            sent: 0,
            restarts: 0,
        }
    }

    fn one_after(&mut self, n: u64) -> Option<u64> {
        if !self.random.chance(self.share) {
            return None;
        }
        self.sent += 1;
        let back = if self.random.chance(0.5) { self.random.below(NEIGHBOURS) } else { self.random.below(n + 1) };
        Some(n.saturating_sub(back))
    }

    fn block_after(&mut self, n: u64) -> Option<std::ops::RangeInclusive<u64>> {
        let due = self.restart_every > 0 && (n + 1).is_multiple_of(self.restart_every) && self.restarts < RESTARTS;
        if !due {
            return None;
        }
        let first = (n + 1).saturating_sub(self.block);
        self.restarts += 1;
        self.sent += n + 1 - first;
        Some(first..=n)
    }
}

/// The spacing that spreads so many events over so many months.
pub fn spacing_over_months(months: f64, events: u64) -> Result<u64> {
    let average_month = 365.2425 / 12.0 * 86_400e6;
    let spacing = months * average_month / events.max(1) as f64;
    ensure!(spacing.is_finite() && spacing >= 0.0, "--span-months must not be negative");
    Ok(spacing as u64)
}

/// A start such that the last event happens about now.
pub fn start_ending_now(events: u64, spacing_us: u64) -> Result<i64> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(now.as_millis() as i64 - (events as i64).saturating_mul(spacing_us as i64) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(events: u64, duplicates: f64) -> Load {
        Load {
            seed: 1,
            events,
            timeline: Timeline { start_ms: 0, spacing_us: 1000 },
            duplicates,
            poison: 0.0,
            rate: 0,
            compression: Compression::None,
            alternating_schemas: false,
            traceparent: false,
        }
    }

    #[test]
    fn duplicates_come_close_to_their_share_and_only_after_their_event() {
        let events = 200_000;
        let mut again = Duplicates::new(&load(events, 0.05));
        let (mut neighbours, mut blocks) = (0, 0);
        for n in 0..events {
            if let Some(earlier) = again.one_after(n) {
                assert!(earlier <= n);
                neighbours += u64::from(n - earlier < NEIGHBOURS);
            }
            if let Some(block) = again.block_after(n) {
                assert_eq!(*block.end(), n);
                blocks += block.count();
            }
        }
        let share = again.sent as f64 / events as f64;
        assert!((0.047..0.053).contains(&share), "{share}");
        assert_eq!((again.restarts, blocks), (RESTARTS, 5000));
        assert!((2000..3000).contains(&neighbours), "{neighbours}");
    }

    #[test]
    fn without_duplicates_nothing_is_sent_again_nor_restarted() {
        let mut again = Duplicates::new(&load(1000, 0.0));
        for n in 0..1000 {
            assert_eq!((again.one_after(n), again.block_after(n)), (None, None));
        }
        assert_eq!((again.sent, again.restarts), (0, 0));
    }

    #[test]
    fn events_spread_over_months() {
        let spacing = spacing_over_months(12.0, 1_000_000).unwrap();
        assert_eq!(spacing * 1_000_000 / 86_400_000_000, 365);
    }
}
