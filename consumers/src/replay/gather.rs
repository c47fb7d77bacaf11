//! From records to batches of missing rows: decode, ask the table, enrich, project, batch. The way is that of `millrace
//! run`; only what decides that an event is a duplicate differs: the table itself is asked, whatever the window.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::AtomicBool,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use arrow_array::{FixedSizeBinaryArray, cast::AsArray};
use millrace_pipeline::{
    batch::Trigger,
    field::Extract,
    reason::Rejection,
    record::{DeadLetter, Record},
    route::Routed,
    topic::TopicPipeline,
};
use tokio::runtime::Handle;

use super::{
    land::{Landed, Lander, id, places, unless_stopped},
    report::Tally,
    steps::rest,
    table::{Ids, clock_ms, ids_among, ids_at_once},
};
use crate::{
    audit::{Place, table::Table},
    kafka::reference::Update,
    registry::Registry,
};

/// Bytes of values that wait for the table to be asked about them.
const HELD_BYTES: usize = 64 << 20;
/// Records that go through the pipeline at once.
const CHUNK: usize = 4096;
const POLL: Duration = Duration::from_millis(100);

/// A record that may be missing.
struct Held {
    id: u128,
    place: Place,
    timestamp_ms: i64,
    value: Vec<u8>,
}

/// Gathers what is missing and lands it.
pub(super) struct Gather {
    pub(super) pipeline: TopicPipeline,
    pub(super) id: Extract,
    pub(super) registry: Registry,
    pub(super) updates: Receiver<Update>,
    pub(super) table: Arc<Table>,
    /// None in a dry run.
    pub(super) lander: Option<Lander>,
    /// Most records to look at in a second.
    pub(super) rate: Option<u64>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) tally: Tally,
    pub(super) open: Open,
}

/// What is on its way.
pub(super) struct Open {
    held: Vec<Held>,
    held_bytes: usize,
    /// Partitions of which the pipeline has been told.
    assigned: BTreeSet<i32>,
    /// At this time of the server's clock, or later, the table was asked about whatever is in the open batch.
    since_ms: i64,
    began: Instant,
    looked_at: u64,
}

impl Open {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            held: Vec::new(),
            held_bytes: 0,
            assigned: BTreeSet::new(),
            since_ms: 0,
            began: Instant::now(),
            looked_at: 0,
        }
    }
}

impl Gather {
    /// Waits until every lookup's topic has been read to the end that it had. Blocks.
    ///
    /// # Errors
    /// Told to stop.
    pub(super) fn read_references(&mut self) -> Result<()> {
        let mut incomplete = self.pipeline.spec().lookups.len();
        while incomplete > 0 {
            match self.updates.recv_timeout(POLL) {
                Ok(update) => incomplete -= usize::from(update.apply(&mut self.pipeline).1),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the reference topics are not read any more"),
            }
            if self.stop.load(std::sync::atomic::Ordering::Relaxed) {
                bail!("interrupted");
            }
        }
        Ok(())
    }

    /// Looks at records, in order within their partition; `known` are ids of rows. Blocks.
    ///
    /// # Errors
    /// The registry or ClickHouse fails; told to stop.
    pub(super) fn offer(&mut self, records: &[Record<'_>], known: &Ids) -> Result<()> {
        self.learn(records)?;
        let Routed { decoded, passed_over } = self.pipeline.decoder().decode(records);
        self.tally.passed_over += passed_over.len() as u64;
        for (at, rejection) in &decoded.rejected {
            let place = place(&records[*at as usize]);
            self.tally.of(place.partition).records += 1;
            self.tally.unreadable(place, rejection);
        }
        let ids = self.id.from(&decoded.rows)?;
        let ids: &FixedSizeBinaryArray = ids.as_fixed_size_binary();
        for (row, at) in decoded.origin.iter().enumerate() {
            let record = &records[*at as usize];
            self.tally.of(record.partition).records += 1;
            let id = id(ids, row);
            if known.has(id) {
                self.tally.of(record.partition).present += 1;
                continue;
            }
            let value = record.value.unwrap_or_default().to_vec();
            self.open.held_bytes += value.len();
            self.open.held.push(Held { id, place: place(record), timestamp_ms: record.timestamp_ms, value });
        }
        if self.open.held_bytes >= HELD_BYTES || self.open.held.len() >= self.batch_rows().min(ids_at_once(&self.table))
        {
            Handle::current().block_on(self.resolve())?;
        }
        self.open.looked_at += records.len() as u64;
        let rest = rest(self.rate, self.open.looked_at, self.open.began.elapsed());
        if rest > Duration::ZERO {
            Handle::current().block_on(unless_stopped(&self.stop, tokio::time::sleep(rest)))?;
        }
        Ok(())
    }

    /// Most rows in one landing.
    fn batch_rows(&self) -> usize {
        self.pipeline.spec().batch.max_rows
    }

    /// Whether nothing that was looked at still has to be landed.
    pub(super) fn settled(&self) -> bool {
        self.open.held.is_empty() && self.pipeline.deadline(0).is_none()
    }

    /// Asks the table about everything that is held, and batches what it does not have.
    ///
    /// # Errors
    /// As [`Gather::offer`].
    pub(super) async fn resolve(&mut self) -> Result<()> {
        if self.open.held.is_empty() {
            return Ok(());
        }
        let table = Arc::clone(&self.table);
        let now_ms = unless_stopped(&self.stop, clock_ms(&table)).await??;
        if self.pipeline.deadline(0).is_none() {
            self.open.since_ms = now_ms;
        }
        let held = std::mem::take(&mut self.open.held);
        self.open.held_bytes = 0;
        let mut there = Vec::with_capacity(held.len());
        for part in held.chunks(ids_at_once(&table)) {
            let ids: Vec<u128> = part.iter().map(|one| one.id).collect();
            let known = unless_stopped(&self.stop, ids_among(&table, &ids, None)).await??;
            there.extend(ids.iter().map(|id| known.has(*id)));
        }
        let mut missing = Vec::with_capacity(held.len());
        for (one, there) in held.into_iter().zip(there) {
            if there {
                self.tally.of(one.place.partition).present += 1;
            } else {
                missing.push(one);
            }
        }
        while let Ok(update) = self.updates.try_recv() {
            update.apply(&mut self.pipeline);
        }
        for chunk in missing.chunks(CHUNK.min(self.batch_rows())) {
            self.process(chunk)?;
            if let Some(trigger) = self.pipeline.due(0, 0) {
                self.flush(trigger, now_ms).await?;
            }
        }
        Ok(())
    }

    /// Lands everything that was gathered.
    ///
    /// # Errors
    /// As [`Gather::offer`].
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.resolve().await?;
        self.flush(Trigger::Drain, self.open.since_ms).await
    }

    /// Enriches, projects and batches records; an id that is in the batch already is not batched again.
    fn process(&mut self, missing: &[Held]) -> Result<()> {
        let new: BTreeSet<i32> = missing.iter().map(|one| one.place.partition).collect();
        self.assign(new.difference(&self.open.assigned).copied().collect());
        let records: Vec<Record<'_>> = missing.iter().map(Held::record).collect();
        let mut refused = Vec::new();
        let processed = self.pipeline.process(&records, 0, |at, rejection| {
            refused.push((missing[at].place, rejection.clone()));
            missing[at].letter(rejection)
        });
        processed.map_err(|error| anyhow!("records could not be turned into rows: {error}"))?;
        for (place, rejection) in refused {
            self.tally.unreadable(place, &rejection);
        }
        Ok(())
    }

    /// Lets the pipeline take records of partitions, of whose ids it remembers none.
    fn assign(&mut self, partitions: Vec<i32>) {
        if partitions.is_empty() {
            return;
        }
        let attempt = self.pipeline.assign(&partitions);
        let new_index = self.pipeline.new_index();
        for partition in partitions {
            // The epoch is put in when the batch is landed: only then is the partition claimed.
            self.pipeline.taken_over(attempt, partition, 0, 0, new_index());
            self.open.assigned.insert(partition);
        }
    }

    async fn flush(&mut self, trigger: Trigger, now_ms: i64) -> Result<()> {
        let Some(batch) = self.pipeline.close(0, trigger)? else { return Ok(()) };
        let seq = batch.seq;
        let next: BTreeMap<i32, i64> = batch.progress.iter().map(|one| (one.partition, one.next_offset)).collect();
        let landed = match &mut self.lander {
            None => Landed { rows: places(&batch.rows)?, ..Landed::default() },
            Some(_) if batch.rows.num_rows() == 0 => Landed::default(),
            Some(lander) => lander.land(&batch, self.open.since_ms).await?,
        };
        let dry = self.lander.is_none();
        self.tally.landed(landed, next);
        self.pipeline.durable(seq);
        if !dry {
            // What has landed is in the table, which is asked again before the next landing.
            let partitions = std::mem::take(&mut self.open.assigned);
            self.assign(partitions.into_iter().collect());
            self.open.since_ms = now_ms;
        }
        Ok(())
    }

    /// Asks the registry for the schemas that are not known yet. Blocks.
    ///
    /// # Errors
    /// As [`Gather::offer`].
    pub(super) fn learn(&mut self, records: &[Record<'_>]) -> Result<()> {
        let teaching = self.registry.teach(self.pipeline.decoder(), records);
        Handle::current().block_on(unless_stopped(&self.stop, teaching))?
    }
}

impl Held {
    fn record(&self) -> Record<'_> {
        let Place { partition, offset } = self.place;
        Record { partition, offset, timestamp_ms: self.timestamp_ms, value: Some(&self.value) }
    }

    /// Counted and thrown away: the record is in the dead-letter topic since it was read first.
    fn letter(&self, rejection: Rejection) -> DeadLetter {
        let Place { partition, offset } = self.place;
        let timestamp_ms = self.timestamp_ms;
        DeadLetter { partition, offset, timestamp_ms, key: None, value: None, headers: Vec::new(), rejection }
    }
}

fn place(record: &Record<'_>) -> Place {
    Place { partition: record.partition, offset: record.offset }
}
