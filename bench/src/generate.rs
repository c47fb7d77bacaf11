//! Sends the events of a seed through `EventPublisher`, with duplicates and poison among them, and says what it sent.
//! Memory stays flat whatever the number of events.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use millrace_producers::{Compression, DeliveryFuture, Event, EventPublisher, PublisherConfig};
use millrace_schemas::{OrderEvent, golden};
use opentelemetry_sdk::trace::SdkTracerProvider;

use crate::cpu::cpu_seconds;
use crate::events::{Events, OrderEvents, PaymentEvents};
use crate::manifest::{Kind, Manifest};
use crate::orders::{Orders, Timeline};
use crate::pacing::Pacing;
use crate::payments::Payments;
use crate::poison::Poisoner;
use crate::random::Random;
use crate::second_version::SecondVersion;
use crate::setup::{order_schema_id, payment_schema_id, plain_consumer, watermarks};
use crate::stack::{PaymentTopics, Stack, Topics};

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Seed of everything.
    pub seed: u64,
    /// Number of the first event that is sent; those before it an earlier run has sent.
    pub first: u64,
    /// Events, each at least once, those of the earlier run among them.
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
    /// Which versions of the schema events are written in; payments have one only.
    pub schemas: Versions,
    /// Whether records carry a `traceparent` header: 68 bytes more of each.
    pub traceparent: bool,
    /// Share of the events that begin a trace, whose `traceparent` says so; their spans are made and go nowhere.
    pub traced: f64,
}

/// Which versions of the order schema events are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// Version 1.
    First,
    /// Version 2.
    Second,
    /// Every other event, by number, in version 2.
    Alternating,
}

/// How far a run is; shared with whoever shows it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records handed to the client.
    pub sent: AtomicU64,
    /// Whether somebody wants it to end early: after the event that it is at, with a manifest of what was sent by then.
    pub ends: Arc<AtomicBool>,
}

/// Times that the producer is "restarted" in a run with duplicates: a new session that sends its last events again.
const RESTARTS: u64 = 4;
/// A neighbour is at most so far back.
const NEIGHBOURS: u64 = 64;
/// Answers that may be outstanding before the oldest is waited for; twice what the publisher lets under way.
const ANSWERS: usize = 100_000;

/// Where a kind of events goes, and what its unreadable records are.
struct Way<'a> {
    kind: Kind,
    topic: &'a str,
    dead_letter_topic: &'a str,
    schema_id: u32,
    unreadable: Vec<golden::Bad>,
}

/// Sends the load as order events.
pub async fn generate(stack: &Stack, topics: &Topics, load: &Load, progress: Arc<Progress>) -> Result<Manifest> {
    let way = Way {
        kind: Kind::Orders,
        topic: &topics.orders,
        dead_letter_topic: &topics.dead_letters,
        schema_id: order_schema_id(stack, &topics.orders).await?,
        unreadable: golden::bad(),
    };
    let second_version: Option<Encode<OrderEvent>> = match load.schemas {
        Versions::First => None,
        Versions::Second | Versions::Alternating => {
            let version = SecondVersion::register(stack, &topics.orders).await?;
            Some(Box::new(move |event, value| version.encode(event, value)))
        }
    };
    let events = OrderEvents::new(Orders::new(load.seed, load.timeline));
    send(stack, way, load, events, second_version, progress).await
}

/// Sends the load as payments.
pub async fn generate_payments(
    stack: &Stack,
    topics: &PaymentTopics,
    load: &Load,
    progress: Arc<Progress>,
) -> Result<Manifest> {
    ensure!(load.schemas == Versions::First, "payments have one version of their schema; leave --schemas out");
    let way = Way {
        kind: Kind::Payments,
        topic: &topics.payments,
        dead_letter_topic: &topics.dead_letters,
        schema_id: payment_schema_id(stack, &topics.payments).await?,
        unreadable: golden::bad_payments(),
    };
    let events = PaymentEvents::new(Payments::new(load.seed, load.timeline));
    send(stack, way, load, events, None, progress).await
}

async fn send<E: Events>(
    stack: &Stack,
    way: Way<'_>,
    load: &Load,
    events: E,
    second_version: Option<Encode<E::Event>>,
    progress: Arc<Progress>,
) -> Result<Manifest> {
    let Way { kind, topic, dead_letter_topic, schema_id, unreadable } = way;
    let consumer = plain_consumer(stack)?;
    let (_, begin_offsets) = watermarks(&consumer, topic)?;
    ensure!(!begin_offsets.is_empty(), "topic {topic} is not there; run `millrace-bench reference` first");

    let mut config = PublisherConfig::new(&stack.kafka, &stack.registry, topic);
    config.compression = load.compression;
    config.generate_traceparent = load.traceparent || load.traced > 0.0;
    config.trace_ratio = load.traced;
    if load.traced > 0.0 {
        opentelemetry::global::set_tracer_provider(SdkTracerProvider::builder().build());
    }
    config.client_id = "millrace-bench".into();
    let mut sender = Sender {
        schemas: load.schemas,
        second_version,
        key: Vec::new(),
        value: Vec::new(),
        events,
        publisher: EventPublisher::connect(config.clone()).await?,
        config,
        answers: VecDeque::new(),
        begun: false,
        delivered: 0,
        pacing: Pacing { began: Instant::now(), rate: load.rate },
        progress,
    };
    let mut poisoner = Poisoner::new(stack, topic, schema_id, load.seed, unreadable)?;
    let mut again = Duplicates::new(load);
    let mut poison_choice = Random::new(load.seed ^ 0x6d69_7865, 0);

    let began = Instant::now();
    sender.pacing.began = began;
    let mut events = load.first;
    for n in load.first..load.events {
        if sender.progress.ends.load(Ordering::Relaxed) {
            break;
        }
        sender.send(n).await?;
        events += 1;
        if poison_choice.chance(load.poison) {
            poisoner.send(&mut sender.events).await?;
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

    let (_, end_offsets) = watermarks(&consumer, topic)?;
    Ok(Manifest {
        kind,
        seed: load.seed,
        events,
        timeline: load.timeline,
        topic: topic.to_owned(),
        dead_letter_topic: dead_letter_topic.to_owned(),
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

/// Replaces the bytes by an event in Confluent wire format.
type Encode<E> = Box<dyn Fn(&E, &mut Vec<u8>) + Send + Sync>;

struct Sender<E: Events> {
    events: E,
    schemas: Versions,
    second_version: Option<Encode<E::Event>>,
    /// Of an event in the second version.
    key: Vec<u8>,
    value: Vec<u8>,
    publisher: EventPublisher<E::Event>,
    config: PublisherConfig,
    /// Oldest first.
    answers: VecDeque<DeliveryFuture>,
    /// Whether an event of this session is written.
    begun: bool,
    delivered: u64,
    pacing: Pacing,
    progress: Arc<Progress>,
}

impl<E: Events> Sender<E> {
    async fn send(&mut self, n: u64) -> Result<()> {
        let event = self.events.at(n);
        let answer = match &self.second_version {
            Some(encode) if self.schemas == Versions::Second || n % 2 == 1 => {
                encode(event, &mut self.value);
                self.key.clear();
                event.write_key(&mut self.key);
                self.publisher.send_encoded(&self.key, &self.value).await?
            }
            _ => self.publisher.send(event).await?,
        };
        if !self.begun {
            // An idempotent session takes its time to begin, in which another producer's unreadable records would all come first;
            // and so they would in a burst that makes up for it.
            let asked = Instant::now();
            answer.await?;
            self.pacing.began += asked.elapsed();
            self.begun = true;
            self.delivered += 1;
            self.progress.sent.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
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
        self.begun = false;
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
            first: 0,
            events,
            timeline: Timeline { start_ms: 0, spacing_us: 1000 },
            duplicates,
            poison: 0.0,
            rate: 0,
            compression: Compression::None,
            schemas: Versions::First,
            traceparent: false,
            traced: 0.0,
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
        assert_eq!(spacing_over_months(12.0, 1_000_000).unwrap() * 1_000_000 / 86_400_000_000, 365);
    }
}
