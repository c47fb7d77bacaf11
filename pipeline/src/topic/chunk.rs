//! A chunk of records on its way through the pipeline: decoded, deduplicated, enriched, batched.

use std::collections::BTreeMap;

use arrow_array::{BooleanArray, FixedSizeBinaryArray, RecordBatch, cast::AsArray};
use arrow_schema::ArrowError;
use arrow_select::filter::filter_record_batch;

use super::{Fresh, Processed, Step, TopicPipeline, Waiting};
use crate::{
    batch::Progress,
    decode::Decoded,
    dedup::Millis,
    enrich::Found,
    reason::{Reason, Rejection},
    record::{DeadLetter, Record},
    route::Routed,
    shard::shard_of,
    spec::MissPolicy,
};

impl TopicPipeline {
    /// Processes records that were accepted. `dead_letter` makes the dead letter of the record at a position, should
    /// it be needed.
    ///
    /// # Errors
    /// When columns cannot be built: a defect, not the data's fault.
    pub fn process(
        &mut self,
        records: &[Record<'_>],
        now: Millis,
        dead_letter: impl FnMut(usize, Rejection) -> DeadLetter,
    ) -> Result<Processed, ArrowError> {
        self.process_by_steps(records, now, dead_letter, |_, _| {})
    }

    /// As [`TopicPipeline::process`]; `done` is told of the end of each step and how many events came out of it, so that
    /// whoever has a clock can time them. Records of several shards go through the steps one shard after the other.
    ///
    /// # Errors
    /// As [`TopicPipeline::process`].
    pub fn process_by_steps(
        &mut self,
        records: &[Record<'_>],
        now: Millis,
        mut dead_letter: impl FnMut(usize, Rejection) -> DeadLetter,
        mut done: impl FnMut(Step, usize),
    ) -> Result<Processed, ArrowError> {
        let mut processed = Processed::default();
        let shards = self.lanes.len();
        if shards == 1 {
            self.process_of_shard(0, records, now, &mut dead_letter, &mut done, &mut processed)?;
            return Ok(processed);
        }
        for shard in 0..shards {
            let of_shard = records.iter().enumerate().filter(|(_, one)| shard_of(one.partition, shards) == shard);
            let (positions, own): (Vec<usize>, Vec<Record<'_>>) = of_shard.unzip();
            if !own.is_empty() {
                let mut dead_letter = |at: usize, rejection| dead_letter(positions[at], rejection);
                self.process_of_shard(shard, &own, now, &mut dead_letter, &mut done, &mut processed)?;
            }
        }
        Ok(processed)
    }

    /// Processes records of one shard's partitions.
    fn process_of_shard(
        &mut self,
        shard: usize,
        records: &[Record<'_>],
        now: Millis,
        dead_letter: &mut impl FnMut(usize, Rejection) -> DeadLetter,
        done: &mut impl FnMut(Step, usize),
        processed: &mut Processed,
    ) -> Result<(), ArrowError> {
        debug_assert!(self.lanes[shard].waiting.is_none(), "the pipeline takes no records while it waits");
        let Routed { decoded: Decoded { rows, origin, mut rejected }, passed_over } = self.decoder.decode(records);
        processed.passed_over += passed_over.len();
        done(Step::Decode, rows.num_rows());
        let mut fresh = self.deduplicate(records, &rows, &origin, now, processed, &mut rejected)?;
        for (at, rejection) in rejected {
            *processed.rejected.entry(rejection.reason).or_default() += 1;
            fresh.dead_letters.push(dead_letter(at as usize, rejection));
        }
        let new = fresh.events.num_rows();
        processed.rows += new;
        done(Step::Dedup, new);
        let wait = self.lookups.iter().filter_map(|lookup| match lookup.spec.miss {
            MissPolicy::Wait { timeout } => Some(timeout.as_millis() as Millis),
            MissPolicy::Null | MissPolicy::DeadLetter => None,
        });
        let until = now.saturating_add(wait.max().unwrap_or(0));
        let waits = !self.enrich(shard, Waiting { fresh, until }, now, &mut processed.misses)?;
        processed.waiting |= waits;
        done(Step::Enrich, if waits { 0 } else { new });
        Ok(())
    }

    /// Tries again the events that wait for a reference record; `true` when nothing waits any more. `misses` gets the
    /// keys not found per lookup once the wait is over.
    ///
    /// # Errors
    /// As [`TopicPipeline::process`].
    pub fn retry_waiting(&mut self, now: Millis, misses: &mut Vec<usize>) -> Result<bool, ArrowError> {
        let mut over = true;
        for shard in 0..self.lanes.len() {
            if let Some(waiting) = self.lanes[shard].waiting.take() {
                over &= self.enrich(shard, waiting, now, misses)?;
            }
        }
        Ok(over)
    }

    fn deduplicate(
        &mut self,
        records: &[Record<'_>],
        rows: &RecordBatch,
        origin: &[u32],
        now: Millis,
        processed: &mut Processed,
        rejected: &mut Vec<(u32, Rejection)>,
    ) -> Result<Fresh, ArrowError> {
        let refused = self.refused_by_lookup(rows)?;
        let refusing = |row: usize| refused.iter().find(|(_, missing)| missing[row]);
        let new = self.look_up(records, rows, origin, now, |row| refusing(row).is_none())?;
        let mut keep = Vec::with_capacity(rows.num_rows());
        let mut partitions = Vec::with_capacity(rows.num_rows());
        let mut offsets = Vec::with_capacity(rows.num_rows());
        let mut published_ms = Vec::with_capacity(rows.num_rows());
        for (row, (at, new)) in origin.iter().zip(new).enumerate() {
            let record = &records[*at as usize];
            let refusing = refusing(row).filter(|_| new);
            keep.push(new && refusing.is_none());
            if let Some((lookup, _)) = refusing {
                let detail = format!("lookup `{lookup}` has no record for the event's key");
                rejected.push((*at, Rejection::new(Reason::LookupMissed, detail)));
            } else if new {
                partitions.push(record.partition);
                offsets.push(record.offset);
                published_ms.push(record.timestamp_ms);
            } else {
                processed.duplicates += 1;
            }
        }
        let events = if partitions.len() == rows.num_rows() {
            rows.clone()
        } else {
            filter_record_batch(rows, &BooleanArray::from(keep))?
        };
        Ok(Fresh {
            events,
            partitions: partitions.into(),
            offsets: offsets.into(),
            published_ms,
            dead_letters: Vec::new(),
            progress: self.progress(records),
        })
    }

    /// Which events are new to the index of their partition, which remembers those of the rows that it is to.
    fn look_up(
        &mut self,
        records: &[Record<'_>],
        rows: &RecordBatch,
        origin: &[u32],
        now: Millis,
        remember: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>, ArrowError> {
        let ids = self.id.from(rows)?;
        let ids: &FixedSizeBinaryArray = ids.as_fixed_size_binary();
        let partition = |row: &usize| records[origin[*row] as usize].partition;
        let mut order: Vec<usize> = (0..rows.num_rows()).collect();
        order.sort_by_key(partition);
        let mut new = vec![false; rows.num_rows()];
        let (mut batch, mut fresh) = (Vec::with_capacity(order.len()), Vec::with_capacity(order.len()));
        for rows in order.chunk_by(|one, next| partition(one) == partition(next)) {
            let index = self.indexes.get_mut(&partition(&rows[0]));
            let Some(index) = index else { unreachable!("only records of running partitions are accepted") };
            batch.clear();
            batch.extend(rows.iter().map(|row| {
                let mut id = [0; 16];
                id.copy_from_slice(ids.value(*row));
                u128::from_be_bytes(id)
            }));
            index.insert_batch(&batch, now, |at| remember(rows[at]), &mut fresh);
            for (row, fresh) in rows.iter().zip(&fresh) {
                new[*row] = *fresh;
            }
        }
        Ok(new)
    }

    /// The events that a lookup with policy `dead_letter` refuses, per such lookup.
    fn refused_by_lookup(&self, rows: &RecordBatch) -> Result<Vec<(String, Vec<bool>)>, ArrowError> {
        let strict = self.lookups.iter().filter(|lookup| lookup.spec.miss == MissPolicy::DeadLetter);
        strict.map(|lookup| Ok((lookup.spec.name.clone(), lookup.find(rows)?.missing()))).collect()
    }

    fn progress(&self, records: &[Record<'_>]) -> Vec<Progress> {
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for record in records {
            let next = next.entry(record.partition).or_insert(0);
            *next = (*next).max(record.offset + 1);
        }
        next.into_iter()
            .filter_map(|(partition, next_offset)| {
                let epoch = self.assignment.epoch(partition)?;
                Some(Progress { partition, epoch, next_offset })
            })
            .collect()
    }

    /// Enriches and batches fresh events; `false` when they have to wait for a reference record.
    fn enrich(
        &mut self,
        shard: usize,
        waiting: Waiting,
        now: Millis,
        misses: &mut Vec<usize>,
    ) -> Result<bool, ArrowError> {
        let Waiting { fresh, until } = waiting;
        let found: Vec<Found> =
            self.lookups.iter().map(|lookup| lookup.find(&fresh.events)).collect::<Result<_, _>>()?;
        let mut patient = self.lookups.iter().zip(&found);
        let lacks =
            patient.any(|(lookup, found)| matches!(lookup.spec.miss, MissPolicy::Wait { .. }) && found.misses > 0);
        if lacks && now < until {
            self.lanes[shard].waiting = Some(Waiting { fresh, until });
            return Ok(false);
        }
        misses.resize(found.len(), 0);
        misses.iter_mut().zip(&found).for_each(|(misses, found)| *misses += found.misses);
        let Fresh { events, partitions, offsets, published_ms, dead_letters, progress } = fresh;
        let rows = self.projector.project(&events, partitions, offsets, &mut self.lookups, &found)?;
        let batcher = &mut self.lanes[shard].batcher;
        batcher.add_rows(rows, &published_ms, now);
        for letter in dead_letters {
            batcher.add_dead_letter(letter, now);
        }
        for Progress { partition, epoch, next_offset } in progress {
            batcher.advance(partition, epoch, next_offset, now);
        }
        Ok(true)
    }
}
