//! The decoder against two others: arrow-avro's columns, and apache-avro's own check of a datum.

use apache_avro::{
    Schema as AvroSchema, reader::datum::GenericDatumReader, types::Value, writer::datum::GenericDatumWriter,
};
use arrow_array::RecordBatch;
use arrow_avro::{
    reader::{DecoderMode, ReaderBuilder},
    schema::{AvroSchema as ArrowAvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore},
};
use proptest::prelude::*;

use super::*;

/// One field of every type that has a column.
const EVERYTHING: &str = r#"{"type":"record","name":"E","fields":[
  {"name":"boolean","type":"boolean"},{"name":"int","type":"int"},{"name":"long","type":"long"},{"name":"float","type":"float"},
  {"name":"double","type":"double"},{"name":"bytes","type":"bytes"},{"name":"string","type":"string"},
  {"name":"uuid","type":{"type":"string","logicalType":"uuid"}},
  {"name":"date","type":{"type":"int","logicalType":"date"}},{"name":"time","type":{"type":"int","logicalType":"time-millis"}},
  {"name":"time_us","type":{"type":"long","logicalType":"time-micros"}},
  {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
  {"name":"at_us","type":{"type":"long","logicalType":"timestamp-micros"}},
  {"name":"local","type":{"type":"long","logicalType":"local-timestamp-millis"}},
  {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}},
  {"name":"fixed_price","type":{"type":"fixed","name":"P","size":8,"logicalType":"decimal","precision":10,"scale":1}},
  {"name":"fixed","type":{"type":"fixed","name":"F","size":5}},
  {"name":"enum","type":{"type":"enum","name":"N","symbols":["a","b","c"]}},
  {"name":"list","type":{"type":"array","items":["null","string"]}},
  {"name":"map","type":{"type":"map","values":"long"}},
  {"name":"maybe","type":["null","string"]},{"name":"maybe_last","type":["double","null"]},
  {"name":"record","type":["null",{"type":"record","name":"R","fields":[
    {"name":"x","type":"int"},
    {"name":"items","type":{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"q","type":["null","int"]},{"name":"n","type":"N"}]}}}]}]}
]}"#;

fn random_value(schema: &AvroSchema, random: &mut impl FnMut() -> u64) -> Value {
    // Of days and times those that ClickHouse's calendar has.
    let small = |random: &mut dyn FnMut() -> u64| (random() % 100_000) as i64 - 20_000;
    let text = |random: &mut dyn FnMut() -> u64| {
        ["", "a", "naïve", "東京", "x".repeat(70).as_str()][random() as usize % 5].to_owned()
    };
    match schema {
        AvroSchema::Boolean => Value::Boolean(random().is_multiple_of(2)),
        AvroSchema::Int => Value::Int(random() as i32),
        AvroSchema::Long => Value::Long(random() as i64 >> (random() % 64)),
        AvroSchema::Float => Value::Float(random() as f32),
        AvroSchema::Double => Value::Double(random() as f64),
        AvroSchema::Bytes => Value::Bytes(random().to_le_bytes()[..random() as usize % 9].to_vec()),
        AvroSchema::String => Value::String(text(random)),
        AvroSchema::Uuid(_) => Value::Uuid(uuid::Uuid::from_u64_pair(random(), random())),
        AvroSchema::Date => Value::Date(small(random) as i32),
        AvroSchema::TimeMillis => Value::TimeMillis(small(random).abs() as i32),
        AvroSchema::TimeMicros => Value::TimeMicros(small(random).abs()),
        AvroSchema::TimestampMillis => Value::TimestampMillis(small(random) * 86_399_999),
        AvroSchema::TimestampMicros => Value::TimestampMicros(small(random) * 86_399_999_999),
        AvroSchema::LocalTimestampMillis => Value::LocalTimestampMillis(small(random)),
        AvroSchema::Decimal(decimal) => {
            let len = if matches!(decimal.inner, apache_avro::schema::InnerDecimalSchema::Fixed(_)) { 8 } else { 4 };
            let number = (random() as i32).to_be_bytes();
            let sign = if number[0] & 0x80 == 0 { 0 } else { 0xff };
            Value::Decimal([vec![sign; len - 4], number.to_vec()].concat().into())
        }
        AvroSchema::Fixed(fixed) => Value::Fixed(fixed.size, (0..fixed.size).map(|_| random() as u8).collect()),
        AvroSchema::Enum(symbols) => {
            let at = random() as usize % symbols.symbols.len();
            Value::Enum(at as u32, symbols.symbols[at].clone())
        }
        AvroSchema::Array(array) => {
            Value::Array((0..random() % 4).map(|_| random_value(&array.items, random)).collect())
        }
        AvroSchema::Map(map) => {
            Value::Map((0..random() % 3).map(|at| (format!("k{at}"), random_value(&map.types, random))).collect())
        }
        AvroSchema::Union(union) => {
            let at = random() as usize % union.variants().len();
            Value::Union(at as u32, Box::new(random_value(&union.variants()[at], random)))
        }
        AvroSchema::Record(record) => {
            Value::Record(record.fields.iter().map(|f| (f.name.clone(), random_value(&f.schema, random))).collect())
        }
        AvroSchema::Null => Value::Null,
        // The one name in EVERYTHING.
        AvroSchema::Ref { .. } => Value::Enum(2, "c".to_owned()),
        other => panic!("no value of {other:?}"),
    }
}

fn by_arrow_avro(schema: &str, datums: &[Vec<u8>]) -> RecordBatch {
    let id = Fingerprint::Id(1);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store.set(id, ArrowAvroSchema::new(schema.to_owned())).unwrap();
    let builder = ReaderBuilder::new().with_reader_schema(ArrowAvroSchema::new(schema.to_owned()));
    let builder = builder.with_writer_schema_store(store).with_active_fingerprint(id);
    let mut decoder =
        builder.with_decoder_mode(DecoderMode::UnframedDatum).with_batch_size(1 << 20).build_decoder().unwrap();
    for datum in datums {
        assert_eq!(decoder.decode(datum).unwrap(), datum.len());
    }
    decoder.flush().unwrap().unwrap()
}

/// Columns as text, without the metadata of fields, in which arrow-avro keeps names as well.
fn shown(rows: &RecordBatch) -> Vec<String> {
    let columns = rows.schema_ref().fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| format!("{} {}: {column:?}", field.name(), field.is_nullable()));
    let without_metadata = |text: String| {
        let mut parts = text.split(", metadata: {");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + part.split_once('}').map_or("", |(_, rest)| rest))
    };
    columns.map(without_metadata).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn columns_are_those_of_arrow_avro(seed in any::<u64>()) {
        let schema = AvroSchema::parse_str(EVERYTHING).unwrap();
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 16 ^ state << 47
        };
        let datums: Vec<Vec<u8>> =
            (0..20).map(|_| writer.write_value_to_vec(random_value(&schema, &mut random)).unwrap()).collect();
        let values: Vec<Vec<u8>> = datums.iter().map(|datum| [&[0, 0, 0, 0, 1], &datum[..]].concat()).collect();
        let records: Vec<Record<'_>> = values.iter().map(|value| record(0, value)).collect();
        let mut decoder = Decoder::new(EVERYTHING, DecodeLimits::default()).unwrap();
        decoder.learn(1, EVERYTHING);
        let decoded = decoder.decode(&records);
        prop_assert_eq!(&decoded.rejected, &[]);
        for (ours, theirs) in shown(&decoded.rows).into_iter().zip(shown(&by_arrow_avro(EVERYTHING, &datums))) {
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_broken_datum_leaves_nothing_behind_and_is_one_that_others_cannot_read_either(
        golden in 0usize..golden::good().len(),
        flips in prop::collection::vec((0usize..400, any::<u8>()), 0..4),
        cut in prop::option::of(0usize..400),
    ) {
        let good = &golden::good()[golden].bytes;
        let mut bytes = good.clone();
        for (at, byte) in flips {
            if let Some(place) = bytes.get_mut(5 + at) { *place = byte; }
        }
        if let Some(cut) = cut { bytes.truncate(5.max(bytes.len().min(cut))); }
        let alone = orders().decode(&[record(0, good)]).rows;
        let decoded = orders().decode(&[record(0, good), record(1, &bytes), record(2, good)]);
        let last = decoded.rows.num_rows() - 1;
        prop_assert_eq!(decoded.rows.slice(0, 1), alone.clone());
        prop_assert_eq!(decoded.rows.slice(last, 1), alone);
        let schema = AvroSchema::parse_str(ORDER_EVENT_V1).unwrap();
        if last == 2 {
            let mut rest = &bytes[5..];
            let reader = GenericDatumReader::builder(&schema).build().unwrap();
            prop_assert!(reader.read_value(&mut rest).is_ok(), "{bytes:?}");
            prop_assert!(rest.is_empty());
        }
    }
}
