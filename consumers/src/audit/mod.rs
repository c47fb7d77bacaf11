//! `millrace audit`: sets Kafka and ClickHouse against each other, and accounts for every event of a range of offsets.
//! It writes nothing, joins no group and commits nothing, so that it may run beside a live pipeline.
//!
//! What must be settled is fixed at the start: from the oldest offset (or `--from`) to the committed one. Every record
//! there is a row, a duplicate of a row, or a dead letter; all else is a finding. The order of asking keeps a pipeline
//! that goes on from raising false alarms: the committed offset is asked for first, and rows and dead letters are
//! acknowledged before an offset is committed.
//!
//! Memory is bounded by passes over the ids, see `ledger.rs`: the range is read as often as its events at 32 bytes each
//! fit into what is allowed. Rows are looked for among the coordinates of the range, and among what was inserted since
//! one window and a quarter before the first of them: an earlier copy is no violation. Ids without any row by then are
//! looked for in the whole table before they are called lost.
//!
//! Measured with 10.5 million records of 239 bytes on two cores: 26.5 s and 459 MiB in one pass, 2.7 µs of processor time
//! a record; in ClickHouse 0.5 s of processor time and 13 MiB for the 10 million rows.

mod findings;
pub(crate) mod kafka;
mod ledger;
pub(crate) mod marks;
pub(crate) mod progress;
pub(crate) mod range;
mod records;
mod report;
pub(crate) mod table;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::block_in_place,
};

pub use self::{
    findings::{Findings, Found, Kind, Row, Sample},
    ledger::Totals,
    marks::Place,
    range::{Range, Wanted},
    report::{PartitionReport, Report, TopicReport},
};
use self::{
    kafka::Reader,
    ledger::{Bucket, EVENT_BYTES, Ledger},
    marks::{BYTES_PER_16_OFFSETS, Mark},
    progress::Progress,
    range::range,
    records::Records,
    table::{Extent, Table},
};
use crate::config::{Config, StartOffset, Topic};

/// Memory of the process beside marks and events: the program, librdkafka's queue, a chunk while it is decoded. Measured
/// with 10.5 million events of 239 bytes in four partitions: 459 MiB in all, 133 MiB without the events.
const BASE_BYTES: u64 = 144 << 20;
/// Fewer events in a pass would read the topic for ever.
const LEAST_EVENTS_AT_ONCE: u64 = 100_000;

const INTERRUPTED: &str = "interrupted; nothing is concluded from what was compared until then";

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What to look at.
    pub wanted: Wanted,
    /// Samples of each finding.
    pub samples: usize,
    /// Memory of the process, in bytes.
    pub max_memory: usize,
    /// Longest silence of a server.
    pub timeout: Duration,
}

/// Audits the topics, one after the other, until done or told to stop by SIGINT or SIGTERM.
///
/// # Errors
/// A server cannot be reached, refuses, or falls silent; the memory is too small; it was interrupted. Nothing is
/// concluded from what was compared until then.
pub async fn audit(config: &Config, topics: &[&Topic], options: Options) -> Result<Report> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Progress::default();
    let telling = tokio::spawn({
        let progress = progress.clone();
        async move { progress.tell().await }
    });
    // A task of its own, for it blocks while it talks to Kafka.
    let mut working = tokio::spawn({
        let (config, stop) = (config.clone(), Arc::clone(&stop));
        let topics: Vec<Topic> = topics.iter().map(|topic| (*topic).clone()).collect();
        async move {
            let mut reports = Vec::new();
            for topic in &topics {
                let audited = audit_topic(&config, topic, options, &progress, &stop).await;
                reports.push(audited.with_context(|| format!("topic {}", topic.label()))?);
            }
            Ok(Report { topics: reports })
        }
    });
    let report = tokio::select! {
        report = &mut working => report.context("the audit itself failed")?,
        _ = terminate.recv() => Err(anyhow!(INTERRUPTED)),
        _ = interrupt.recv() => Err(anyhow!(INTERRUPTED)),
    };
    stop.store(true, Ordering::Relaxed);
    working.abort();
    telling.abort();
    // What it told last is wiped before anything else is said.
    _ = telling.await;
    report
}

async fn audit_topic(
    config: &Config,
    topic: &Topic,
    options: Options,
    progress: &Progress,
    stop: &Arc<AtomicBool>,
) -> Result<TopicReport> {
    let began = Instant::now();
    let name = &topic.label();
    progress.begin(format!("{name}: asking where it stands"), None);
    let mut records = Records::open(config, topic).await?;
    let table = Table::open(&config.clickhouse, topic, options.timeout).await?;
    let reader = Reader::new(&topic.kafka(&config.kafka), "audit", options.timeout, Arc::clone(stop))?;
    let mut notes = Vec::new();
    if !table.is_gentle() {
        notes.push(format!(
            "user {} may change no settings, so queries ran with the server's own threads and memory, not one thread and 1 GiB",
            config.clickhouse.user
        ));
    }
    if let Some(ttl) = table.ttl(topic).await? {
        notes.push(format!("table {} has TTL {ttl}: rows that it has deleted count as lost", topic.table));
    }

    let ranges = ranges(&reader, &table, topic, options.wanted, &mut notes).await?;
    let window_ms = i64::try_from(topic.spec.dedup.window.as_millis()).unwrap_or(i64::MAX / 2);
    let offsets: u64 = ranges.iter().map(Range::offsets).sum();
    let passes = passes(offsets, options.max_memory as u64)?;
    let mut ledger = Ledger::new(&ranges, window_ms, options.samples);
    let mut dead_letters_repeated = 0;
    if offsets > 0 {
        progress.begin(format!("{name}: dead letters of {}", topic.dead_letter_topic), None);
        dead_letters_repeated =
            block_in_place(|| dead_letters(&reader, topic, &mut records, &mut ledger, progress, &mut notes))?;
        let extent = table.extent(&ranges).await?;
        let mut deleted = 0;
        for pass in 0..passes {
            let of = if passes > 1 { format!(", pass {} of {passes}", pass + 1) } else { String::new() };
            let capacity = usize::try_from(offsets / passes).unwrap_or(usize::MAX);
            let mut bucket = Bucket::new(capacity.saturating_add(capacity / 64));

            progress.begin(format!("{name}{of}: records"), Some(offsets));
            deleted += block_in_place(|| {
                records.read(&reader, &ranges, (pass, passes), &mut ledger, &mut bucket, progress)?;
                bucket.close();
                deleted_meanwhile(&reader, &topic.spec.topic, &ranges, &mut ledger)
            })?;

            progress.begin(format!("{name}{of}: rows"), None);
            compare(&table, &ranges, &extent, (pass, passes), window_ms, &mut ledger, &mut bucket, progress).await?;
            resolve(&table, &format!("{name}{of}"), &mut ledger, &mut bucket, progress).await?;
            ledger.settle(&bucket);
        }
        if deleted > 0 {
            notes.push(format!(
                "Kafka's retention deleted {deleted} offsets while they were read: they count as far as they were seen"
            ));
        }
        notes.extend(note_of_passed_over(ledger.passed_over));
    }
    let (totals, findings) = ledger.finish();
    let partitions = ranges.into_iter().map(|range| {
        let totals = totals.get(&range.partition).copied().unwrap_or_default();
        PartitionReport { range, totals }
    });
    Ok(TopicReport {
        topic: topic.spec.topic.clone(),
        label: topic.label(),
        table: format!("{}.{}", config.clickhouse.database, topic.table),
        dead_letter_topic: topic.dead_letter_topic.clone(),
        partitions: partitions.collect(),
        dead_letters_repeated,
        findings,
        notes,
        passes,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// What a person should know of records that a section passes over, if there were any.
pub(crate) fn note_of_passed_over(records: u64) -> Option<String> {
    let note = || format!("{records} records are for other sections of the topic, or ignored, and were passed over");
    (records > 0).then(note)
}

/// What must be settled, for each partition wanted.
async fn ranges(
    reader: &Reader,
    table: &Table,
    topic: &Topic,
    wanted: Wanted,
    notes: &mut Vec<String>,
) -> Result<Vec<Range>> {
    let mut positions = block_in_place(|| reader.positions(&topic.spec.topic))?;
    if let Some(partition) = wanted.partition {
        let there = positions.len();
        positions.retain(|position| position.partition == partition);
        ensure!(!positions.is_empty(), "--partition {partition}: the topic has {there} partitions, counted from 0");
    }
    let mut ranges = Vec::new();
    for position in positions {
        let first_row = match topic.start {
            StartOffset::Latest => table.first_offset(position.partition).await?,
            StartOffset::Earliest => None,
        };
        let (range, said) = range(position, wanted, topic.start, first_row);
        ranges.push(range);
        notes.extend(said);
    }
    Ok(ranges)
}

/// How often the range has to be read, so that each time the events at hand fit into the memory that is allowed.
fn passes(offsets: u64, max_memory: u64) -> Result<u64> {
    let taken = BASE_BYTES + offsets.div_ceil(16) * BYTES_PER_16_OFFSETS;
    // A bucket is a little larger than the mean of all.
    let at_once = max_memory.saturating_sub(taken) / (EVENT_BYTES + EVENT_BYTES / 32);
    ensure!(
        at_once >= offsets.min(LEAST_EVENTS_AT_ONCE),
        "{offsets} offsets do not fit into {} MiB: allow more with --max-memory, or look at a part with --partition, --from and --to",
        max_memory >> 20
    );
    Ok(offsets.div_ceil(at_once.max(1)).max(1))
}

/// Notes whence dead letters came; how many came from where another had come from.
fn dead_letters(
    reader: &Reader,
    topic: &Topic,
    records: &mut Records,
    ledger: &mut Ledger,
    progress: &Progress,
    notes: &mut Vec<String>,
) -> Result<u64> {
    let letters = &topic.dead_letter_topic;
    // The end is asked for after the committed offset: what is settled by a dead letter has it by now.
    let positions = reader.positions(letters)?;
    let deleted: i64 = positions.iter().map(|position| position.low).sum();
    if deleted > 0 {
        notes.push(format!(
            "dead-letter topic {letters}: retention has deleted {deleted} offsets, so dead letters may be missing for no other reason"
        ));
    }
    let whole: Vec<(i32, i64, i64)> =
        positions.iter().map(|position| (position.partition, position.low, position.high)).collect();
    let mut repeated = 0;
    reader.read(letters, &whole, |messages| {
        progress.add(messages.len() as u64);
        for place in records.sources(messages)? {
            if ledger.marks.contains(place) && !ledger.marks.set(place, Mark::Dead) {
                repeated += 1;
            }
        }
        Ok(())
    })?;
    Ok(repeated)
}

/// How many offsets retention has deleted since this was last asked.
fn deleted_meanwhile(reader: &Reader, topic: &str, ranges: &[Range], ledger: &mut Ledger) -> Result<i64> {
    let mut deleted = 0;
    for range in ranges.iter().filter(|range| range.offsets() > 0) {
        let (low, _) = reader.watermarks(topic, range.partition)?;
        deleted += ledger.marks.deleted_below(range.partition, low);
    }
    Ok(deleted)
}

/// Lets the rows of a bucket stream past its events.
#[expect(clippy::too_many_arguments, reason = "both sides, and what bounds them")]
async fn compare(
    table: &Table,
    ranges: &[Range],
    extent: &Extent,
    bucket_of: (u64, u64),
    window_ms: i64,
    ledger: &mut Ledger,
    bucket: &mut Bucket,
    progress: &Progress,
) -> Result<()> {
    // The index of ids overshoots the window by a quarter.
    let since_ms = extent.first_ingested_ms.saturating_sub(window_ms).saturating_sub(window_ms / 4);
    let each = |id, place| {
        progress.add(1);
        ledger.row(bucket, id, place);
    };
    table.rows(ranges, extent, since_ms, bucket_of, each).await
}

/// Looks at each strange id of a bucket with all its rows.
async fn resolve(
    table: &Table,
    what: &str,
    ledger: &mut Ledger,
    bucket: &mut Bucket,
    progress: &Progress,
) -> Result<()> {
    progress.begin(format!("{what}: ids looked at one by one"), None);
    let mut at = 0;
    loop {
        let (suspects, next) = bucket.suspects(at, table.ids_at_once());
        if suspects.is_empty() {
            return Ok(());
        }
        let rows = table.rows_of(&suspects).await?;
        ledger.resolve(bucket, &suspects, &rows);
        progress.add(suspects.len() as u64);
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_keep_to_the_memory_and_too_little_of_it_is_refused() {
        assert_eq!(passes(0, 512 << 20).unwrap(), 1);
        assert_eq!(passes(10_000_000, 512 << 20).unwrap(), 1);
        assert_eq!(passes(100_000_000, 512 << 20).unwrap(), 10);
        assert!(passes(1_000, 64 << 20).unwrap_err().to_string().contains("--max-memory"));
        assert!(passes(10_000_000_000, 512 << 20).unwrap_err().to_string().contains("--partition"));
    }
}
