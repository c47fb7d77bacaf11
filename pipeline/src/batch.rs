//! Gathers rows, dead letters and offsets into the unit that is inserted, acknowledged and committed as one.

use std::collections::{BTreeMap, VecDeque};

use arrow_array::{Array, BooleanArray, RecordBatch, cast::AsArray};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::filter::filter_record_batch;

use crate::{dedup::Millis, dictionary::unique_dictionaries, record::DeadLetter, spec::BatchLimits};

/// What is inserted, acknowledged and committed as one.
#[derive(Debug)]
pub struct Batch {
    /// Position in the order of batches of this topic.
    pub seq: u64,
    /// Rows for the table, in one block; may be none.
    pub rows: RecordBatch,
    /// How far this batch brings each partition.
    pub progress: Vec<Progress>,
    /// Records for the dead-letter topic.
    pub dead_letters: Vec<DeadLetter>,
    /// Kafka timestamp of each row in milliseconds since 1970.
    pub published_ms: Vec<i64>,
    /// Why it was closed.
    pub trigger: Trigger,
}

impl Batch {
    /// Its rows without those that are not to be kept; `keep` has a word on each.
    ///
    /// # Errors
    /// When `keep` has a word on more rows than there are.
    pub fn keep(&self, keep: &[bool]) -> Result<RecordBatch, ArrowError> {
        filter_record_batch(&self.rows, &BooleanArray::from(keep.to_vec()))
    }
}

/// How far a batch brings one partition, and by whose right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Kafka partition.
    pub partition: i32,
    /// Epoch of the claim under which its records were read.
    pub epoch: u64,
    /// The offset to read next once this batch is durable.
    pub next_offset: i64,
}

/// Why a batch was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// It held the most rows.
    Rows,
    /// It held the most bytes.
    Bytes,
    /// Its oldest event was old enough.
    Age,
    /// The consumer is giving partitions up.
    Drain,
}

impl Trigger {
    /// Value of the `trigger` label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Drain => "drain",
        }
    }
}

/// The batch being filled, of one shard.
#[derive(Debug)]
pub struct Batcher {
    limits: BatchLimits,
    schema: SchemaRef,
    chunks: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    published_ms: Vec<i64>,
    dead_letters: Vec<DeadLetter>,
    progress: BTreeMap<i32, (u64, i64)>,
    opened_at: Option<Millis>,
    /// How long the latest inserts took, oldest first.
    recent_inserts_ms: VecDeque<Millis>,
}

/// A batch is this many times as old as inserts take long when it is sent, within bounds: so a server that is at leisure
/// gets small batches often, and one that is busy, or has many parts to merge, few large ones.
const INSERTS_PER_AGE: Millis = 4;
/// The quickest of so many inserts counts: a slow one among quick ones met a merge, and the next would only wait for it.
const RECENT_INSERTS: usize = 4;
/// A batch is sent no sooner than at this share of the greatest age, so that a quiet topic does not make parts without end.
const LEAST_AGE_SHARE: Millis = 4;

impl Batcher {
    /// An empty batcher for rows of `schema`.
    pub fn new(limits: BatchLimits, schema: SchemaRef) -> Self {
        Self {
            limits,
            schema,
            chunks: Vec::new(),
            rows: 0,
            bytes: 0,
            published_ms: Vec::new(),
            dead_letters: Vec::new(),
            progress: BTreeMap::new(),
            opened_at: None,
            recent_inserts_ms: VecDeque::with_capacity(RECENT_INSERTS),
        }
    }

    /// Notes how long an insert took, which decides how old the next batches grow.
    pub fn inserted(&mut self, took_ms: Millis) {
        if self.recent_inserts_ms.len() == RECENT_INSERTS {
            self.recent_inserts_ms.pop_front();
        }
        self.recent_inserts_ms.push_back(took_ms);
    }

    /// Adds rows with the Kafka timestamp of each.
    pub fn add_rows(&mut self, rows: RecordBatch, published_ms: &[i64], now: Millis) {
        debug_assert_eq!(rows.num_rows(), published_ms.len());
        self.opened_at.get_or_insert(now);
        if rows.num_rows() == 0 {
            return;
        }
        self.rows += rows.num_rows();
        self.bytes += rows.columns().iter().map(|column| body_bytes(column)).sum::<usize>();
        self.published_ms.extend_from_slice(published_ms);
        self.chunks.push(rows);
    }

    /// Adds a record that is no row.
    pub fn add_dead_letter(&mut self, letter: DeadLetter, now: Millis) {
        self.opened_at.get_or_insert(now);
        self.bytes += letter.bytes();
        self.dead_letters.push(letter);
    }

    /// Notes that everything of a partition before `next_offset` is in this batch or an earlier one.
    pub fn advance(&mut self, partition: i32, epoch: u64, next_offset: i64, now: Millis) {
        self.opened_at.get_or_insert(now);
        self.progress.insert(partition, (epoch, next_offset));
    }

    /// Why the batch should be closed now, if it should.
    pub fn due(&self, now: Millis) -> Option<Trigger> {
        let opened_at = self.opened_at?;
        if self.rows + self.dead_letters.len() >= self.limits.max_rows {
            Some(Trigger::Rows)
        } else if self.bytes >= self.limits.max_bytes {
            Some(Trigger::Bytes)
        } else if now >= opened_at.saturating_add(self.age_ms()) {
            Some(Trigger::Age)
        } else {
            None
        }
    }

    /// When the batch is due by age; `None` while it is empty.
    pub fn deadline(&self) -> Option<Millis> {
        self.opened_at.map(|opened_at| opened_at.saturating_add(self.age_ms()))
    }

    /// Rows held so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the batch under its number; `None` when there is nothing in it.
    ///
    /// # Errors
    /// When the rows together exceed what one Arrow array can hold.
    pub fn close(&mut self, seq: u64, trigger: Trigger) -> Result<Option<Batch>, ArrowError> {
        if self.opened_at.take().is_none() {
            return Ok(None);
        }
        let chunks = std::mem::take(&mut self.chunks);
        let rows = match &chunks[..] {
            [only] => only.clone(),
            _ => unique_dictionaries(&arrow_select::concat::concat_batches(&self.schema, &chunks)?)?,
        };
        self.rows = 0;
        self.bytes = 0;
        Ok(Some(Batch {
            seq,
            rows,
            progress: std::mem::take(&mut self.progress)
                .into_iter()
                .map(|(partition, (epoch, next_offset))| Progress { partition, epoch, next_offset })
                .collect(),
            dead_letters: std::mem::take(&mut self.dead_letters),
            published_ms: std::mem::take(&mut self.published_ms),
            trigger,
        }))
    }

    /// Throws the open batch away: its partitions are read again.
    pub fn abandon(&mut self) -> Vec<i32> {
        self.opened_at = None;
        self.rows = 0;
        self.bytes = 0;
        self.chunks.clear();
        self.dead_letters.clear();
        self.published_ms.clear();
        std::mem::take(&mut self.progress).into_keys().collect()
    }

    /// Partitions with records in the open batch.
    pub fn partitions(&self) -> impl Iterator<Item = i32> + '_ {
        self.progress.keys().copied()
    }

    /// The age at which the batch is sent.
    fn age_ms(&self) -> Millis {
        let max = Millis::try_from(self.limits.max_age.as_millis()).unwrap_or(Millis::MAX);
        let paced = |insert_ms: &Millis| insert_ms.saturating_mul(INSERTS_PER_AGE).clamp(max / LEAST_AGE_SHARE, max);
        self.recent_inserts_ms.iter().min().map_or(max, paced)
    }
}

/// Bytes of the values of an array, without room to spare and without dictionaries, which chunks share.
fn body_bytes(array: &dyn Array) -> usize {
    match array.as_any_dictionary_opt() {
        Some(dictionary) => dictionary.keys().to_data().get_slice_memory_size().unwrap_or_default(),
        None => match array.as_list_opt::<i32>() {
            Some(list) => size_of_val(list.value_offsets()) + body_bytes(list.values()),
            None => array.to_data().get_slice_memory_size().unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests;
