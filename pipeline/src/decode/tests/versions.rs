//! The shipped versions of the order event, each read by each.

use millrace_schemas::{ORDER_EVENT_V1, ORDER_EVENT_V2, golden};

use super::*;

fn steps_and_sources(rows: &RecordBatch) -> Vec<(String, Option<String>)> {
    let steps = rows["event_type"].as_dictionary::<Int32Type>();
    let symbols = steps.values().as_string::<i32>();
    let sources = rows.column_by_name("source").map(|column| column.as_string::<i32>());
    let row = |row: usize| {
        let source = sources.filter(|sources| sources.is_valid(row)).map(|sources| sources.value(row).to_owned());
        (symbols.value(steps.keys().value(row) as usize).to_owned(), source)
    };
    (0..rows.num_rows()).map(row).collect()
}

fn read(reader: &str, values: &[Vec<u8>]) -> Vec<(String, Option<String>)> {
    let mut decoder = Decoder::new(reader, DecodeLimits::default()).unwrap();
    decoder.learn(1, ORDER_EVENT_V1);
    decoder.learn(2, ORDER_EVENT_V2);
    let records: Vec<Record<'_>> = (0..).zip(values).map(|(at, value)| record(at, value)).collect();
    let decoded = decoder.decode(&records);
    assert_eq!(decoded.rejected.len(), 0, "{:?}", decoded.rejected);
    steps_and_sources(&decoded.rows)
}

#[test]
fn old_readers_make_unknown_of_a_new_step_and_new_readers_null_of_a_missing_field() {
    let first = golden::good().into_iter().take(1).map(|good| golden::with_schema_id(&good.bytes, 1));
    let second = golden::good_v2().into_iter().map(|good| golden::with_schema_id(&good.bytes, 2));
    let values: Vec<Vec<u8>> = first.chain(second).collect();
    let row = |step: &str, source: Option<&str>| (step.to_owned(), source.map(str::to_owned));
    assert_eq!(read(ORDER_EVENT_V1, &values), [row("paid", None), row("unknown", None), row("created", None)]);
    assert_eq!(
        read(ORDER_EVENT_V2, &values),
        [row("paid", None), row("returned", Some("returns-desk")), row("created", None)]
    );
}
