//! Enrichment, projection and batching, each by itself, on one decoded chunk.

use arrow_array::{Int32Array, Int64Array, RecordBatch};
use millrace_pipeline::{
    batch::{Batcher, Trigger},
    enrich::{Found, Lookup},
    project::{Projector, reference_fields},
    reference::ReferenceTable,
};
use millrace_schemas::{CUSTOMER_V1, PRODUCT_V1};

use super::{Stages, TIMELINE, decoder, reference_rows, spec};
use crate::orders::Orders;

/// A decoded chunk, and the stages that come after its deduplication.
pub struct Apart {
    events: RecordBatch,
    lookups: Vec<Lookup>,
    projector: Projector,
}

impl Apart {
    /// With the first chunk of `stages`.
    ///
    /// # Panics
    /// Never: schemas and columns are the project's own.
    #[must_use]
    #[allow(clippy::expect_used, reason = "schemas and columns are the project's own")]
    pub fn new(stages: &mut Stages) -> Self {
        let events = stages.decode().rows;
        let (spec, columns) = (spec(), events.schema());
        let references = reference_rows(&Orders::new(1, TIMELINE));
        let lookups = spec.lookups.iter().zip([CUSTOMER_V1, PRODUCT_V1]).zip(references).enumerate();
        let lookups: Vec<Lookup> = lookups
            .map(|(at, ((lookup, schema), rows))| {
                let fields = reference_fields(&spec.columns, at);
                let mut table =
                    ReferenceTable::new(decoder(schema).columns(), &lookup.key, &fields).expect("the fields are there");
                table.upsert(&rows).expect("the records have the columns agreed on");
                Lookup::new(lookup.clone(), table, &columns).expect("the events have the key")
            })
            .collect();
        let projector = Projector::new(&spec.columns, &columns, &lookups).expect("the events have the fields");
        Self { events, lookups, projector }
    }

    /// The keys of the chunk, looked up: one per event, and one per item.
    ///
    /// # Panics
    /// Never: the events have the columns agreed on.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the events have the columns agreed on")]
    pub fn enrich(&self) -> Vec<Found> {
        self.lookups.iter().map(|lookup| lookup.find(&self.events).expect("the events have the keys")).collect()
    }

    /// The chunk as rows of the table.
    ///
    /// # Panics
    /// Never: the events have the columns agreed on.
    #[allow(clippy::expect_used, reason = "the events have the columns agreed on")]
    pub fn project(&mut self, found: &[Found]) -> RecordBatch {
        let (partitions, offsets): (Vec<i32>, Vec<i64>) = (0..self.events.num_rows() as i64).map(|n| (0, n)).unzip();
        let (partitions, offsets) = (Int32Array::from(partitions), Int64Array::from(offsets));
        self.projector.project(&self.events, partitions, offsets, &mut self.lookups, found).expect("columns are built")
    }

    /// So many copies of a chunk gathered into one batch.
    ///
    /// # Panics
    /// Never: the rows fit one array.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the rows fit one array")]
    pub fn gather(rows: &RecordBatch, copies: usize) -> RecordBatch {
        let mut batcher = Batcher::new(spec().batch, rows.schema());
        let published_ms = vec![0; rows.num_rows()];
        (0..copies).for_each(|_| batcher.add_rows(rows.clone(), &published_ms, 0));
        batcher.close(0, Trigger::Drain).expect("the rows fit one array").expect("there are rows").rows
    }
}
