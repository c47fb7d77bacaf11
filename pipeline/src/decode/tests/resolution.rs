//! Which of a writer's types are read as which of the reader's, and what becomes of the values.

use arrow_array::StringArray;
use arrow_array::types::{
    Float64Type, Int32Type, Int64Type, Time32MillisecondType, Time64MicrosecondType, TimestampMillisecondType,
    UInt32Type,
};

use super::*;
use crate::field::Extract;

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
    for writer in ["\"long\"", "\"int\""] {
        let (times, _) = column(writer, &logical("long", "timestamp-millis"), &[&[2]]);
        assert_eq!(times.as_primitive::<TimestampMillisecondType>().values(), &[1]);
    }
}

#[test]
fn a_field_that_no_column_can_hold_is_passed_over_and_its_path_says_why() {
    let schema = r#"{"type":"record","name":"E","fields":[{"name":"x","type":"int"},{"name":"r","type":{"type":"record","name":"R","fields":[
        {"name":"u","type":[{"type":"record","name":"a.X","fields":[{"name":"s","type":"string"}]},
                            {"type":"record","name":"b.X","fields":[{"name":"s","type":"string"}]},"null"]},
        {"name":"m","type":{"type":"map","values":"int"}}]}}]}"#;
    let mut decoder = Decoder::new(schema, DecodeLimits::default()).unwrap();
    decoder.learn(1, schema);
    assert_eq!(decoder.columns().fields().len(), 2);
    let good = [0, 0, 0, 0, 1, 8, 2, 2, b'a', 0];
    let decoded = decoder.decode(&[record(0, &good), record(1, &[0, 0, 0, 0, 1, 8, 2, 2, 0xff, 0])]);
    assert_eq!(decoded.rows.column(0).as_primitive::<Int32Type>().values(), &[4]);
    assert_eq!(decoded.rejected[0].1.reason, Reason::BadUtf8, "what is passed over is checked all the same");
    let error = |path: &str| Extract::resolve(&path.parse().unwrap(), decoder.columns()).unwrap_err().to_string();
    assert_eq!(
        error("r.u.s"),
        "the field `r.u.s` cannot be reached: no column can hold a union of two types that are both called `X`"
    );
    assert_eq!(error("r.m.k"), "the field `r.m.k` cannot be reached: a map goes into one column as a whole");
}

const METHOD: &str = r#"["null","string",{"type":"record","name":"Card","namespace":"pay","fields":[{"name":"number","type":"string"}]},
    {"type":"record","name":"Sepa","fields":[{"name":"iban","type":"string"}]},"int"]"#;

#[test]
fn a_union_of_several_types_has_a_column_for_each_and_paths_lead_into_them() {
    let datums: [&[u8]; 6] = [&[0], &[2, 2, b's'], &[4, 2, b'c'], &[6, 2, b'i'], &[8, 6], &[10]];
    let (values, reasons) = column(METHOD, METHOD, &datums);
    assert_eq!(reasons, [Reason::BadUnionIndex]);
    let rows = arrow_array::RecordBatch::try_from_iter([("method", values)]).unwrap();
    let at = |path: &str| Extract::resolve(&path.parse().unwrap(), rows.schema_ref()).unwrap().from(&rows).unwrap();
    let text = |path: &str| -> Vec<Option<String>> {
        at(path).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    };
    let only = |row: usize, text: &str| -> Vec<Option<String>> {
        (0..5).map(|other| (other == row).then(|| text.to_owned())).collect()
    };
    assert_eq!(text("method.string"), only(1, "s"));
    assert_eq!(text("method.Card.number"), only(2, "c"));
    assert_eq!(text("method.Sepa.iban"), only(3, "i"));
    assert_eq!(
        at("method.int").as_primitive::<Int32Type>().iter().collect::<Vec<_>>(),
        [None, None, None, None, Some(3)]
    );
    assert_eq!(at("method").null_count(), 0, "the union itself is there, also if all in it is null");
}

#[test]
fn a_writers_type_is_read_as_the_nearest_of_a_readers_union() {
    let wide = r#"["null","double","long",{"type":"record","name":"Pay","aliases":["pay.Card"],"fields":[{"name":"number","type":"string"}]}]"#;
    let (values, reasons) = column(METHOD, wide, &[&[0], &[2, 2, b's'], &[4, 2, b'c'], &[6, 2, b'i'], &[8, 6]]);
    assert_eq!(reasons, [Reason::Unreadable; 2], "neither text nor the record of other fields has a place");
    let values = values.as_struct();
    assert_eq!(values.len(), 3);
    assert_eq!(values.column_by_name("Pay").unwrap().as_struct().column(0).as_string::<i32>().value(1), "c");
    // The first that an int can be promoted to.
    let doubles = values.column_by_name("double").unwrap();
    assert_eq!(doubles.as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [None, None, Some(3.0)]);
    assert_eq!(values.column_by_name("long").unwrap().null_count(), 3);
    // One type, read as one of several.
    let (values, _) = column("\"long\"", wide, &[&[8]]);
    assert_eq!(values.as_struct().column_by_name("long").unwrap().as_primitive::<Int64Type>().value(0), 4);
    assert_eq!(column("\"boolean\"", wide, &[&[1]]).1, [Reason::Unreadable]);
    assert_eq!(column("\"null\"", wide, &[&[]]).0.as_struct().column(0).null_count(), 1);
    assert_eq!(column(METHOD, "\"string\"", &[&[0], &[2, 2, b's']]).0.as_string::<i32>().value(0), "s");
}

#[test]
fn a_time_is_one_of_a_day() {
    let millis = r#"{"type":"int","logicalType":"time-millis"}"#;
    // The last millisecond, midnight after it, and one before the day.
    let (times, reasons) = column(millis, millis, &[&[0xfe, 0xef, 0xb2, 0x52], &[0x80, 0xf0, 0xb2, 0x52], &[1]]);
    assert_eq!(times.as_primitive::<Time32MillisecondType>().values(), &[86_399_999]);
    assert_eq!(reasons, [Reason::OutOfRange; 2]);
    let micros = r#"{"type":"long","logicalType":"time-micros"}"#;
    let (times, reasons) = column("\"int\"", micros, &[&[2], &[1]]);
    assert_eq!(times.as_primitive::<Time64MicrosecondType>().values(), &[1]);
    assert_eq!(reasons, [Reason::OutOfRange]);
}

#[test]
fn a_duration_is_its_three_parts() {
    let duration = r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#;
    let (values, reasons) = column(duration, duration, &[&[1, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff], &[1]]);
    let parts = values.as_struct();
    let part = |name| parts.column_by_name(name).unwrap().as_primitive::<UInt32Type>().value(0);
    assert_eq!([part("months"), part("days"), part("millis")], [1, 256, u32::MAX]);
    assert_eq!(reasons, [Reason::Truncated]);
}
