mod limits;
mod oracle;
mod payments;
mod resolution;
mod versions;

use arrow_array::{Array, cast::AsArray, types::Int32Type};
use millrace_schemas::{ORDER_EVENT_V1, golden};

use super::*;

fn record(offset: i64, value: &[u8]) -> Record<'_> {
    Record { partition: 0, offset, timestamp_ms: 0, value: Some(value) }
}

fn orders() -> Decoder {
    let mut decoder = Decoder::new(ORDER_EVENT_V1, DecodeLimits::default()).unwrap();
    decoder.learn(golden::SCHEMA_ID, ORDER_EVENT_V1);
    decoder
}

#[test]
fn every_bad_golden_value_is_rejected_with_its_reason() {
    let mut decoder = orders();
    decoder.learn_absent(999_999);
    for bad in golden::bad() {
        let decoded = decoder.decode(&[record(0, &bad.bytes)]);
        let reasons: Vec<&str> = decoded.rejected.iter().map(|(_, rejection)| rejection.reason.code()).collect();
        assert_eq!(reasons, [bad.reason], "{}", bad.name);
        assert_eq!(decoded.rows.num_rows(), 0, "{}", bad.name);
    }
}

#[test]
fn the_reason_codes_are_those_of_the_contract() {
    for reason in Reason::ALL {
        assert!(golden::REASONS.contains(&reason.code()), "{reason} is missing from millrace_schemas::golden::REASONS");
    }
}

#[test]
fn good_and_bad_values_mixed_in_any_order_leave_the_good_ones_whole() {
    let good = golden::good();
    let bad = golden::bad();
    let mixed: Vec<&[u8]> =
        good.iter().zip(bad.iter().cycle()).flat_map(|(good, bad)| [&bad.bytes[..], &good.bytes[..]]).collect();
    let records: Vec<Record<'_>> = (0..).zip(&mixed).map(|(at, value)| record(at, value)).collect();
    let decoded = orders().decode(&records);
    assert_eq!(decoded.origin, (0..good.len() as u32).map(|at| at * 2 + 1).collect::<Vec<_>>());
    let ids = decoded.rows.column_by_name("event_id").unwrap().as_fixed_size_binary();
    for (row, good) in good.iter().enumerate() {
        assert_eq!(ids.value(row), good.event.event_id.as_bytes(), "{}", good.name);
    }
}

#[test]
fn two_writer_schemas_interleaved_come_out_as_one_batch() {
    let wide = r#"{"type":"record","name":"E","fields":[{"name":"x","type":"long"},{"name":"y","type":"string"}]}"#;
    let narrow = r#"{"type":"record","name":"E","fields":[{"name":"x","type":"int"}]}"#;
    let reader = r#"{"type":"record","name":"E","fields":[{"name":"x","type":"long"}]}"#;
    let mut decoder = Decoder::new(reader, DecodeLimits::default()).unwrap();
    decoder.learn(1, wide);
    decoder.learn(2, narrow);
    let values = [[0, 0, 0, 0, 1, 2, 2, b'a'].to_vec(), vec![0, 0, 0, 0, 2, 4], vec![0, 0, 0, 0, 1, 6, 0]];
    let records: Vec<Record<'_>> = values.iter().map(|value| record(0, value)).collect();
    let decoded = decoder.decode(&records);
    assert_eq!(decoded.rejected, []);
    assert_eq!(decoded.origin, [0, 1, 2], "in the order in which they came");
    assert_eq!(decoded.rows.column(0).as_primitive::<arrow_array::types::Int64Type>().values(), &[1, 2, 3]);
}

#[test]
fn a_symbol_that_the_reader_lacks_rejects_its_record_and_spares_the_others() {
    let writer = r#"{"type":"enum","name":"T","symbols":["a","b"]}"#;
    let reader = r#"{"type":"enum","name":"T","symbols":["a"]}"#;
    let schema = |t: &str| format!(r#"{{"type":"record","name":"E","fields":[{{"name":"t","type":{t}}}]}}"#);
    let mut decoder = Decoder::new(&schema(reader), DecodeLimits::default()).unwrap();
    decoder.learn(1, &schema(writer));
    let (a, b) = ([0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 2]);
    let records = [record(0, &a), record(1, &b), record(2, &a), record(3, &b), record(4, &a)];
    let decoded = decoder.decode(&records);
    assert_eq!(decoded.origin, [0, 2, 4]);
    assert_eq!(decoded.rows.num_rows(), 3);
    assert_eq!(decoded.rows.column(0).as_dictionary::<Int32Type>().null_count(), 0);
    let reasons: Vec<(u32, Reason)> = decoded.rejected.iter().map(|(at, r)| (*at, r.reason)).collect();
    assert_eq!(reasons, [(1, Reason::Unreadable), (3, Reason::Unreadable)]);
}

#[test]
fn an_absent_schema_is_asked_for_again_once_refusals_are_forgotten() {
    let mut decoder = orders();
    decoder.learn_absent(7);
    assert!(decoder.knows(7));
    decoder.forget_refused();
    assert!(!decoder.knows(7));
    assert!(decoder.knows(golden::SCHEMA_ID));
}

/// The one column of records with this only field `f`, and the reasons of those that were rejected.
fn column(writer: &str, reader: &str, datums: &[&[u8]]) -> (arrow_array::ArrayRef, Vec<Reason>) {
    column_within(DecodeLimits::default(), writer, reader, datums)
}

fn column_within(
    limits: DecodeLimits,
    writer: &str,
    reader: &str,
    datums: &[&[u8]],
) -> (arrow_array::ArrayRef, Vec<Reason>) {
    let schema = |t: &str| format!(r#"{{"type":"record","name":"E","fields":[{{"name":"f","type":{t}}}]}}"#);
    let mut decoder = Decoder::new(&schema(reader), limits).unwrap();
    decoder.learn(1, &schema(writer));
    let values: Vec<Vec<u8>> = datums.iter().map(|datum| [&[0, 0, 0, 0, 1], *datum].concat()).collect();
    let records: Vec<Record<'_>> = values.iter().map(|value| record(0, value)).collect();
    let decoded = decoder.decode(&records);
    assert_eq!(decoded.origin.len() + decoded.rejected.len(), datums.len());
    (Arc::clone(decoded.rows.column(0)), decoded.rejected.into_iter().map(|(_, rejection)| rejection.reason).collect())
}

#[test]
fn a_decimal_beyond_its_precision_and_a_date_beyond_the_calendar_are_out_of_range() {
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}"#;
    let (decimals, reasons) = column(decimal, decimal, &[&[4, 0x27, 0x0f], &[4, 0xd8, 0xf1], &[4, 0x27, 0x10]]);
    assert_eq!(decimals.as_primitive::<arrow_array::types::Decimal128Type>().values(), &[9_999, -9_999]);
    assert_eq!(reasons, [Reason::OutOfRange], "100.00");
    let time = r#"{"type":"long","logicalType":"timestamp-millis"}"#;
    let far = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let (times, reasons) = column(time, time, &[&[0], &far]);
    assert_eq!((times.len(), reasons), (1, vec![Reason::OutOfRange]));
}

#[test]
fn a_recursive_schema_is_refused_and_so_is_one_that_unfolds_without_end() {
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    let error = Decoder::new(list, DecodeLimits::default()).unwrap_err().to_string();
    assert!(error.contains("`L` contains itself"), "{error}");
    let mut doubling = r#"{"type":"record","name":"R0","fields":[{"name":"x","type":"int"}]}"#.to_owned();
    for depth in 1..40 {
        let inner = format!("R{}", depth - 1);
        doubling = format!(
            r#"{{"type":"record","name":"R{depth}","fields":[{{"name":"a","type":{doubling}}},{{"name":"b","type":"{inner}"}}]}}"#
        );
    }
    let error = Decoder::new(&doubling, DecodeLimits::default()).unwrap_err().to_string();
    assert!(error.contains("unfolds into more than"), "{error}");
}

#[test]
fn a_rejection_names_the_byte_where_the_datum_broke() {
    let schema = r#"{"type":"record","name":"E","fields":[{"name":"f","type":{"type":"array","items":"string"}}]}"#;
    let mut decoder = Decoder::new(schema, DecodeLimits::default()).unwrap();
    decoder.learn(1, schema);
    let decoded = decoder.decode(&[record(0, &[0, 0, 0, 0, 1, 2, 4, 0xff, 0xfe, 0])]);
    let (_, rejection) = &decoded.rejected[0];
    assert_eq!(rejection.reason, Reason::BadUtf8);
    assert!(rejection.detail.contains("byte 1"), "{rejection}");
}

#[test]
fn text_that_is_no_utf8_is_found_among_text_that_is_also_where_a_character_is_cut_in_two() {
    let text = r#""string""#;
    // The two halves of `é`, which together would be text.
    let (texts, reasons) = column(text, text, &[&[4, b'o', b'k'], &[2, 0xc3], &[2, 0xa9], &[4, 0xc3, 0xa9]]);
    assert_eq!(texts.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["ok", "é"]);
    assert_eq!(reasons, [Reason::BadUtf8, Reason::BadUtf8]);
}

#[test]
fn what_is_wrong_first_is_the_reason_whatever_else_is_wrong() {
    let pair = r#"{"type":"array","items":"string"}"#;
    // Bad text, and then the end.
    assert_eq!(column(pair, pair, &[&[4, 2, 0xff, 8, b'a']]).1, [Reason::BadUtf8]);
}
