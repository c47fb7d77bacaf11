use std::sync::Arc;

use super::*;
use crate::tables::is_documented;

fn dictionary() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn list(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, true)))
}

#[test]
fn columns_that_keep_every_value_are_accepted() {
    let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    for (arrow, column) in [
        (DataType::FixedSizeBinary(16), "UUID"),
        (dictionary(), "LowCardinality(Nullable(String))"),
        (DataType::Utf8, "Nullable(String)"),
        (milliseconds.clone(), "DateTime64(3, 'UTC')"),
        (milliseconds, "DateTime64(6)"),
        (DataType::Decimal128(18, 2), "Decimal(18, 2)"),
        (DataType::Decimal128(18, 2), "Decimal(38, 4)"),
        (list(DataType::Decimal128(18, 2)), "Array(Decimal(18, 2))"),
        (list(dictionary()), "Array(LowCardinality(Nullable(String)))"),
        (DataType::Int32, "Int64"),
        (DataType::Date32, "Nullable(Date32)"),
    ] {
        assert_eq!(mismatch(&arrow, None, column), None, "{arrow} into {column}");
    }
}

#[test]
fn columns_that_would_lose_values_are_refused_with_what_would_do() {
    let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
    for (arrow, column, expected) in [
        (DataType::FixedSizeBinary(16), "String", "expected UUID or FixedString(16)"),
        (milliseconds, "DateTime('UTC')", "expected DateTime64(3)"),
        (DataType::Decimal128(18, 2), "Decimal(10, 2)", "expected Decimal(18, 2)"),
        (DataType::Decimal128(18, 2), "Decimal(18, 4)", "expected Decimal(18, 2)"),
        (DataType::Int64, "Int32", "expected Int64 or Int128 or Int256"),
        (list(DataType::Int32), "Int32", "expected Array(Int32) or Array(Int64) or Array(Int128) or Array(Int256)"),
        (DataType::Float64, "Array(Float64)", "expected Float64"),
    ] {
        assert_eq!(mismatch(&arrow, None, column).as_deref(), Some(expected), "{arrow} into {column}");
    }
}

#[test]
fn an_enum_must_have_every_symbol() {
    let symbols = ["created", "paid", "lost"].map(str::to_owned);
    let column = "Enum8('created' = 1, 'paid' = 2)";
    assert_eq!(mismatch(&dictionary(), Some(&symbols[..2]), column), None);
    assert!(mismatch(&dictionary(), None, column).unwrap().contains("this may be any text"), "a lookup's text");
    assert_eq!(mismatch(&DataType::Utf8, None, column).as_deref(), Some("expected String"));
    let missing = mismatch(&dictionary(), Some(&symbols), column);
    assert_eq!(missing.as_deref(), Some("the enum of the column lacks lost; add them to it"));
}

#[test]
fn a_type_is_taken_apart() {
    let column = ColumnType::parse("Array(LowCardinality(Nullable(String)))");
    assert_eq!((column.arrays, column.nullable, column.name), (1, true, "String"));
}

/// Every kind of Avro type, in the order of the table, with what there is to say of it.
const TYPES: [(&str, &str); 34] = [
    (r#""null""#, "always null: leave it out"),
    (r#""boolean""#, ""),
    (r#""int""#, ""),
    (r#""long""#, ""),
    (r#""float""#, ""),
    (r#""double""#, ""),
    (r#""bytes""#, "as they are"),
    (r#""string""#, "UTF-8, checked; an enum column would not take any text"),
    (r#"{"type":"string","logicalType":"uuid"}"#, "36 characters with hyphens, in either case"),
    (r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#, "also on `bytes`"),
    (r#"{"type":"int","logicalType":"date"}"#, "years 1900 to 2299, beyond: dead letter `out_of_range`"),
    (r#"{"type":"int","logicalType":"time-millis"}"#, "of a day, beyond: dead letter `out_of_range`"),
    (r#"{"type":"long","logicalType":"time-micros"}"#, "of a day"),
    (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "years 1900 to 2299"),
    (r#"{"type":"long","logicalType":"timestamp-micros"}"#, "years 1900 to 2299"),
    (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, "years 1900 to 2262, where 64 bits end"),
    (r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, LOCAL),
    (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, LOCAL),
    (r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, LOCAL),
    (
        r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#,
        "ClickHouse stores no intervals: map `v.months`, `v.days` and `v.millis`, or all in a tuple",
    ),
    (
        r#"{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}"#,
        "up to 38 digits; a value beyond its precision: dead letter `out_of_range`",
    ),
    (r#"{"type":"fixed","name":"P","size":8,"logicalType":"decimal","precision":10,"scale":1}"#, "as on `bytes`"),
    (r#"{"type":"bytes","logicalType":"decimal","precision":39,"scale":2}"#, ""),
    (r#"{"type":"bytes","logicalType":"big-decimal"}"#, ""),
    (r#"{"type":"fixed","name":"F","size":5}"#, ""),
    (
        r#"{"type":"enum","name":"E","symbols":["a","b"]}"#,
        "an enum column must have every symbol; a symbol that the reader's schema lacks is its default, else dead letter `unreadable`",
    ),
    (r#"{"type":"array","items":"long"}"#, "a null array becomes an empty one; arrays may nest"),
    (
        r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"x","type":"int"}]}}"#,
        "map `v.x`, which is an `Array`: so the columns of a `Nested` are filled",
    ),
    (r#"{"type":"map","values":"long"}"#, "goes into one column as a whole; a null map becomes an empty one"),
    (
        r#"{"type":"record","name":"R","fields":[{"name":"x","type":"int"},{"name":"y","type":["null","string"]}]}"#,
        "map its fields, `v.x`, or all in a tuple, whose elements are told by their names",
    ),
    (r#"["null","long"]"#, "null needs `Nullable`"),
    (
        r#"["string","long"]"#,
        "a column for each type, null in all but one: map `v.string` and `v.long`, or all in a tuple",
    ),
    (
        r#"["null","string",{"type":"record","name":"Card","fields":[{"name":"number","type":"string"}]}]"#,
        "a tuple could not tell which it is: map `v.string` and `v.Card.number`",
    ),
    (
        r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#,
        "a schema with such a type anywhere is refused as a whole",
    ),
];

const LOCAL: &str = "as UTC is: the clock on the wall, if the column is in 'UTC'";

/// As in the table of the documentation.
fn arrow_name(arrow: &DataType) -> String {
    let fields = |fields: &arrow_schema::Fields| -> String {
        let names: Vec<String> =
            fields.iter().map(|field| format!("{} {}", field.name(), arrow_name(field.data_type()))).collect();
        names.join(", ")
    };
    match arrow {
        DataType::List(item) => format!("List({})", arrow_name(item.data_type())),
        DataType::Struct(inner) => format!("Struct({})", fields(inner)),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(inner) => {
                format!("Map({}, {})", arrow_name(inner[0].data_type()), arrow_name(inner[1].data_type()))
            }
            other => panic!("{other}"),
        },
        other => other.to_string(),
    }
}

fn table() -> String {
    use millrace_pipeline::decode::{DecodeLimits, Decoder, WITHOUT_COLUMN};

    let mut rows = "| Avro | Arrow | ClickHouse | |\n| --- | --- | --- | --- |\n".to_owned();
    for (avro, remark) in TYPES {
        let schema = format!(
            r#"{{"type":"record","name":"Event","fields":[{{"name":"v","type":{avro}}},{{"name":"other","type":"int"}}]}}"#
        );
        let (arrow, columns, remark) = match Decoder::new(&schema, DecodeLimits::default()) {
            Ok(decoder) => match decoder.columns().field_with_name("v") {
                Ok(field) => {
                    let columns = accepted(field.data_type());
                    for column in &columns {
                        let symbols = ["a", "b"].map(str::to_owned);
                        let column = if column.starts_with("Enum") { "Enum8('a' = 1, 'b' = 2)" } else { column };
                        let problem = mismatch(field.data_type(), Some(&symbols), column);
                        assert_eq!(problem, None, "{avro} into {column}");
                    }
                    (format!("`{}`", arrow_name(field.data_type())), columns, remark.to_owned())
                }
                Err(_) => {
                    let why: std::collections::HashMap<String, String> =
                        serde_json::from_str(&decoder.columns().metadata()[WITHOUT_COLUMN]).unwrap();
                    ("none".to_owned(), Vec::new(), format!("refused: no column can hold {}", why["v"]))
                }
            },
            Err(error) => {
                let error = error.to_string();
                let (_, why) = error.split_once(": ").unwrap();
                ("none".to_owned(), Vec::new(), format!("refused: {why}; {remark}"))
            }
        };
        let columns: Vec<String> = columns.iter().map(|column| format!("`{column}`")).collect();
        let columns = if columns.is_empty() { "none".to_owned() } else { columns.join(", ") };
        rows += &format!("| `{avro}` | {arrow} | {columns} | {remark} |\n");
    }
    rows
}

#[test]
fn the_documented_table_is_what_the_code_does() {
    is_documented("types.md", &table());
}

#[test]
fn what_lies_in_maps_and_tuples_has_to_fit_too() {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    let map = |value: Field| {
        let entries = vec![field("key", DataType::Utf8, false), value];
        DataType::Map(Arc::new(field("entries", DataType::Struct(entries.into()), false)), false)
    };
    let longs = map(field("value", DataType::Int64, false));
    let maybe = map(field("value", DataType::Int64, true));
    let pair = DataType::Struct(vec![field("x", DataType::Int32, false), field("y", DataType::Utf8, true)].into());
    for (arrow, column) in [
        (&longs, "Map(String, Int64)"),
        (&longs, "Map(LowCardinality(String), Int128)"),
        (&maybe, "Map(String, Nullable(Int64))"),
        (&pair, "Tuple(x Int32, y Nullable(String))"),
        (&pair, "Tuple(`y` Nullable(String), `x` Int64)"),
    ] {
        assert_eq!(mismatch(arrow, None, column), None, "{arrow} into {column}");
    }
    for (arrow, column, expected) in [
        (&longs, "Map(String, Int32)", "its values are Int32: expected Int64 or Int128 or Int256"),
        (&longs, "Map(UUID, Int64)", "its keys are UUID, expected String"),
        (&maybe, "Map(String, Int64)", "its values are Int64: it may be null; expected Nullable"),
        (&pair, "Tuple(x Int32)", "the tuple has no element named y"),
        (&pair, "Tuple(Int32, Nullable(String))", "the tuple has no element named x"),
        (&pair, "Tuple(x Int32, y String)", "its element y is String: it may be null; expected Nullable"),
        (&pair, "Tuple(x Int32, y Nullable(String), z Int8)", "1 elements of the tuple would get no value"),
        (&pair, "String", "expected Tuple(x Int32, y Nullable(String))"),
    ] {
        assert_eq!(mismatch(arrow, None, column).as_deref(), Some(expected), "{arrow} into {column}");
    }
}
