//! `millrace replay` and `millrace dead replay`: land what is missing in the table, and nothing else, beside a pipeline
//! that goes on.
//!
//! A replay reads records again, asks the *table* which of their ids it has, whatever the dedup window, and brings the
//! others through the way of `millrace run`: today's schemas, mapping and reference records, coordinates of the source.
//! What cannot be read is counted; its dead letter is there since it was read first. It is a member of no group and commits
//! nothing. It keeps no state: whoever runs it again looks at the same records, and finds those that have landed.
//!
//! # Why no row comes twice, beside a live pipeline
//!
//! Rows are gathered without any claim, for as long as that takes, and landed in few large batches. For each landing the
//! replay becomes the *owner* of the batch's partitions, by the same steps as any other: **claim** under the next epoch,
//! **quiet**, **look** again which of the batch's ids the table has by now, and **insert** the others under the fence of that
//! claim, with a token and a lease. Two rows of one id would come from
//!
//! * *the live pipeline before the claim:* its row is in the table when the replay looks, since an insert that was under way
//!   has been ended by the quiet step, and one that comes later meets the fence. The second look needs no more than the rows
//!   that were inserted since the first: that is why it takes no longer than a moment, however large the table is. (By the
//!   server's clock, with a margin of five minutes and an insert's longest time: it must not be set back by more meanwhile.)
//! * *the live pipeline after the claim* (a producer sends the id again, tomorrow or at this moment): its next insert of
//!   these partitions is refused, and it takes them over: claim, quiet, load. The quiet step ends an insert of the replay
//!   or finds it done, so the load has the replayed ids: they were ingested just now, within any window. It is in this way
//!   that the live pipeline learns of rows that it has not landed; were rows to be inserted behind its back, its memory would
//!   let such an id pass, and no condition in the replay's own insert could prevent that.
//! * *the replay itself:* an id that is in the open batch is not batched again; one that has landed is in the table when it
//!   is looked for, or when the batch is looked at again. An attempt that is refused or not settled begins again with the
//!   claim: what landed of it is then seen. A repetition by the same token meets its token.
//! * *another replay, or one that was killed:* it is an owner like any other. Two at once take turns by their claims; the
//!   insert of a killed one is ended by the next one's quiet step, or by that of the live pipeline.
//!
//! What the owner before had in flight is lost to nobody: it has not committed it, and reads it again. That is the price: a
//! live pipeline takes its partitions over once for each landing, which costs it some seconds of freshness, and says so. It
//! is left in peace for `--pause` after each of its claims. A replay of up to `--batch-rows` missing rows has one landing.
//!
//! # Why the range ends at the committed offset
//!
//! Below it the live pipeline has dealt with every record and never reads it again, unless it is told to. At or past it
//! every record is still its work; to land those would be as sound, and useless.

mod gather;
mod land;
mod letters;
mod open;
mod report;
mod steps;
mod table;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use millrace_pipeline::record::Record;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::block_in_place,
};

pub use self::report::{Report, Totals, Unreadable};
use self::{
    gather::Gather,
    land::unless_stopped,
    steps::{Step, offsets, steps},
    table::ids_in,
};
use crate::{
    audit::{
        Range,
        kafka::Reader,
        progress::Progress,
        range::{self, range},
        table::Table,
    },
    bound::Bound,
    config::{Config, StartOffset, Topic},
    dead::filter::Filter,
    kafka::reference::record,
};

/// Offsets of which the table is asked at once; the ids of their rows are held at 24 bytes each.
const OFFSETS_AT_ONCE: u64 = 1 << 20;

/// How to replay.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Change nothing.
    pub dry_run: bool,
    /// Most records to look at in a second.
    pub rate: Option<u64>,
    /// Most rows in one landing, up to a million.
    pub batch_rows: usize,
    /// How long another owner of a partition is left in peace after it has claimed it.
    pub pause: Duration,
    /// Samples of what cannot be read, and of what landed.
    pub samples: usize,
    /// Longest silence of a server.
    pub timeout: Duration,
}

/// What to replay.
#[derive(Clone, Debug)]
pub enum What {
    /// Records of the topic.
    Records {
        /// Only this partition.
        partition: Option<i32>,
        /// Where to begin; else with the oldest record.
        from: Option<Bound>,
        /// Where to end, itself not looked at; the committed offset at the latest.
        to: Option<Bound>,
    },
    /// Its dead letters.
    Letters(Filter),
}

/// Replays a topic until done, or told to stop by SIGINT or SIGTERM, or a server fails for good: the report says which,
/// and what is left. A second signal leaves at once.
///
/// # Errors
/// It could not begin: a server cannot be reached or refuses, the table or the schema does not fit. Nothing was changed.
pub async fn replay(config: &Config, topic: &Topic, what: What, options: Options) -> Result<Report> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = Arc::new(AtomicBool::new(false));
    let progress = Progress::default();
    let telling = tokio::spawn({
        let progress = progress.clone();
        async move { progress.tell().await }
    });
    // A task of its own, for it blocks while it talks to Kafka.
    let mut working = tokio::spawn({
        let (config, topic, progress, stop) = (config.clone(), topic.clone(), progress.clone(), Arc::clone(&stop));
        async move { work(&config, &topic, what, options, &progress, &stop).await }
    });
    let report = loop {
        tokio::select! {
            report = &mut working => break report.context("the replay itself failed")?,
            // The work ends at the next step; an insert that is under way is settled by whoever claims next.
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if stop.swap(true, Ordering::Relaxed) {
            // A server that owes an answer may hold the step up.
            break Err(anyhow!("interrupted twice; run it again to go on: it skips what is in the table"));
        }
    };
    stop.store(true, Ordering::Relaxed);
    telling.abort();
    // What it told last is wiped before anything else is said.
    _ = telling.await;
    report
}

/// Replays a topic until done or `stop` is set, and tells `progress`. It blocks its thread at times, so it needs a task of
/// its own on a runtime of several threads.
///
/// # Errors
/// As [`replay`].
pub(crate) async fn work(
    config: &Config,
    topic: &Topic,
    what: What,
    options: Options,
    progress: &Progress,
    stop: &Arc<AtomicBool>,
) -> Result<Report> {
    let began = Instant::now();
    let (name, label) = (&topic.spec.topic, topic.label());
    progress.begin(format!("{label}: asking where it stands"), None);
    let goal = goal(config, &what)?;
    let mut gather = unless_stopped(stop, open::open(config, topic, goal, &options, progress, stop)).await??;
    let reader = Reader::new(&topic.kafka(&config.kafka), "replay", options.timeout, Arc::clone(stop))?;
    let mut report = Report {
        topic: name.clone(),
        table: format!("{}.{}", config.clickhouse.database, topic.table),
        dead_letter_topic: None,
        dry_run: options.dry_run,
        ranges: Vec::new(),
        totals: BTreeMap::new(),
        reasons: BTreeMap::new(),
        unreadable: Vec::new(),
        landed: Vec::new(),
        hand_overs: 0,
        notes: Vec::new(),
        stopped: None,
        left: Vec::new(),
        took_ms: 0,
    };
    if let Some(ttl) = gather.table.ttl(topic).await? {
        let table = &topic.table;
        report
            .notes
            .push(format!("table {table} has TTL {ttl}: rows that it has deleted count as missing, and land again"));
    }
    if let What::Records { partition, from, to } = &what {
        report.ranges = ranges(&reader, &gather.table, topic, (*partition, *from, *to), &mut report.notes).await?;
    }
    progress.begin(format!("{label}: reading reference topics"), None);
    block_in_place(|| gather.read_references())?;

    let outcome = match &what {
        What::Records { .. } => records(&reader, &mut gather, name, &report.ranges, progress).await,
        What::Letters(filter) => {
            report.dead_letter_topic = Some(topic.dead_letter_topic.clone());
            letters::replay(&reader, &mut gather, topic, filter, progress, &mut report.notes).await
        }
    };
    if gather.lander.as_ref().is_some_and(|lander| lander.rollups_in_doubt) {
        let note = "rollups of the table may lack rows that have landed: run `millrace migrate --backfill` ten minutes from now";
        report.notes.push(note.to_owned());
    }
    let hand_overs = gather.lander.as_ref().map_or(0, |lander| lander.hand_overs);
    report.take(gather.tally, hand_overs);
    if let Err(error) = outcome {
        let interrupted = stop.load(Ordering::Relaxed);
        report.stopped = Some(if interrupted { "interrupted".to_owned() } else { format!("{error:#}") });
    }
    report.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// The shard that all of it goes to, and the partition if it is of one.
///
/// # Errors
/// There are several shards, and it is not known which.
fn goal(config: &Config, what: &What) -> Result<(usize, Option<i32>)> {
    let partition = match what {
        What::Records { partition, .. } => *partition,
        What::Letters(filter) => filter.partition,
    };
    let shards = config.clickhouse.shard_count();
    match partition {
        Some(one) => Ok((config.clickhouse.shard_of(one), partition)),
        None if shards == 1 => Ok((0, None)),
        None => Err(anyhow!(
            "the configuration has {shards} shards, and a replay goes to one: name a partition with --partition, one after the other"
        )),
    }
}

/// What is to be looked at, for each partition wanted.
async fn ranges(
    reader: &Reader,
    table: &Table,
    topic: &Topic,
    (partition, from, to): (Option<i32>, Option<Bound>, Option<Bound>),
    notes: &mut Vec<String>,
) -> Result<Vec<Range>> {
    let name = &topic.spec.topic;
    let mut positions = block_in_place(|| reader.positions(name))?;
    if let Some(partition) = partition {
        let there = positions.len();
        positions.retain(|position| position.partition == partition);
        ensure!(!positions.is_empty(), "--partition {partition}: the topic has {there} partitions, counted from 0");
    }
    let partitions: Vec<i32> = positions.iter().map(|position| position.partition).collect();
    let at = |bound: Option<Bound>| match bound {
        Some(Bound::Time(ms)) => block_in_place(|| reader.offsets_at(name, &partitions, ms)),
        _ => Ok(BTreeMap::new()),
    };
    let (from_times, to_times) = (at(from)?, at(to)?);
    let mut ranges = Vec::new();
    for position in positions {
        let offset = |bound: Option<Bound>, times: &BTreeMap<i32, i64>| {
            bound.map(|bound| match bound {
                Bound::Offset(offset) => offset,
                // All records are older.
                Bound::Time(_) => times.get(&position.partition).copied().unwrap_or(position.high),
            })
        };
        let wanted = range::Wanted { partition, from: offset(from, &from_times), to: offset(to, &to_times) };
        let first_row = match topic.start {
            StartOffset::Latest => table.first_offset(position.partition).await?,
            StartOffset::Earliest => None,
        };
        let (range, said) = range(position, wanted, topic.start, first_row);
        notes.extend(said);
        if range.pending > 0 {
            let Range { partition, to, pending, .. } = range;
            notes.push(format!(
                "partition {partition}: {pending} offsets from {to} on are not committed yet; to land them is the live pipeline's work"
            ));
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// Replays records of the topic.
async fn records(
    reader: &Reader,
    gather: &mut Gather,
    topic: &str,
    ranges: &[Range],
    progress: &Progress,
) -> Result<()> {
    let what = format!("{topic}: offsets looked at");
    progress.begin(&*what, Some(ranges.iter().map(Range::offsets).sum()));
    for step in steps(ranges, OFFSETS_AT_ONCE) {
        let table = Arc::clone(&gather.table);
        let known = unless_stopped(&gather.stop, ids_in(&table, &step)).await??;
        let mut seen = 0;
        block_in_place(|| {
            reader.read(topic, &step, |messages| {
                let records: Vec<Record<'_>> = messages.iter().map(record).collect();
                gather.offer(&records, &known)?;
                seen += records.len() as u64;
                progress.add(records.len() as u64);
                progress.say(&*what);
                Ok(())
            })
        })?;
        gather.resolve().await?;
        progress.say(&*what);
        // Compaction and transactions leave gaps.
        progress.add(offsets(&step).saturating_sub(seen));
        if gather.settled() {
            done(gather, &step);
        }
    }
    gather.finish().await?;
    for range in ranges {
        gather.tally.next.insert(range.partition, range.to);
    }
    Ok(())
}

/// Everything of a step, and of those before, has been dealt with.
fn done(gather: &mut Gather, step: &Step) {
    gather.tally.next.extend(step.iter().map(|(partition, _, to)| (*partition, *to)));
}

impl Report {
    /// Why it ended before its time, as an error.
    ///
    /// # Errors
    /// If it did.
    pub fn outcome(&self) -> Result<()> {
        self.stopped.as_ref().map_or(Ok(()), |why| Err(anyhow!("topic {}: not finished: {why}", self.topic)))
    }
}
