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
    let mut by_origin: Vec<(u32, i64)> = decoded
        .origin
        .iter()
        .copied()
        .zip(decoded.rows.column(0).as_primitive::<arrow_array::types::Int64Type>().values().iter().copied())
        .collect();
    by_origin.sort_unstable();
    assert_eq!(by_origin, [(0, 1), (1, 2), (2, 3)]);
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
    let mut origin = decoded.origin.clone();
    origin.sort_unstable();
    assert_eq!(origin, [0, 2, 4]);
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
