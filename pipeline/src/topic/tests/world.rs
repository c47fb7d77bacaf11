//! Order events and reference records as Kafka carries them, and a pipeline for them.

use std::{sync::OnceLock, time::Duration};

use apache_avro::{Schema, writer::datum::GenericDatumWriter};
use arrow_array::{RecordBatch, StringArray, cast::AsArray, types::Int32Type, types::Int64Type};
use millrace_schemas::{CUSTOMER_V1, Customer, ORDER_EVENT_V1, OrderEvent, PRODUCT_V1, Product, golden};
use uuid::Uuid;

use super::super::*;
use crate::spec::{BatchLimits, ColumnSpec, DedupLimits, LookupSpec, Others, RouteSpec, Source};
use crate::{batch::Batch, decode::Decoder, reason::Rejection, record::Record, spec::MissPolicy};

pub(super) const CUSTOMER: usize = 0;
pub(super) const PRODUCT: usize = 1;
pub(super) const WAIT_MS: Millis = 100;
pub(super) const WAIT: MissPolicy = MissPolicy::Wait { timeout: Duration::from_millis(WAIT_MS) };
pub(super) const MAX_ROWS: usize = 1000;
pub(super) const MAX_AGE_MS: Millis = 500;

macro_rules! framed {
    ($schema:expr, $record:expr) => {{
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        let schema = SCHEMA.get_or_init(|| Schema::parse_str($schema).unwrap());
        let datum = GenericDatumWriter::builder(schema).build().unwrap().write_ser_to_vec($record).unwrap();
        [&[0, 0, 0, 0, 1][..], &datum].concat()
    }};
}

/// An event whose id is made of `n`; `customer` and one item per `sku`.
pub(super) fn order(n: u128, customer: &str, skus: &[&str]) -> Vec<u8> {
    let typical = golden::good().into_iter().find(|good| good.name == "typical").unwrap();
    let mut event: OrderEvent = typical.event;
    let item = event.data.items[0].clone();
    event.event_id = Uuid::from_u128(n);
    event.data.customer_id = customer.to_owned();
    event.data.items =
        skus.iter().map(|sku| millrace_schemas::Item { sku: (*sku).to_owned(), ..item.clone() }).collect();
    framed!(ORDER_EVENT_V1, &event)
}

/// A reference record of a customer; the segment tells versions apart.
pub(super) fn customer(id: &str, segment: &str) -> RecordBatch {
    let customer =
        Customer { customer_id: id.into(), segment: segment.into(), country: "SE".into(), signup_date: 19_000 };
    decoded(CUSTOMER_V1, &framed!(CUSTOMER_V1, &customer))
}

pub(super) fn product(sku: &str, category: &str) -> RecordBatch {
    let product = Product {
        sku: sku.into(),
        category: category.into(),
        brand: "Nordwind".into(),
        list_price: millrace_schemas::Decimal2(1),
    };
    decoded(PRODUCT_V1, &framed!(PRODUCT_V1, &product))
}

fn decoded(schema: &str, value: &[u8]) -> RecordBatch {
    let mut decoder = Decoder::new(schema, DecodeLimits::default()).unwrap();
    decoder.learn(1, schema);
    decoder.decode(&[Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(value) }]).rows
}

fn spec(customer: MissPolicy, dedup: DedupLimits, batch: BatchLimits) -> TopicSpec {
    let event =
        |column: &str, path: &str| ColumnSpec { column: column.into(), source: Source::Event(path.parse().unwrap()) };
    let looked_up = |column: &str, lookup, field: &str| ColumnSpec {
        column: column.into(),
        source: Source::Lookup { lookup, field: field.parse().unwrap() },
    };
    let lookup = |name: &str, topic: &str, key: &str, on: &str, miss| LookupSpec {
        name: name.into(),
        topic: topic.into(),
        key: key.parse().unwrap(),
        on: on.parse().unwrap(),
        miss,
    };
    TopicSpec {
        topic: "orders".into(),
        id: "event_id".parse().unwrap(),
        columns: vec![
            event("event_id", "event_id"),
            event("customer_id", "data.customer_id"),
            event("items.sku", "data.items.sku"),
            looked_up("customer_segment", CUSTOMER, "segment"),
            looked_up("items.category", PRODUCT, "category"),
            looked_up("customer_signup_date", CUSTOMER, "signup_date"),
        ],
        lookups: vec![
            lookup("customer", "customers", "customer_id", "data.customer_id", customer),
            lookup("product", "products", "sku", "data.items.sku", MissPolicy::Null),
        ],
        dedup,
        batch,
        route: None,
    }
}

pub(super) fn pipeline_of(customer: MissPolicy, max_ids: usize) -> TopicPipeline {
    let batch = BatchLimits {
        max_rows: MAX_ROWS,
        max_bytes: BatchLimits::MAX_BYTES,
        max_age: Duration::from_millis(MAX_AGE_MS),
    };
    pipeline(spec(customer, DedupLimits { window: Duration::from_secs(3600), max_ids }, batch))
}

/// A pipeline with partition 0 running, for the order events among records of several types; customers are another's.
pub(super) fn routed(others: Others) -> TopicPipeline {
    let batch = BatchLimits { max_rows: MAX_ROWS, max_bytes: BatchLimits::MAX_BYTES, max_age: Duration::from_secs(1) };
    let mut spec = spec(MissPolicy::Null, DedupLimits { window: Duration::from_secs(3600), max_ids: 1 << 30 }, batch);
    let name = |record: &str| format!("com.millrace.orders.{record}");
    spec.route = Some(RouteSpec { record: name("OrderEvent"), elsewhere: vec![name("Customer")], others });
    let mut pipeline = pipeline(spec);
    pipeline.learn(2, CUSTOMER_V1);
    pipeline.learn(3, PRODUCT_V1);
    let attempt = pipeline.assign(&[0]);
    let index = pipeline.new_index()();
    assert!(pipeline.taken_over(attempt, 0, 1, 0, index));
    pipeline
}

/// A pipeline that remembers every id inside the window.
pub(super) fn simulated(customer: MissPolicy, batch: BatchLimits, window_ms: Millis) -> TopicPipeline {
    pipeline(spec(customer, DedupLimits { window: Duration::from_millis(window_ms), max_ids: usize::MAX }, batch))
}

fn pipeline(spec: TopicSpec) -> TopicPipeline {
    static REFERENCES: OnceLock<[arrow_schema::SchemaRef; 2]> = OnceLock::new();
    let references = REFERENCES.get_or_init(|| {
        [CUSTOMER_V1, PRODUCT_V1].map(|schema| Decoder::new(schema, DecodeLimits::default()).unwrap().columns().clone())
    });
    let mut pipeline = TopicPipeline::new(spec, ORDER_EVENT_V1, references, DecodeLimits::default()).unwrap();
    pipeline.learn(golden::SCHEMA_ID, ORDER_EVENT_V1);
    pipeline.learn_absent(999_999);
    pipeline
}

/// A pipeline whose customers are looked up under this policy, with the partitions running from offset 0 at epoch 1.
pub(super) fn running(customer: MissPolicy, partitions: &[i32]) -> TopicPipeline {
    let mut pipeline = pipeline_of(customer, 1 << 30);
    let attempt = pipeline.assign(partitions);
    for partition in partitions {
        let index = pipeline.new_index()();
        assert!(pipeline.taken_over(attempt, *partition, 1, 0, index));
    }
    pipeline
}

/// Takes partitions over from offset 0 at `epoch`, with nothing in the table.
pub(super) fn take_over(pipeline: &mut TopicPipeline, again: Option<(Attempt, Vec<i32>)>, epoch: u64) -> Vec<i32> {
    let Some((attempt, partitions)) = again else { return Vec::new() };
    for partition in &partitions {
        let index = pipeline.new_index()();
        assert!(pipeline.taken_over(attempt, *partition, epoch, 0, index));
    }
    partitions
}

/// Accepts and processes (partition, offset, value) at one time.
pub(super) fn feed(pipeline: &mut TopicPipeline, records: &[(i32, i64, &[u8])], now: Millis) -> Processed {
    let records: Vec<Record<'_>> = records
        .iter()
        .filter(|(partition, offset, _)| pipeline.accept(*partition, *offset))
        .map(|(partition, offset, value)| Record {
            partition: *partition,
            offset: *offset,
            timestamp_ms: *offset,
            value: Some(value),
        })
        .collect();
    pipeline.process(&records, now, |at, rejection| letter(&records[at], rejection)).unwrap()
}

pub(super) fn letter(record: &Record<'_>, rejection: Rejection) -> DeadLetter {
    DeadLetter {
        partition: record.partition,
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: None,
        value: record.value.map(<[u8]>::to_vec),
        headers: Vec::new(),
        rejection,
    }
}

/// (event id, partition, offset) of each row.
pub(super) fn landed(rows: &RecordBatch) -> Vec<(u128, i32, i64)> {
    let ids = rows.column_by_name("event_id").unwrap().as_fixed_size_binary();
    let partitions = rows.column_by_name("_partition").unwrap().as_primitive::<Int32Type>();
    let offsets = rows.column_by_name("_offset").unwrap().as_primitive::<Int64Type>();
    (0..rows.num_rows())
        .map(|row| (Uuid::from_slice(ids.value(row)).unwrap().as_u128(), partitions.value(row), offsets.value(row)))
        .collect()
}

pub(super) fn ids(batch: &Batch) -> Vec<u128> {
    landed(&batch.rows).into_iter().map(|(id, ..)| id).collect()
}

pub(super) fn segments(batch: &Batch) -> Vec<Option<String>> {
    let segments = batch.rows.column_by_name("customer_segment").unwrap().as_dictionary::<Int32Type>();
    segments.downcast_dict::<StringArray>().unwrap().into_iter().map(|text| text.map(str::to_owned)).collect()
}
