//! Lands what was found missing, as an owner of the partitions: claim, quiet, look again, insert under the fence.

use std::{
    collections::BTreeMap,
    future::Future,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use arrow_array::{Array, FixedSizeBinaryArray, RecordBatch, cast::AsArray, types::Int32Type, types::Int64Type};
use millrace_pipeline::{
    batch::{Batch, Progress as Reached},
    project::{OFFSET_COLUMN, PARTITION_COLUMN},
    retry::Backoff,
};

use super::table::{ids_among, ids_at_once};
use crate::{
    audit::{Place, progress::Progress, table::Table},
    clickhouse::{
        claims::Claims,
        insert::{Inserter, Outcome},
        rollups::Rollups,
    },
    faults::{self, Point},
    one_line, random,
};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(10) };
/// How often ClickHouse may fail in a row before the replay ends: about a minute.
const ATTEMPTS: u32 = 9;
/// Fewer rows take no less time.
const LEAST_ROWS: usize = 1_000;
/// How often the claims and the word to stop are looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The server's clock may be set back by so much between two looks at the table.
const CLOCK_MARGIN_MS: i64 = 300_000;

/// Rows that are in the table now, and those that somebody else had landed meanwhile.
#[derive(Debug, Default)]
pub(super) struct Landed {
    pub(super) rows: Vec<Place>,
    pub(super) meanwhile: BTreeMap<i32, u64>,
}

impl Landed {
    fn add(&mut self, more: Self) {
        self.rows.extend(more.rows);
        for (partition, rows) in more.meanwhile {
            *self.meanwhile.entry(partition).or_default() += rows;
        }
    }
}

/// Lands batches in one table.
pub(super) struct Lander {
    pub(super) claims: Claims,
    pub(super) inserter: Inserter,
    pub(super) table: Arc<Table>,
    pub(super) id_column: String,
    pub(super) insert_timeout: Duration,
    /// Rows in one insert.
    pub(super) rows_at_once: usize,
    /// How long another owner is left in peace after it has claimed a partition.
    pub(super) pause: Duration,
    pub(super) progress: Progress,
    pub(super) stop: Arc<AtomicBool>,
    /// How often partitions were claimed.
    pub(super) hand_overs: u64,
    /// Views that read the table are not atomic with it.
    pub(super) rollups: Rollups,
    /// Whether an insert may have ended between the table and a rollup, and none of them was completed since.
    pub(super) rollups_in_doubt: bool,
}

impl Lander {
    /// Lands a batch of rows that the table did not have at `since_ms` by its server's clock. Whatever goes wrong on the
    /// way begins again with the claim, which ends the inserts of the time before. A live pipeline takes its partitions
    /// back in some seconds: a landing that takes longer is begun again with half of the rows.
    ///
    /// # Errors
    /// Told to stop; ClickHouse fails for a minute. Some or all of the rows may have landed then.
    pub(super) async fn land(&mut self, batch: &Batch, since_ms: i64) -> Result<Landed> {
        let partitions: Vec<i32> = batch.progress.iter().map(|one| one.partition).collect();
        let (mut landed, mut failures) = (Landed::default(), 0);
        // Rows before `from` have landed; those before `tried` may have.
        let (mut from, mut tried) = (0, 0);
        while from < batch.rows.num_rows() {
            let part = from..batch.rows.num_rows().min(from + self.rows_at_once);
            let trouble = match self.try_land(batch, &partitions, part.clone(), since_ms, &mut tried).await {
                Ok(Some(more)) => {
                    landed.add(more);
                    (from, failures) = (part.end, 0);
                    continue;
                }
                Ok(None) => {
                    self.rows_at_once = (part.len() / 2).max(LEAST_ROWS);
                    None
                }
                Err(error) => Some(error),
            };
            self.go_on()?;
            if let Some(error) = trouble {
                failures += 1;
                if failures >= ATTEMPTS {
                    return Err(error);
                }
                tracing::warn!(error = format!("{error:#}"), failures, "rows were not landed; trying again");
            }
            self.unless_stopped(tokio::time::sleep(BACKOFF.delay(failures.max(1), random()))).await?;
        }
        Ok(landed)
    }

    /// Lands some rows of a batch; `None` if another owner came between.
    async fn try_land(
        &mut self,
        batch: &Batch,
        partitions: &[i32],
        part: Range<usize>,
        since_ms: i64,
        tried: &mut usize,
    ) -> Result<Option<Landed>> {
        self.wait_for_turn(partitions).await?;
        let claimed = self.claims.claim(partitions);
        let epochs = self.unless_stopped(claimed).await?.context("claim partitions in ClickHouse")?;
        if epochs.len() < partitions.len() {
            return Ok(None);
        }
        self.hand_overs += 1;
        faults::at(Point::Claimed);
        let quiet = self.claims.quiet(partitions, std::time::Instant::now());
        self.unless_stopped(quiet).await?.context("wait for inserts of an earlier owner to end")?;
        faults::at(Point::Quiet);

        if self.rollups_in_doubt {
            self.complete_rollups(batch, &epochs).await?;
        }
        let missing = self.still_missing(batch, part.clone(), since_ms).await?;
        let rows = batch.keep(&missing)?;
        let mut landed = Landed::default();
        for (row, place) in places(&batch.rows)?.into_iter().enumerate().take(part.end).skip(part.start) {
            // What is there after an attempt of ours that was not settled is most likely ours.
            if missing[row] || row < *tried {
                landed.rows.push(place);
            } else {
                *landed.meanwhile.entry(place.partition).or_default() += 1;
            }
        }
        let mut progress = batch.progress.clone();
        for one in &mut progress {
            one.epoch = epochs.get(&one.partition).copied().unwrap_or_default();
        }
        let mut attempt = Batch {
            seq: batch.seq,
            rows,
            progress,
            dead_letters: Vec::new(),
            published_ms: Vec::new(),
            trigger: batch.trigger,
        };
        *tried = part.end.max(*tried);
        self.rollups_in_doubt = true;
        let landing = self.inserter.land(&mut attempt);
        match self.unless_stopped(landing).await? {
            Outcome::Durable => {
                self.rollups_in_doubt = false;
                Ok(Some(landed))
            }
            Outcome::Refused | Outcome::Unsettled => Ok(None),
            Outcome::Drifted(why) => bail!(why),
        }
    }

    /// Has rollups count what an attempt has left out that was ended between the table and them: its rows are found in the
    /// table, and not sent again. That they cannot be completed now is no reason to land nothing.
    async fn complete_rollups(&mut self, batch: &Batch, epochs: &BTreeMap<i32, u64>) -> Result<()> {
        let mut first: BTreeMap<i32, i64> = BTreeMap::new();
        for Place { partition, offset } in places(&batch.rows)? {
            let least = first.entry(partition).or_insert(offset);
            *least = offset.min(*least);
        }
        let progress = first.into_iter().filter_map(|(partition, next_offset)| {
            Some(Reached { partition, epoch: *epochs.get(&partition)?, next_offset })
        });
        let progress: Vec<Reached> = progress.collect();
        let completed = self.rollups.complete(&self.claims, &progress, Duration::ZERO);
        match self.unless_stopped(completed).await? {
            Ok(()) => self.rollups_in_doubt = false,
            Err(error) => tracing::warn!(error = one_line(&error), "rollups are not complete yet"),
        }
        Ok(())
    }

    /// For each row of a batch whether it lies in `part` and the table does not have its id yet.
    async fn still_missing(&self, batch: &Batch, part: Range<usize>, since_ms: i64) -> Result<Vec<bool>> {
        // A row carries the time at which its insert began, which may be so long before it became visible.
        let margin_ms = CLOCK_MARGIN_MS + i64::try_from(self.insert_timeout.as_millis()).unwrap_or(0);
        let ids = column(&batch.rows, &self.id_column)?;
        let ids: &FixedSizeBinaryArray = ids.as_fixed_size_binary();
        let ids: Vec<u128> = part.clone().map(|row| id(ids, row)).collect();
        let mut missing = vec![false; part.start];
        for some in ids.chunks(ids_at_once(&self.table)) {
            let asked = ids_among(&self.table, some, Some(since_ms - margin_ms));
            let there = self.unless_stopped(asked).await??;
            missing.extend(some.iter().map(|id| !there.has(*id)));
        }
        missing.resize(batch.rows.num_rows(), false);
        Ok(missing)
    }

    /// Waits until no other owner has claimed one of the partitions too recently to have come to anything.
    async fn wait_for_turn(&self, partitions: &[i32]) -> Result<()> {
        let mut told = false;
        loop {
            let ages = self.unless_stopped(self.claims.claimed_by_others(partitions)).await?;
            let youngest = ages.context("ask who holds the partitions")?.into_iter().min();
            let Some(age) = youngest.filter(|age| *age < self.pause) else { return Ok(()) };
            if !told {
                told = true;
                tracing::debug!(
                    ?partitions,
                    "another owner has just claimed a partition; it is left in peace for a while"
                );
                self.progress.say("waiting for a turn to land rows");
            }
            let rest = (self.pause - age).clamp(LOOK_EVERY, 10 * LOOK_EVERY);
            self.unless_stopped(tokio::time::sleep(rest)).await?;
        }
    }

    fn go_on(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { bail!("interrupted") } else { Ok(()) }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        unless_stopped(&self.stop, work).await
    }
}

/// What `work` comes to, unless the word to stop comes first.
///
/// # Errors
/// The word to stop.
pub(super) async fn unless_stopped<T>(stop: &AtomicBool, work: impl Future<Output = T>) -> Result<T> {
    let stopped = async {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::select! {
        biased;
        result = work => Ok(result),
        () = stopped => bail!("interrupted"),
    }
}

/// Where the rows of a batch come from.
///
/// # Errors
/// A defect: the columns are not there.
pub(super) fn places(rows: &RecordBatch) -> Result<Vec<Place>> {
    let (partitions, offsets) = (column(rows, PARTITION_COLUMN)?, column(rows, OFFSET_COLUMN)?);
    let partitions = partitions.as_primitive::<Int32Type>().values();
    let offsets = offsets.as_primitive::<Int64Type>().values();
    Ok(partitions
        .iter()
        .zip(offsets.iter())
        .map(|(partition, offset)| Place { partition: *partition, offset: *offset })
        .collect())
}

/// The id of a row, as a number.
pub(super) fn id(ids: &FixedSizeBinaryArray, row: usize) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(ids.value(row));
    u128::from_be_bytes(bytes)
}

fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
    let column = rows.column_by_name(name).with_context(|| format!("rows have no column {name}"))?;
    Ok(&**column)
}
