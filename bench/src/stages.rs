//! The stages of the pipeline on generated events, without Kafka and ClickHouse: what benchmarks and the count of
//! instructions run. The one place here that links the pipeline.

mod apart;

use std::time::Duration;

use arrow_array::RecordBatch;
use millrace_pipeline::{
    batch::Trigger,
    decode::{DecodeLimits, Decoded, Decoder},
    encode::arrow_stream,
    record::Record,
    spec::{BatchLimits, ColumnSpec, DedupLimits, FieldPath, LookupSpec, MissPolicy, Source, TopicSpec},
    topic::TopicPipeline,
};
use millrace_producers::{Encoder, Event};
use millrace_schemas::{CUSTOMER_V1, ORDER_EVENT_V1, OrderEvent, PRODUCT_V1};

pub use self::apart::Apart;
use crate::orders::{Lookups, Orders, Timeline, blank};
use crate::reference::{CUSTOMERS, PRODUCTS};

/// Records in a chunk, as `millrace run` takes them.
pub const CHUNK: usize = 4096;
/// One record in so many is a duplicate of the one before it.
const DUPLICATE_ONE_IN: usize = 20;
const SCHEMA_ID: u32 = 1;
const PARTITIONS: i32 = 4;
const TIMELINE: Timeline = Timeline { start_ms: 1_767_225_600_000, spacing_us: 1000 };

/// What is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// A chunk of values into columns.
    Decode,
    /// A chunk of values decoded, deduplicated, enriched and projected into the open batch.
    Chunk,
    /// A batch into the body of an insert.
    Encode,
    /// Events into values, as a producer does.
    Publish,
}

/// Columns of the `orders` table and where they come from, as in the default configuration.
const COLUMNS: [(&str, &str); 19] = [
    ("event_id", "event_id"),
    ("event_type", "event_type"),
    ("timestamp", "timestamp"),
    ("order_id", "data.order_id"),
    ("customer_id", "data.customer_id"),
    ("currency", "data.currency"),
    ("total", "data.total"),
    ("coupon", "data.coupon"),
    ("channel", "data.channel"),
    ("shipping_country", "data.shipping.country"),
    ("shipping_city", "data.shipping.city"),
    ("items.sku", "data.items.sku"),
    ("items.quantity", "data.items.quantity"),
    ("items.unit_price", "data.items.unit_price"),
    ("items.category", "product:category"),
    ("items.brand", "product:brand"),
    ("customer_segment", "customer:segment"),
    ("customer_country", "customer:country"),
    ("customer_signup_date", "customer:signup_date"),
];

/// A pipeline that holds four partitions and all reference records, and values to feed it with.
pub struct Stages {
    decoder: Decoder,
    pipeline: TopicPipeline,
    values: Vec<Vec<u8>>,
    next: usize,
    epoch: u64,
}

impl Stages {
    /// With so many events, of which one in twenty comes twice.
    ///
    /// # Panics
    /// Never: schemas and columns are the project's own.
    #[must_use]
    #[allow(clippy::expect_used, reason = "schemas and columns are the project's own")]
    pub fn new(events: usize) -> Self {
        let orders = Orders::new(1, TIMELINE);
        let (mut event, mut lookups) = (blank(), Lookups::default());
        let encoder = Encoder::new(SCHEMA_ID).expect("the schema is valid");
        let values = (0..events).map(|at| {
            let n = at - usize::from(at % DUPLICATE_ONE_IN == DUPLICATE_ONE_IN - 1);
            orders.write_event(n as u64, &mut event, &mut lookups);
            let mut value = Vec::new();
            encoder.encode(&event, &mut value).expect("an event has a datum");
            value
        });
        let values = values.collect();
        let schemas = [CUSTOMER_V1, PRODUCT_V1];
        let references = schemas.map(|schema| decoder(schema).columns().clone());
        let mut pipeline = TopicPipeline::new(spec(), ORDER_EVENT_V1, &references, DecodeLimits::default())
            .expect("the columns fit the schemas");
        pipeline.learn(SCHEMA_ID, ORDER_EVENT_V1);
        for (lookup, rows) in reference_rows(&orders).iter().enumerate() {
            pipeline.reference(lookup).upsert(rows).expect("the records have the columns agreed on");
        }
        let mut stages = Self { decoder: decoder(ORDER_EVENT_V1), pipeline, values, next: 0, epoch: 0 };
        stages.take_over();
        stages
    }

    /// The first chunk as columns.
    #[must_use]
    pub fn decode(&mut self) -> Decoded {
        self.decoder.decode(&records(&self.values, 0))
    }

    /// The next chunk through decode, dedup, enrichment and projection into the open batch. Once all have been, they are
    /// taken for new ones: the batch is closed and the ids are forgotten.
    ///
    /// # Panics
    /// Never: every record is readable.
    #[allow(clippy::expect_used, reason = "the records are the project's own")]
    pub fn process_next(&mut self) {
        if self.next * CHUNK >= self.values.len() {
            drop(self.close());
            self.take_over();
        }
        let chunk: Vec<Record<'_>> = records(&self.values, self.next);
        self.pipeline.process(&chunk, 0, |_, _| unreachable!("every record is readable")).expect("columns are built");
        self.next += 1;
    }

    /// The rows of all events as one batch.
    #[must_use]
    pub fn batch(&mut self) -> RecordBatch {
        drop(self.close());
        self.take_over();
        while self.next * CHUNK < self.values.len() {
            self.process_next();
        }
        self.close()
    }

    /// Goes once through a stage; how many events took part. Its own instructions are what a profiler that counts them
    /// under this name collects, without the setting up.
    #[inline(never)]
    pub fn counted_round(&mut self, stage: Stage, prepared: &Prepared) -> usize {
        match stage {
            Stage::Decode => self.decode().rows.num_rows(),
            Stage::Chunk => {
                self.process_next();
                CHUNK
            }
            Stage::Encode => {
                std::hint::black_box(Self::encode(&prepared.batch));
                prepared.batch.num_rows()
            }
            Stage::Publish => prepared.publish(),
        }
    }

    /// What [`Stages::counted_round`] works on.
    ///
    /// # Panics
    /// Never: the schema is valid.
    #[must_use]
    #[allow(clippy::expect_used, reason = "the schema is the project's own")]
    pub fn prepare(&mut self) -> Prepared {
        let orders = Orders::new(1, TIMELINE);
        let events = (0..CHUNK as u64).map(|n| orders.event(n)).collect();
        let batch = self.batch();
        self.take_over();
        Prepared { batch, events, encoder: Encoder::new(SCHEMA_ID).expect("the schema is valid") }
    }

    /// The body of an insert; how many bytes it has.
    ///
    /// # Panics
    /// Never: rows of the pipeline have an Arrow form.
    #[must_use]
    #[allow(clippy::expect_used, reason = "rows of the pipeline have an Arrow form")]
    pub fn encode(rows: &RecordBatch) -> usize {
        arrow_stream(rows).expect("rows have an Arrow form").iter().map(|piece| piece.len()).sum()
    }

    #[allow(clippy::expect_used, reason = "the batch is far below what an array can hold")]
    fn close(&mut self) -> RecordBatch {
        let batch = self.pipeline.close(0, Trigger::Drain).expect("the rows fit one array");
        batch.map_or_else(|| RecordBatch::new_empty(self.pipeline.row_schema().clone()), |batch| batch.rows)
    }

    fn take_over(&mut self) {
        let all: Vec<i32> = (0..PARTITIONS).collect();
        let attempt = self.pipeline.assign(&all);
        self.epoch += 1;
        self.next = 0;
        for partition in all {
            let index = self.pipeline.new_index()();
            self.pipeline.taken_over(attempt, partition, self.epoch, 0, index);
        }
    }
}

/// A batch of all rows, and the events of a chunk.
pub struct Prepared {
    batch: RecordBatch,
    events: Vec<OrderEvent>,
    encoder: Encoder<OrderEvent>,
}

impl Prepared {
    #[allow(clippy::expect_used, reason = "an event has a datum")]
    fn publish(&self) -> usize {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for event in &self.events {
            key.clear();
            value.clear();
            event.write_key(&mut key);
            self.encoder.encode(event, &mut value).expect("an event has a datum");
            std::hint::black_box((&key, &value));
        }
        self.events.len()
    }
}

/// Customers and products as columns.
fn reference_rows(orders: &Orders) -> [RecordBatch; 2] {
    let rows = |schema, values: Vec<Vec<u8>>| {
        let records: Vec<Record<'_>> = values.iter().map(|value| record(0, 0, value)).collect();
        decoder(schema).decode(&records).rows
    };
    [
        rows(CUSTOMER_V1, (0..CUSTOMERS).map(|at| encoded(orders.customer(at))).collect()),
        rows(PRODUCT_V1, (0..PRODUCTS).map(|at| encoded(orders.product(at))).collect()),
    ]
}

/// The `at`th chunk, its partitions in runs, as a consumer fetches them.
fn records(values: &[Vec<u8>], at: usize) -> Vec<Record<'_>> {
    let chunk = values.iter().enumerate().skip(at * CHUNK).take(CHUNK);
    chunk.map(|(at, value)| record((at / (CHUNK / 4)) as i32 % PARTITIONS, at as i64, value)).collect()
}

fn record(partition: i32, offset: i64, value: &[u8]) -> Record<'_> {
    Record { partition, offset, timestamp_ms: 0, value: Some(value) }
}

#[allow(clippy::expect_used, reason = "the schema is the project's own")]
fn decoder(schema: &str) -> Decoder {
    let mut decoder = Decoder::new(schema, DecodeLimits::default()).expect("the schema has columns");
    decoder.learn(SCHEMA_ID, schema);
    decoder
}

#[allow(clippy::expect_used, reason = "the record is the project's own")]
fn encoded<E: Event>(record: &E) -> Vec<u8> {
    let mut value = Vec::new();
    Encoder::new(SCHEMA_ID).and_then(|encoder| encoder.encode(record, &mut value)).expect("a record has a datum");
    value
}

#[allow(clippy::expect_used, reason = "the paths are constants")]
fn path(text: &str) -> FieldPath {
    text.parse().expect("a field path")
}

fn spec() -> TopicSpec {
    let source = |text: &str| match text.split_once(':') {
        Some((lookup, field)) => Source::Lookup { lookup: usize::from(lookup == "product"), field: path(field) },
        None => Source::Event(path(text)),
    };
    let columns = COLUMNS.iter().map(|(column, from)| ColumnSpec { column: (*column).into(), source: source(from) });
    let lookup = |name: &str, topic: &str, key, on| LookupSpec {
        name: name.into(),
        topic: topic.into(),
        key: path(key),
        on: path(on),
        miss: MissPolicy::Null,
    };
    TopicSpec {
        topic: "orders".into(),
        id: path("event_id"),
        columns: columns.collect(),
        lookups: vec![
            lookup("customer", "customers", "customer_id", "data.customer_id"),
            lookup("product", "products", "sku", "data.items.sku"),
        ],
        dedup: DedupLimits { window: Duration::from_secs(3600), max_ids: usize::MAX },
        batch: BatchLimits {
            max_rows: BatchLimits::MAX_ROWS,
            max_bytes: BatchLimits::MAX_BYTES,
            max_age: Duration::from_secs(1),
        },
        route: None,
    }
}
