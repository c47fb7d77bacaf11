use millrace_pipeline::{
    decode::{DecodeLimits, Decoder},
    record::Record,
    wire,
};
use millrace_schemas::{ORDER_EVENT_V1, golden};

use super::*;

fn schema(json: &str) -> Schema {
    Schema::parse_str(json).unwrap()
}

/// The fields, one a line, and the end.
fn walked(json: &str, datum: &[u8]) -> (Vec<String>, End) {
    let schema = schema(json);
    let walk = walk(&schema, datum);
    (walk.fields.iter().map(|field| format!("{} {} {}", field.at, field.path, field.value)).collect(), walk.end)
}

/// What the pipeline says of a value.
fn refusal(value: &[u8]) -> (String, String) {
    let mut decoder = Decoder::new(ORDER_EVENT_V1, DecodeLimits::default()).unwrap();
    decoder.learn(golden::SCHEMA_ID, ORDER_EVENT_V1);
    let decoded = decoder.decode(&[Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(value) }]);
    let (_, rejection) = &decoded.rejected[0];
    (rejection.reason.code().to_owned(), rejection.detail.clone())
}

#[test]
fn every_bad_golden_value_breaks_at_the_byte_and_for_the_reason_that_the_pipeline_tells() {
    let schema = schema(ORDER_EVENT_V1);
    let mut framed = 0;
    for bad in golden::bad() {
        let Ok((golden::SCHEMA_ID, datum)) = wire::split(Some(&bad.bytes)) else { continue };
        framed += 1;
        let (reason, detail) = refusal(&bad.bytes);
        let (told, at) = match walk(&schema, datum).end {
            End::Broken { at, reason, .. } => (reason.code(), format!("breaks at byte {at}:")),
            End::TrailingBytes { at } => ("trailing_bytes", format!("ends at byte {at}")),
            end => panic!("{}: {end:?}", bad.name),
        };
        assert_eq!((told, bad.reason), (reason.as_str(), bad.reason), "{}", bad.name);
        assert!(detail.contains(&at), "{}: {at}, but the pipeline says: {detail}", bad.name);
    }
    assert!(framed > 20, "{framed}");
}

#[test]
fn what_stands_before_the_break_is_shown() {
    let schema = schema(ORDER_EVENT_V1);
    let bad = golden::bad().into_iter().find(|bad| bad.name == "truncated_in_item").unwrap();
    let (_, datum) = wire::split(Some(&bad.bytes)).unwrap();
    let walk = walk(&schema, datum);
    let shown: Vec<(&str, String)> =
        walk.fields.iter().map(|field| (field.path.as_str(), field.value.to_string())).collect();
    for (path, value) in [
        ("event_id", "\"0b9d6a1e-5c1f-4f3a-9a57-3f6d2c8e7b10\""),
        ("event_type", "\"paid\""),
        ("data.currency", "\"EUR\""),
        ("data.total", "\"236.15\""),
        ("data.coupon", "null"),
        ("data.shipping.city", "\"Hamburg\""),
    ] {
        assert!(shown.contains(&(path, value.to_owned())), "{path} {value} in {shown:?}");
    }
    let End::Broken { path, .. } = walk.end else { panic!("{:?}", walk.end) };
    assert!(path.starts_with("data.items[0]."), "{path}");
}

#[test]
fn every_good_golden_value_is_walked_whole() {
    let schema = schema(ORDER_EVENT_V1);
    for good in golden::good() {
        let (_, datum) = wire::split(Some(&good.bytes)).unwrap();
        let walk = walk(&schema, datum);
        assert_eq!(walk.end, End::Whole, "{}", good.name);
        let total = walk.fields.iter().find(|field| field.path == "data.total").unwrap();
        assert_eq!(total.value, json!(good.event.data.total.to_string()), "{}", good.name);
        let skus = walk.fields.iter().filter(|field| field.path.ends_with("].sku")).count();
        assert_eq!(skus, good.event.data.items.len(), "{}", good.name);
    }
}

#[test]
fn every_kind_of_value_is_shown() {
    let (fields, end) = walked(
        r#"{"type":"record","name":"E","fields":[
            {"name":"b","type":"boolean"},{"name":"d","type":"double"},{"name":"f","type":"float"},
            {"name":"x","type":{"type":"fixed","name":"F","size":2}},{"name":"again","type":"F"},
            {"name":"day","type":{"type":"int","logicalType":"date"}},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
            {"name":"m","type":{"type":"map","values":["null","int"]}},{"name":"e","type":{"type":"array","items":"int"}}]}"#,
        &[
            &[1][..],
            &1.5f64.to_le_bytes(),
            &f32::INFINITY.to_le_bytes(),
            &[0xab, 0xcd, 1, 2, 2, 1],
            &[4, 2, b'k', 2, 14, 2, b'l', 0, 0],
            &[0],
        ]
        .concat(),
    );
    let expected = [
        "0 b true",
        "1 d 1.5",
        "9 f \"inf\"",
        "13 x \"0xabcd\"",
        "15 again \"0x0102\"",
        "17 day \"1970-01-02\"",
        "18 at \"1969-12-31T23:59:59.999Z\"",
        "23 m[\"k\"] 7",
        "27 m[\"l\"] null",
        "28 e []",
    ];
    assert_eq!((fields.iter().map(String::as_str).collect::<Vec<_>>(), end), (expected.to_vec(), End::Whole));
}

#[test]
fn hostile_bytes_and_schemas_end_soon() {
    let claims = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let many = |items: &str| walked(&format!(r#"{{"type":"array","items":{items}}}"#), &claims);
    let empty = r#"{"type":"record","name":"N","fields":[]}"#;
    for (items, shown) in [("\"null\"", MAX_FIELDS), (empty, MAX_FIELDS)] {
        let (fields, end) = many(items);
        assert_eq!((fields.len(), end), (shown, End::Shortened { at: 10 }), "{items}");
    }
    assert_eq!(many("\"int\"").1, End::Broken { from: 0, at: 0, path: String::new(), reason: Reason::BadLength });

    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    assert_eq!(walked(list, &[2, 2, 0]), (vec!["3 next.next.next null".to_owned()], End::Whole));
    assert!(matches!(walked(list, &[2; 1_000_000]).1, End::Shortened { .. }));
    let mut doubling = r#"{"type":"record","name":"R0","fields":[{"name":"x","type":"null"}]}"#.to_owned();
    for depth in 1..40 {
        let fields = format!(r#"{{"name":"a","type":{doubling}}},{{"name":"b","type":"R{}"}}"#, depth - 1);
        doubling = format!(r#"{{"type":"record","name":"R{depth}","fields":[{fields}]}}"#);
    }
    let (fields, end) = walked(&format!(r#"{{"type":"array","items":{doubling}}}"#), &[2, 0]);
    assert!(fields.len() <= MAX_FIELDS && matches!(end, End::Shortened { .. }), "{end:?}");
    let (fields, _) = walked("\"bytes\"", &[&[0x80, 0x80, 0x7d][..], &vec![7; 1_024_000]].concat());
    assert!(fields[0].len() < 200, "{}", fields[0].len());
}
