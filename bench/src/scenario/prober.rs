//! Freshness as a reader of the table sees it: a thread asks ClickHouse every 20 ms which rows can be seen, and notes when
//! each offset was first among them; the topic is read afterwards for when each was published. It trusts nothing that
//! `millrace` says of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::http::ClickHouse;
use super::result::{Run, Series};
use super::stats::percentile;
use super::world::{Database, World};
use crate::setup::{plain_consumer, watermarks};

const EVERY: Duration = Duration::from_millis(20);
const SILENCE: Duration = Duration::from_secs(30);
/// Of the curve in the pictures.
const SHARES: [f64; 8] = [0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.9999];

/// From then on the offsets `first..=last` of a partition could be selected.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seen {
    unix_ms: f64,
    partition: i32,
    first: i64,
    last: i64,
}

/// The thread, until it is asked what it has seen.
#[derive(Debug)]
pub(crate) struct Prober {
    done: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Seen>>>>,
}

impl Prober {
    pub(crate) fn start(world: &World, database: &Database) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (clickhouse, name, stop) = (world.clickhouse.clone(), database.name.clone(), Arc::clone(&done));
        let thread = thread::spawn(move || {
            let mut probe = Probe { clickhouse, database: name, blocks: BTreeMap::new(), seen: Vec::new() };
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                probe.look()?;
                thread::sleep(EVERY.saturating_sub(begun.elapsed()));
            }
            probe.look()?;
            Ok(probe.seen)
        });
        Self { done, thread: Some(thread) }
    }

    /// Ends the thread, reads the topic, and writes percentiles of freshness down, without what was published in the first
    /// seconds.
    ///
    /// # Errors
    /// If the thread could not go on asking, or the topic cannot be read.
    pub(crate) fn finish(mut self, world: &World, topic: &str, warm_up_seconds: u64, run: &mut Run) -> Result<()> {
        self.done.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the prober runs")?;
        let seen = thread.join().map_err(|_| anyhow!("the prober panicked"))??;
        let (published, unseen) = freshness(world, topic, &seen, warm_up_seconds)?;
        let of = |share| percentile(&published, share).context("nothing was seen");
        run.set("freshness_p50_ms", of(0.5)?);
        run.set("freshness_p99_ms", of(0.99)?);
        run.set("freshness_p999_ms", of(0.999)?);
        run.set("freshness_max_ms", of(1.0)?);
        run.set("freshness_events", published.len() as f64);
        // Duplicates and unreadable records at the edges of what an insert brought make no rows.
        run.set("freshness_events_never_seen", unseen as f64);
        let curve = SHARES.into_iter().filter_map(|share| Some((share * 100.0, percentile(&published, share)?)));
        run.series.push(Series::new("freshness_ms_by_percentile", curve));
        Ok(())
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
    }
}

struct Probe {
    clickhouse: ClickHouse,
    database: String,
    /// By table partition: all parts up to this block number were looked at.
    blocks: BTreeMap<String, u64>,
    seen: Vec<Seen>,
}

impl Probe {
    /// Asks which parts are there, and of new ones by a SELECT on the table which offsets they hold: each row is read about
    /// once, whatever the number of questions.
    fn look(&mut self) -> Result<()> {
        let parts = self.clickhouse.ask(
            "system",
            &format!(
                "SELECT name, partition_id, max_block_number FROM parts \
             WHERE database = '{}' AND table = 'orders' AND active ORDER BY max_block_number",
                self.database
            ),
        )?;
        let rows = parts.lines().filter_map(|line| {
            let mut fields = line.split('\t');
            Some((fields.next()?, fields.next()?, fields.next()?.parse::<u64>().ok()?))
        });
        let new: Vec<(&str, &str, u64)> =
            rows.filter(|(_, month, block)| self.blocks.get(*month).is_none_or(|known| block > known)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = new.iter().map(|(name, ..)| format!("'{name}'")).collect();
        let offsets = self.clickhouse.ask(
            &self.database,
            &format!(
                "SELECT _part, _partition, min(_offset), max(_offset) FROM orders WHERE _part IN ({}) GROUP BY ALL",
                names.join(", ")
            ),
        )?;
        let unix_ms = unix_ms()?;
        for (name, month, block) in new {
            let before = self.seen.len();
            for line in offsets.lines().filter(|line| line.split('\t').next() == Some(name)) {
                let numbers: Vec<i64> = line.split('\t').skip(1).filter_map(|number| number.parse().ok()).collect();
                let [partition, first, last] = numbers[..] else { bail!("ClickHouse answers {line:?}") };
                self.seen.push(Seen { unix_ms, partition: i32::try_from(partition)?, first, last });
            }
            if self.seen.len() == before {
                // It was merged away between the two questions; the next look finds what it has become.
                break;
            }
            self.blocks.insert(month.to_owned(), block);
        }
        Ok(())
    }
}

/// Milliseconds from publishing to being seen, ascending; and how many records were never seen.
fn freshness(world: &World, topic: &str, seen: &[Seen], warm_up_seconds: u64) -> Result<(Vec<f64>, u64)> {
    let consumer = plain_consumer(&world.stack)?;
    let (low, high) = watermarks(&consumer, topic)?;
    let mut when: BTreeMap<i32, Vec<f64>> =
        high.iter().map(|(&partition, &end)| (partition, first_seen(partition, end, seen))).collect();
    let mut list = TopicPartitionList::new();
    for (&partition, &begin) in &low {
        list.add_partition_offset(topic, partition, Offset::Offset(begin)).context("read the topic")?;
    }
    consumer.assign(&list).context("read the topic")?;
    let mut open = low.len();
    let (mut records, mut silent): (Vec<(i64, f64)>, Instant) = (Vec::new(), Instant::now());
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let published = message.timestamp().to_millis().context("a record has no timestamp")?;
                let times = when.get_mut(&message.partition()).context("a partition was added")?;
                let seen = times.get(message.offset() as usize).copied().unwrap_or(f64::INFINITY);
                records.push((published, seen));
                silent = Instant::now();
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            Some(Err(error)) => return Err(error).context("read the topic"),
            None if silent.elapsed() > SILENCE => bail!("Kafka sends nothing of {topic} for {SILENCE:?}"),
            None => {}
        }
    }
    records.sort_by_key(|record| record.0);
    // The generator waits for its first record, however long its session takes to begin, before the load sets in.
    let begin = records.get(1).map_or(0, |record| record.0);
    records.retain(|record| record.0 >= begin + warm_up_seconds as i64 * 1000);
    let all = records.len();
    let mut fresh: Vec<f64> = records.into_iter().map(|(published, seen)| seen - published as f64).collect();
    fresh.retain(|milliseconds| milliseconds.is_finite());
    fresh.sort_by(f64::total_cmp);
    let unseen = all - fresh.len();
    Ok((fresh, unseen as u64))
}

/// By offset, when it was first seen; infinite if it never was.
fn first_seen(partition: i32, end: i64, seen: &[Seen]) -> Vec<f64> {
    let mut times = vec![f64::INFINITY; usize::try_from(end).unwrap_or_default()];
    for one in seen.iter().filter(|one| one.partition == partition) {
        let last = usize::try_from(one.last + 1).unwrap_or_default().min(times.len());
        let first = usize::try_from(one.first).unwrap_or_default().min(last);
        for time in &mut times[first..last] {
            *time = time.min(one.unix_ms);
        }
    }
    times
}

fn unix_ms() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_micros() as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_seen_with_the_first_part_that_covers_it() {
        let seen = [
            Seen { unix_ms: 10.0, partition: 0, first: 0, last: 1 },
            Seen { unix_ms: 20.0, partition: 1, first: 0, last: 9 },
            Seen { unix_ms: 30.0, partition: 0, first: 3, last: 3 },
            // A merge of both.
            Seen { unix_ms: 40.0, partition: 0, first: 0, last: 3 },
        ];
        assert_eq!(first_seen(0, 5, &seen), [10.0, 10.0, 40.0, 30.0, f64::INFINITY]);
    }
}
