//! Which of a writer's types are read as which of the reader's, and what becomes of the values.

use arrow_array::StringArray;
use arrow_array::types::{Float64Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_schema::DataType;

use super::*;

const NULLABLE_LONG: &str = r#"["null","long"]"#;

#[test]
fn numbers_are_promoted_and_text_and_bytes_are_read_as_each_other() {
    assert_eq!(column("\"int\"", "\"long\"", &[&[3]]).0.as_primitive::<Int64Type>().values(), &[-2]);
    assert_eq!(column("\"int\"", "\"double\"", &[&[3]]).0.as_primitive::<Float64Type>().values(), &[-2.0]);
    let float = 1.5_f32.to_le_bytes();
    assert_eq!(column("\"float\"", "\"double\"", &[&float]).0.as_primitive::<Float64Type>().values(), &[1.5]);
    assert_eq!(column("\"bytes\"", "\"string\"", &[&[2, b'a']]).0.as_string::<i32>().value(0), "a");
    assert_eq!(column("\"string\"", "\"bytes\"", &[&[2, b'a']]).0.as_binary::<i32>().value(0), b"a");
}

#[test]
fn a_union_is_read_branch_by_branch_and_a_branch_without_a_place_rejects_its_records_only() {
    let (values, reasons) = column(r#"["string","null","int"]"#, NULLABLE_LONG, &[&[2], &[4, 6], &[0, 2, b'a'], &[6]]);
    let values: Vec<Option<i64>> = values.as_primitive::<Int64Type>().iter().collect();
    assert_eq!(values, [None, Some(3)]);
    assert_eq!(reasons, [Reason::Unreadable, Reason::BadUnionIndex]);
    // A null where the reader has none.
    let (values, reasons) = column(NULLABLE_LONG, "\"long\"", &[&[0], &[2, 8]]);
    assert_eq!(values.as_primitive::<Int64Type>().values(), &[4]);
    assert_eq!(reasons, [Reason::Unreadable]);
    assert_eq!(column("\"long\"", NULLABLE_LONG, &[&[2]]).0.as_primitive::<Int64Type>().value(0), 1);
    assert_eq!(column("\"null\"", NULLABLE_LONG, &[&[]]).0.null_count(), 1);
}

#[test]
fn symbols_are_told_apart_by_name_and_an_unknown_one_is_the_default_if_there_is_one() {
    let symbols =
        |symbols: &str, default: &str| format!(r#"{{"type":"enum","name":"T","symbols":[{symbols}]{default}}}"#);
    let writer = symbols(r#""new","b","a""#, "");
    let reader = symbols(r#""a","b""#, "");
    let (values, reasons) = column(&writer, &reader, &[&[2], &[4], &[0]]);
    let names = values.as_dictionary::<Int32Type>().downcast_dict::<StringArray>().unwrap();
    assert_eq!(names.into_iter().flatten().collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(reasons, [Reason::Unreadable]);
    let (values, reasons) = column(&writer, &symbols(r#""a","b""#, r#","default":"b""#), &[&[0]]);
    assert_eq!((values.as_dictionary::<Int32Type>().keys().values().to_vec(), reasons), (vec![1], vec![]));
}

#[test]
fn fields_are_found_by_name_or_alias_others_are_passed_over_and_missing_ones_have_their_default() {
    let schema = |fields: &str| format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#);
    let reader = schema(
        r#"{"name":"b","type":"string","aliases":["old"]},{"name":"n","type":"int","default":-7},
           {"name":"s","type":["null","string"],"default":null},{"name":"l","type":{"type":"array","items":"string"},"default":["x","y"]},
           {"name":"r","type":{"type":"record","name":"R","fields":[{"name":"k","type":"bytes","default":"\u00ff"}]},"default":{}},
           {"name":"a","type":"long"}"#,
    );
    let mut decoder = Decoder::new(&reader, DecodeLimits::default()).unwrap();
    decoder.learn(
        1,
        &schema(r#"{"name":"a","type":"int"},{"name":"gone","type":["int","string"]},{"name":"old","type":"string"}"#),
    );
    let decoded = decoder.decode(&[record(0, &[0, 0, 0, 0, 1, 2, 2, 2, b'?', 4, b'h', b'i'])]);
    assert_eq!(decoded.rejected, []);
    let rows = decoded.rows;
    let names: Vec<&str> = rows.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["b", "n", "s", "l", "r", "a"]);
    assert_eq!(rows.column(0).as_string::<i32>().value(0), "hi");
    assert_eq!(rows.column(1).as_primitive::<Int32Type>().value(0), -7);
    assert_eq!(rows.column(2).null_count(), 1);
    let list = rows.column(3).as_list::<i32>().value(0);
    assert_eq!(list.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(rows.column(4).as_struct().column(0).as_binary::<i32>().value(0), [0xff]);
    assert_eq!(rows.column(5).as_primitive::<Int64Type>().value(0), 1);
}

#[test]
fn a_uuid_is_sixteen_bytes_in_whatever_form_it_was_written() {
    let text = r#"{"type":"string","logicalType":"uuid"}"#;
    let fixed = r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#;
    let expected: Vec<u8> = (0..16).map(|byte| byte * 17).collect();
    let written = [&[72][..], b"00112233-4455-6677-8899-AAbbccddeeff"].concat();
    for reader in [text, fixed] {
        assert_eq!(column(text, reader, &[&written]).0.as_fixed_size_binary().value(0), expected);
        assert_eq!(column("\"string\"", reader, &[&written]).0.as_fixed_size_binary().value(0), expected);
        assert_eq!(column(fixed, reader, &[&expected]).0.as_fixed_size_binary().value(0), expected);
    }
    let wrong = [&[72][..], b"00112233-4455-6677-8899-AAbbccddeefg"].concat();
    assert_eq!(column(text, text, &[&wrong]).1, [Reason::BadUuid]);
}

#[test]
fn what_means_another_thing_is_not_read_at_all() {
    let logical = |base: &str, logical: &str| format!(r#"{{"type":"{base}","logicalType":"{logical}"}}"#);
    let decimal = |scale: u32| format!(r#"{{"type":"bytes","logicalType":"decimal","precision":9,"scale":{scale}}}"#);
    for (writer, reader) in [
        (logical("long", "timestamp-micros"), logical("long", "timestamp-millis")),
        (decimal(3), decimal(2)),
        ("\"string\"".to_owned(), "\"int\"".to_owned()),
        ("\"long\"".to_owned(), "\"int\"".to_owned()),
        (r#"["string","bytes"]"#.to_owned(), "\"int\"".to_owned()),
    ] {
        let (_, reasons) = column(&writer, &reader, &[&[2, 2]]);
        assert_eq!(reasons, [Reason::Unreadable], "{writer} as {reader}");
    }
    let (times, _) = column("\"long\"", &logical("long", "timestamp-millis"), &[&[2]]);
    assert_eq!(times.as_primitive::<TimestampMillisecondType>().values(), &[1]);
}

#[test]
fn a_field_that_no_column_can_hold_is_passed_over() {
    let schema = r#"{"type":"record","name":"E","fields":[{"name":"u","type":["int","string","null"]},{"name":"x","type":"int"}]}"#;
    let mut decoder = Decoder::new(schema, DecodeLimits::default()).unwrap();
    decoder.learn(1, schema);
    assert_eq!(decoder.columns().fields().len(), 1);
    let decoded =
        decoder.decode(&[record(0, &[0, 0, 0, 0, 1, 2, 2, b'a', 8]), record(1, &[0, 0, 0, 0, 1, 2, 2, 0xff, 8])]);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int32Type>().values(), &[4]);
    assert_eq!(decoded.rejected[0].1.reason, Reason::BadUtf8, "what is passed over is checked all the same");
    assert_eq!(decoder.columns().field(0).data_type(), &DataType::Int32);
}
