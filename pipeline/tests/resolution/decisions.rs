//! Where ours differs from apache-avro on purpose: one test for each line of the table.

use apache_avro::types::Value;
use arrow_array::{Array, cast::AsArray, types};
use serde_json::{Value as Json, json};

use super::{ArrayRef, Both, read};

/// A record with these fields.
fn record(fields: &Json) -> String {
    json!({"type": "record", "name": "Event", "fields": fields}).to_string()
}

fn of_type(type_: &str) -> String {
    let type_: Json = serde_json::from_str(type_).unwrap();
    record(&json!([{"name": "f", "type": type_}]))
}

/// What ours and apache-avro make of a datum; `f` is the only field.
struct Outcome {
    ours: Result<ArrayRef, String>,
    theirs: Result<Value, String>,
}

fn read_one(writer: &str, reader: &str, datum: &[u8]) -> Outcome {
    let Both { ours, mut theirs } = read(writer, writer, reader, &[datum.to_vec()]);
    let ours = match &ours.rejected[..] {
        [] => Ok(std::sync::Arc::clone(ours.rows.column(0))),
        [(_, why), ..] => Err(why.to_string()),
    };
    let theirs = theirs.remove(0).map(|value| match value {
        Value::Record(mut fields) => fields.remove(0).1,
        other => other,
    });
    Outcome { ours, theirs }
}

/// As [`read_one`], for a field of these types.
fn read_as(writer: &str, reader: &str, datum: &[u8]) -> Outcome {
    read_one(&of_type(writer), &of_type(reader), datum)
}

/// What ours makes of a field with this default that the writer does not have, and what apache-avro does.
fn default_of(type_: &str, default: &Json) -> Outcome {
    let type_: Json = serde_json::from_str(type_).unwrap();
    read_one(&record(&json!([])), &record(&json!([{"name": "f", "type": type_, "default": default}])), &[])
}

fn decimal(precision: u32, scale: u32) -> String {
    json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}).to_string()
}

fn logical(base: &str, logical: &str) -> String {
    json!({"type": base, "logicalType": logical}).to_string()
}

const UUID_FIXED: &str = r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#;

#[test]
fn what_cannot_be_resolved_is_refused_whatever_the_value() {
    let fixed = r#"{"type":"fixed","name":"F","size":1}"#;
    for (writer, reader, datum) in [
        ("\"long\"", "\"int\"", &[2][..]),
        ("\"double\"", "\"float\"", &[0; 8]),
        (fixed, "\"string\"", b"a"),
        ("\"bytes\"", fixed, &[2, b'a']),
        (r#"{"type":"array","items":"string"}"#, r#"{"type":"array","items":"int"}"#, &[0]),
    ] {
        let Outcome { ours, theirs } = read_as(writer, reader, datum);
        assert!(ours.unwrap_err().contains("cannot be read as"), "{writer} as {reader}");
        assert!(theirs.is_ok(), "{writer} as {reader}: {theirs:?}");
    }
}

#[test]
fn a_renamed_field_is_found_by_its_alias() {
    let reader = record(&json!([{"name": "new", "aliases": ["f"], "type": "int"}]));
    let Outcome { ours, theirs } = read_one(&of_type("\"int\""), &reader, &[2]);
    assert_eq!(ours.unwrap().as_primitive::<types::Int32Type>().values(), &[1]);
    assert!(theirs.is_err());
}

#[test]
fn a_record_of_a_union_is_told_by_its_name_and_not_by_its_fields() {
    let named = |name: &str| json!({"type": "record", "name": name, "fields": [{"name": "x", "type": "int"}]});
    let writer = record(&json!([{"name": "f", "type": [named("Opened"), named("Closed")]}]));
    let reader = record(&json!([{"name": "f", "type": named("Closed")}]));
    let Outcome { ours, theirs } = read_one(&writer, &reader, &[0, 2]);
    assert!(ours.unwrap_err().contains("the writer has Opened, where Closed is read"));
    assert!(theirs.is_ok());
    let Outcome { ours, theirs } = read_one(&writer, &reader, &[2, 2]);
    assert!(ours.is_ok() && theirs.is_ok());
    // In a reader's union, too: the first that would do is not the one that is meant.
    let reader = record(&json!([{"name": "f", "type": [named("Closed"), named("Opened")]}]));
    let Outcome { ours, theirs } = read_one(&writer, &reader, &[0, 2]);
    assert!(ours.unwrap().as_struct().column_by_name("Closed").unwrap().is_null(0));
    assert!(matches!(theirs, Ok(Value::Union(0, _))), "{theirs:?}");
}

#[test]
fn a_logical_type_is_read_as_the_type_under_it() {
    let Outcome { ours, theirs } = read_as(&logical("int", "date"), "\"int\"", &[2]);
    assert_eq!(ours.unwrap().as_primitive::<types::Int32Type>().values(), &[1]);
    assert!(theirs.is_err());
    let Outcome { ours, theirs } = read_as(&logical("long", "timestamp-millis"), "\"long\"", &[2]);
    assert_eq!(ours.unwrap().as_primitive::<types::Int64Type>().values(), &[1]);
    assert!(theirs.is_err());
}

#[test]
fn a_logical_type_is_not_read_as_another() {
    let Outcome { ours, theirs } =
        read_as(&logical("long", "timestamp-micros"), &logical("long", "timestamp-millis"), &[2]);
    assert!(ours.is_err() && theirs.is_err());
}

#[test]
fn a_decimal_may_have_as_few_bytes_as_do() {
    let Outcome { ours, theirs } = read_as(&decimal(18, 2), &decimal(18, 2), &[2, 5]);
    assert_eq!(ours.unwrap().as_primitive::<types::Decimal128Type>().values(), &[5]);
    assert!(theirs.is_err());
}

#[test]
fn a_decimal_beyond_its_precision_is_refused() {
    let Outcome { ours, theirs } = read_as(&decimal(2, 0), &decimal(2, 0), &[2, 100]);
    assert!(ours.unwrap_err().contains("beyond its precision"));
    assert!(theirs.is_ok());
}

#[test]
fn decimals_of_different_scales_are_not_read_as_each_other() {
    let Outcome { ours, theirs } = read_as(&decimal(2, 2), &decimal(2, 1), &[2, 5]);
    assert!(ours.unwrap_err().contains("digits after the point"));
    assert!(theirs.is_ok());
}

#[test]
fn days_that_clickhouse_has_not_are_refused() {
    // 31 December 1899, and 1 January 2300.
    for day in [[0xbf, 0x8f, 0x03], [0xa4, 0xdb, 0x0e]] {
        let Outcome { ours, theirs } = read_as(&logical("int", "date"), &logical("int", "date"), &day);
        assert!(ours.unwrap_err().contains("beyond the years 1900 to 2299"), "{theirs:?}");
        assert!(theirs.is_ok());
    }
}

#[test]
fn a_time_beyond_its_day_is_refused() {
    let time = logical("long", "time-micros");
    let Outcome { ours, theirs } = read_as(&time, &time, &[1]);
    assert!(ours.unwrap_err().contains("a time beyond its day"));
    assert!(theirs.is_ok());
}

#[test]
fn a_uuid_in_text_has_its_hyphens() {
    let uuid = logical("string", "uuid");
    let datum = [&[64][..], b"00112233445566778899aabbccddeeff"].concat();
    let Outcome { ours, theirs } = read_as(&uuid, &uuid, &datum);
    assert!(ours.unwrap_err().contains("expected a UUID"));
    assert!(theirs.is_ok());
}

#[test]
fn text_read_as_a_fixed_uuid_is_the_uuid_that_it_spells() {
    let datum = [&[72][..], b"00112233-4455-6677-8899-aabbccddeeff"].concat();
    let Outcome { ours, theirs } = read_as("\"string\"", UUID_FIXED, &datum);
    assert_eq!(ours.unwrap().as_fixed_size_binary().value(0)[..3], [0, 0x11, 0x22]);
    assert!(theirs.is_err());
    let Outcome { ours, theirs } = read_as("\"string\"", UUID_FIXED, &[&[32][..], b"sixteen letters!"].concat());
    assert!(ours.is_err() && theirs.is_ok());
}

#[test]
fn the_default_of_bytes_is_a_byte_for_each_character() {
    let Outcome { ours, theirs } = default_of("\"bytes\"", &json!("\u{ff}"));
    assert_eq!(ours.unwrap().as_binary::<i32>().value(0), [0xff]);
    assert_eq!(theirs, Ok(Value::Bytes(vec![0xc3, 0xbf])));
    let Outcome { ours, theirs } = default_of(r#"{"type":"fixed","name":"F","size":1}"#, &json!("\u{ff}"));
    assert_eq!(ours.unwrap().as_fixed_size_binary().value(0), [0xff]);
    assert!(!matches!(theirs, Ok(Value::Fixed(1, _))), "{theirs:?}");
}

#[test]
fn the_default_of_a_union_is_of_the_first_branch_that_takes_it() {
    let Outcome { ours, theirs } = default_of(r#"["null","int"]"#, &json!(5));
    let ours = ours.unwrap();
    assert_eq!((ours.null_count(), ours.as_primitive::<types::Int32Type>().value(0)), (0, 5));
    assert_eq!(theirs, Ok(Value::Union(0, Box::new(Value::Null))));
}
