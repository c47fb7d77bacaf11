//! Sends the records of a topic to another one at a given pace: key, value, headers and partition as they were, at the
//! time of sending. It moves record batches whole, so that a record costs next to nothing: what is measured beside it
//! has the machine to itself. It speaks to one broker without TLS, as a stack is, and never retries: a record is sent
//! once or the run fails.

mod batch;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::Consumer;

use crate::cpu::cpu_seconds;
use crate::manifest::{Manifest, Offsets, Poison};
use crate::pacing::Pacing;
use crate::setup::{plain_consumer, watermarks};
use crate::stack::{Stack, Topics};
use batch::Batch;
use wire::Connection;

/// What to send, where and how fast.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Topic to read.
    pub from: String,
    /// Topic of events to write; it needs as many partitions as `from`.
    pub to: Topics,
    /// Records per second; 0 is as fast as possible.
    pub rate: u64,
    /// Stop after this time; by default when everything is sent.
    pub limit: Option<Duration>,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Records.
    pub records: u64,
    /// How long sending took.
    pub seconds: f64,
    /// Processor time of this process; `None` where the system does not tell.
    pub cpu_seconds: Option<f64>,
    begin: Offsets,
    end: Offsets,
    moved: Moved,
}

/// For each partition, first offset of a batch in the source and in the destination.
type Moved = BTreeMap<i32, BTreeMap<i64, i64>>;

/// Batches that may be on their way without an answer: enough for a broker that answers in 20 ms.
const UNDER_WAY: usize = 32;

/// Sends the records that lie in the topic when it begins, or those of `range` (first offsets and ends).
pub async fn replay(
    stack: &Stack,
    replay: &Replay,
    range: Option<(&Offsets, &Offsets)>,
    progress: &AtomicU64,
) -> Result<Replayed> {
    let consumer = plain_consumer(stack)?;
    let to = &replay.to.orders;
    let (low, high) = watermarks(&consumer, &replay.from)?;
    let (_, begin) = watermarks(&consumer, to)?;
    ensure!(!low.is_empty(), "topic {} is not there", replay.from);
    ensure!(low.keys().eq(begin.keys()), "{} and {to} must have the same partitions", replay.from);
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(10)).context("ask Kafka for its brokers")?;
    let [broker] = metadata.brokers() else {
        anyhow::bail!("replaying needs Kafka to be one broker, not {}", metadata.brokers().len())
    };
    let address = format!("{}:{}", broker.host(), broker.port());

    let (first, ends) = range.unwrap_or((&low, &high));
    let mut source = Source::new(Connection::open(&address)?, &replay.from, first, ends);
    let mut sink = Sink { connection: Connection::open(&address)?, to, waiting: VecDeque::new(), moved: Moved::new() };
    let pacing = Pacing { began: Instant::now(), rate: replay.rate };
    let mut records = 0;
    while replay.limit.is_none_or(|limit| pacing.began.elapsed() < limit)
        && let Some((partition, batch)) = source.next()?
    {
        records += batch.count() as u64;
        sink.send(partition, batch)?;
        progress.store(records, Ordering::Relaxed);
        pacing.wait_until_due(records).await;
    }
    while !sink.waiting.is_empty() {
        sink.settle()?;
    }
    let seconds = pacing.began.elapsed().as_secs_f64();
    let (_, end) = watermarks(&consumer, to)?;
    Ok(Replayed { records, seconds, cpu_seconds: cpu_seconds(), begin, end, moved: sink.moved })
}

impl Replayed {
    /// The manifest of what was sent, made of that of the source.
    ///
    /// # Errors
    /// When not everything that the source's manifest names was sent.
    pub fn manifest(&self, source: &Manifest, to: &Topics) -> Result<Manifest> {
        let written: i64 =
            source.end_offsets.iter().map(|(p, end)| end - source.begin_offsets.get(p).unwrap_or(&0)).sum();
        ensure!(written as u64 == self.records, "{} of {written} records were sent: no manifest", self.records);
        let poison = source.poison.iter().map(|poison| {
            let batches = self.moved.get(&poison.partition);
            let batch = batches.and_then(|batches| batches.range(..=poison.offset).next_back());
            let (from, to) = batch.context("an unreadable record was not among those sent")?;
            Ok(Poison { offset: to + poison.offset - from, ..poison.clone() })
        });
        Ok(Manifest {
            topic: to.orders.clone(),
            dead_letter_topic: to.dead_letters.clone(),
            poison: poison.collect::<Result<_>>()?,
            begin_offsets: self.begin.clone(),
            end_offsets: self.end.clone(),
            seconds: self.seconds,
            cpu_seconds: self.cpu_seconds,
            ..source.clone()
        })
    }
}

/// Batches of all partitions in the order of their time.
struct Source<'a> {
    connection: Connection,
    topic: &'a str,
    partitions: BTreeMap<i32, Partition>,
}

struct Partition {
    position: i64,
    end: i64,
    batches: VecDeque<Batch>,
}

impl<'a> Source<'a> {
    fn new(connection: Connection, topic: &'a str, first: &Offsets, ends: &Offsets) -> Self {
        let partition = |(&id, &end): (&i32, &i64)| {
            let position = first.get(&id).copied().unwrap_or(0);
            (id, Partition { position, end, batches: VecDeque::new() })
        };
        Self { connection, topic, partitions: ends.iter().map(partition).collect() }
    }

    fn next(&mut self) -> Result<Option<(i32, Batch)>> {
        while self.partitions.values().any(|p| p.batches.is_empty() && p.position < p.end) {
            self.fetch()?;
        }
        let oldest = self.partitions.iter_mut().filter(|(_, p)| !p.batches.is_empty());
        let oldest = oldest.min_by_key(|(_, p)| p.batches.front().map(Batch::first_timestamp));
        Ok(oldest.and_then(|(&id, partition)| Some((id, partition.batches.pop_front()?))))
    }

    /// Reads on in the partitions of which nothing is left.
    fn fetch(&mut self) -> Result<()> {
        let empty = self.partitions.iter().filter(|(_, p)| p.batches.is_empty() && p.position < p.end);
        let positions: Vec<_> = empty.map(|(&id, partition)| (id, partition.position)).collect();
        for (id, batches) in self.connection.fetch(self.topic, &positions)? {
            let Some(partition) = self.partitions.get_mut(&id) else { continue };
            for batch in batches {
                let (base, next) = (batch.base_offset(), batch.base_offset() + i64::from(batch.count()));
                ensure!(
                    base >= partition.position && next <= partition.end,
                    "{}, partition {id}: a batch reaches over the end of what is to be sent",
                    self.topic
                );
                partition.position = next;
                partition.batches.push_back(batch);
                if next == partition.end {
                    break;
                }
            }
        }
        Ok(())
    }
}

struct Sink<'a> {
    connection: Connection,
    to: &'a str,
    /// Partition and source offset of the batches without an answer, oldest first.
    waiting: VecDeque<(i32, i64)>,
    moved: Moved,
}

impl Sink<'_> {
    fn send(&mut self, partition: i32, mut batch: Batch) -> Result<()> {
        if self.waiting.len() >= UNDER_WAY {
            self.settle()?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
        self.waiting.push_back((partition, batch.base_offset()));
        batch.send_again_at(now.as_millis() as i64);
        self.connection.produce(self.to, partition, &batch)
    }

    fn settle(&mut self) -> Result<()> {
        let (partition, offset) = self.connection.produced()?;
        let sent = self.waiting.pop_front();
        let (_, from) = sent.filter(|sent| sent.0 == partition).context("Kafka answers for another partition")?;
        self.moved.entry(partition).or_default().insert(from, offset);
        Ok(())
    }
}
