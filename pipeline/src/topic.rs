//! One topic's pipeline: decode, deduplicate, enrich, project, batch, in the order in which data flow.
//!
//! It owns what a consumer remembers of its partitions and decides what is inserted and what may be committed. It does
//! nothing by itself: the shell brings records, times and answers, and carries batches away.

mod chunk;
mod lanes;

use std::collections::{BTreeMap, BTreeSet};

use arrow_array::{Int32Array, Int64Array, RecordBatch};
use arrow_schema::{DataType, Schema};

use crate::{
    assignment::{Assignment, Attempt},
    batch::{Batcher, Progress},
    decode::{DecodeLimits, ReaderSchemaError},
    dedup::{Millis, PartitionIndex},
    enrich::{Lookup, LookupError},
    field::{Extract, NoSuchField},
    offsets::OffsetTracker,
    project::{Projector, reference_fields},
    reason::Reason,
    record::DeadLetter,
    reference::{ReferenceError, ReferenceTable},
    route::RoutedDecoder,
    spec::TopicSpec,
};

use self::lanes::Lane;

/// The dedup index lets go of ids in steps of about this share of its limit.
const STEPS_PER_LIMIT: usize = 16;
/// Generations smaller than this are not worth their probe.
const MIN_GENERATION_IDS: usize = 1 << 16;

/// One topic's pipeline.
#[derive(Debug)]
pub struct TopicPipeline {
    spec: TopicSpec,
    /// Decodes the events; its schemas come from the registry by way of the shell.
    decoder: RoutedDecoder,
    id: Extract,
    lookups: Vec<Lookup>,
    projector: Projector,
    indexes: BTreeMap<i32, PartitionIndex>,
    assignment: Assignment,
    /// By shard: no batch holds rows of two.
    lanes: Vec<Lane>,
    next_seq: u64,
    offsets: OffsetTracker,
}

/// Why a pipeline cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The event schema has no columns.
    #[error(transparent)]
    ReaderSchema(#[from] ReaderSchemaError),
    /// A field is not in the event schema.
    #[error(transparent)]
    NoSuchField(#[from] NoSuchField),
    /// The identifying field is no UUID.
    #[error("the id field `{path}` is of type {found}; expected an Avro `uuid`, which is FixedSizeBinary(16)")]
    IdType {
        /// Path of the id.
        path: String,
        /// Its Arrow type.
        found: DataType,
    },
    /// The identifying field may be null.
    #[error(
        "the id field `{path}` may be null; expected one that never is, for events without an id cannot be told apart"
    )]
    IdMayBeNull {
        /// Path of the id.
        path: String,
    },
    /// A lookup does not fit the events.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A lookup does not fit the reference records.
    #[error("lookup `{lookup}`: {source}")]
    Reference {
        /// Name of the lookup.
        lookup: String,
        /// What does not fit.
        source: ReferenceError,
    },
}

/// What became of a chunk of records.
#[derive(Debug, Default)]
pub struct Processed {
    /// Rows added to the batch, or waiting for a lookup.
    pub rows: usize,
    /// Events dropped because their id is in the table or in a batch before them.
    pub duplicates: usize,
    /// Records of other types than this pipeline's.
    pub passed_over: usize,
    /// Records that could not become rows, on their way to the dead-letter topic: how many per reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// Keys not found, per lookup.
    pub misses: Vec<usize>,
    /// Whether the pipeline waits for a reference record and takes no more until [`TopicPipeline::retry_waiting`].
    pub waiting: bool,
}

/// A step of [`TopicPipeline::process_by_steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Records into columns.
    Decode,
    /// Those that are new, by their ids.
    Dedup,
    /// Lookups, projection and the open batch.
    Enrich,
}

/// Fresh events, one hop before enrichment.
#[derive(Debug)]
struct Fresh {
    events: RecordBatch,
    partitions: Int32Array,
    offsets: Int64Array,
    published_ms: Vec<i64>,
    /// Goes into the same batch, so that what a batch holds is always covered by its progress.
    dead_letters: Vec<DeadLetter>,
    progress: Vec<Progress>,
}

#[derive(Debug)]
struct Waiting {
    fresh: Fresh,
    until: Millis,
}

impl TopicPipeline {
    /// A pipeline for events of `reader_schema` (Avro JSON); `reference_schemas` has the Arrow schema of each lookup's
    /// records, in the order of the specification.
    ///
    /// # Errors
    /// When specification and schemas do not fit.
    pub fn new(
        spec: TopicSpec,
        reader_schema: &str,
        reference_schemas: &[arrow_schema::SchemaRef],
        limits: DecodeLimits,
    ) -> Result<Self, BuildError> {
        let decoder = RoutedDecoder::new(reader_schema, spec.route.clone(), limits)?;
        let columns: &Schema = decoder.columns();
        let id = Extract::resolve(&spec.id, columns)?;
        if id.data_type() != &DataType::FixedSizeBinary(16) {
            return Err(BuildError::IdType { path: spec.id.to_string(), found: id.data_type().clone() });
        }
        if id.is_nullable() {
            return Err(BuildError::IdMayBeNull { path: spec.id.to_string() });
        }
        let mut lookups = Vec::with_capacity(spec.lookups.len());
        for (at, (lookup, schema)) in spec.lookups.iter().zip(reference_schemas).enumerate() {
            let table = ReferenceTable::new(schema, &lookup.key, &reference_fields(&spec.columns, at))
                .map_err(|source| BuildError::Reference { lookup: lookup.name.clone(), source })?;
            lookups.push(Lookup::new(lookup.clone(), table, columns)?);
        }
        let projector = Projector::new(&spec.columns, columns, &lookups)?;
        let lane = Lane { waiting: None, batcher: Batcher::new(spec.batch, projector.schema().clone()) };
        Ok(Self {
            spec,
            decoder,
            id,
            lookups,
            projector,
            indexes: BTreeMap::new(),
            assignment: Assignment::default(),
            lanes: vec![lane],
            next_seq: 0,
            offsets: OffsetTracker::default(),
        })
    }

    /// What the pipeline was told.
    pub fn spec(&self) -> &TopicSpec {
        &self.spec
    }

    /// Arrow schema of the rows in batches.
    pub fn row_schema(&self) -> &arrow_schema::SchemaRef {
        self.projector.schema()
    }

    /// Arrow schema of decoded events.
    pub fn event_schema(&self) -> &arrow_schema::SchemaRef {
        self.decoder.columns()
    }

    /// What decodes the events, for those who look at records before they process them.
    pub fn decoder(&mut self) -> &mut RoutedDecoder {
        &mut self.decoder
    }

    /// Whether records of this writer-schema id can be processed.
    pub fn knows(&self, schema_id: u32) -> bool {
        self.decoder.knows(schema_id)
    }

    /// Takes the writer's schema of an id, as [`RoutedDecoder::learn`].
    pub fn learn(&mut self, schema_id: u32, writer_schema: &str) {
        self.decoder.learn(schema_id, writer_schema);
    }

    /// Notes that the registry has no schema of this id, as [`RoutedDecoder::learn_absent`].
    pub fn learn_absent(&mut self, schema_id: u32) {
        self.decoder.learn_absent(schema_id);
    }

    /// Forgets the ids whose records are refused, so that the registry is asked again.
    pub fn forget_refused(&mut self) {
        self.decoder.forget_refused();
    }

    /// The reference table of the `lookup`th lookup, to be kept up to date.
    pub fn reference(&mut self, lookup: usize) -> &mut ReferenceTable {
        &mut self.lookups[lookup].table
    }

    /// The partitions held.
    pub fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// Kafka assigned partitions; they have to be taken over under the number returned.
    pub fn assign(&mut self, partitions: &[i32]) -> Attempt {
        self.forget(partitions);
        self.assignment.assign(partitions)
    }

    /// Kafka took partitions away. Drain first what can be drained; whatever of them is still open is given up, and
    /// the partitions that shared a batch with it are to be taken over again.
    pub fn revoke(&mut self, partitions: &[i32]) -> Option<(Attempt, Vec<i32>)> {
        self.forget(partitions);
        self.assignment.revoke(partitions);
        let shares = |lane: &Lane| lane.partitions().any(|open| partitions.contains(&open));
        let lanes: Vec<usize> = (0..self.lanes.len()).filter(|shard| shares(&self.lanes[*shard])).collect();
        self.begin_anew(&lanes, Vec::new())
    }

    /// The outcome of something about these partitions is not known: they and all that share the open batch of their shard
    /// are to be taken over again, as if newly assigned. `None` when nothing of that is running.
    pub fn restart(&mut self, partitions: &[i32]) -> Option<(Attempt, Vec<i32>)> {
        let lanes: BTreeSet<usize> = partitions.iter().map(|partition| self.shard_of(*partition)).collect();
        self.begin_anew(&lanes.into_iter().collect::<Vec<usize>>(), partitions.to_vec())
    }

    /// A partition was taken over: its claim stands, nothing else writes to it, and `index` holds its ids. `false` when
    /// that comes too late.
    pub fn taken_over(
        &mut self,
        attempt: Attempt,
        partition: i32,
        epoch: u64,
        next_offset: i64,
        index: PartitionIndex,
    ) -> bool {
        let current = self.assignment.taken_over(attempt, partition, epoch, next_offset);
        if current {
            self.indexes.insert(partition, index);
        }
        current
    }

    /// Makes empty indexes, to be loaded by whoever takes partitions over.
    pub fn new_index(&self) -> impl Fn() -> PartitionIndex + Send + Sync + 'static {
        let window = self.spec.dedup.window;
        let generation = (self.spec.dedup.max_ids / STEPS_PER_LIMIT).max(MIN_GENERATION_IDS);
        move || PartitionIndex::new(window, generation)
    }

    /// Whether a polled record is to be processed; asked once for each, in order.
    pub fn accept(&mut self, partition: i32, offset: i64) -> bool {
        self.assignment.accept(partition, offset)
    }

    /// Whether events wait for a reference record.
    pub fn is_waiting(&self) -> bool {
        self.lanes.iter().any(|lane| lane.waiting.is_some())
    }

    /// How many events wait for a reference record.
    pub fn waiting_events(&self) -> usize {
        self.lanes.iter().filter_map(|lane| lane.waiting.as_ref()).map(|waiting| waiting.fresh.events.num_rows()).sum()
    }

    /// A batch is durable: what may be committed now, for partitions still held under the same claim.
    pub fn durable(&mut self, seq: u64) -> Vec<Progress> {
        let committable = self.offsets.durable(seq).into_values();
        committable.filter(|progress| self.assignment.epoch(progress.partition) == Some(progress.epoch)).collect()
    }

    /// A batch's outcome will never be known, or it was refused: what has to be taken over again.
    pub fn unsettled(&mut self, seq: u64) -> Option<(Attempt, Vec<i32>)> {
        let partitions = self.offsets.unsettled(seq);
        // All of it may have been given up or begun anew meanwhile: that is no reason to begin anew once more.
        if partitions.is_empty() { None } else { self.restart(&partitions) }
    }

    /// Throws away what is not sent: open batches with their dead letters, and events that wait. Only for a topic that is
    /// read no more, since their ids stay in the index; whoever takes its partitions over reads them again.
    pub fn abandon(&mut self) {
        self.lanes.iter_mut().for_each(|lane| _ = lane.abandon());
    }

    /// Whether batches are on their way.
    pub fn in_flight(&self) -> bool {
        !self.offsets.is_empty()
    }

    /// Lets go of ids outside the window, and of the oldest ones while there are too many; returns how many were let
    /// go before their time.
    pub fn expire(&mut self, now: Millis) -> usize {
        for index in self.indexes.values_mut() {
            index.expire(now);
        }
        let mut early = 0;
        while self.dedup_ids() > self.spec.dedup.max_ids {
            let oldest = self.indexes.values_mut().filter_map(|index| index.oldest().map(|age| (age, index)));
            let Some((_, index)) = oldest.min_by_key(|(age, _)| *age) else { break };
            early += index.expire_oldest();
        }
        early
    }

    /// Ids in the deduplication index, over all partitions.
    pub fn dedup_ids(&self) -> usize {
        self.indexes.values().map(PartitionIndex::len).sum()
    }

    /// Forgets every id, which is what the dedup index is for: a negative control.
    #[cfg(feature = "fault-injection")]
    pub fn forget_ids(&mut self) {
        let new_index = self.new_index();
        self.indexes.values_mut().for_each(|index| *index = new_index());
    }

    fn forget(&mut self, partitions: &[i32]) {
        self.offsets.forget(partitions);
        self.indexes.retain(|partition, _| !partitions.contains(partition));
    }
}

#[cfg(test)]
mod tests;
