//! Every column type of the documented table takes the values that it is said to take, on the real ClickHouse.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch};
use millrace_consumers::clickhouse::{
    insert::{Inserter, body},
    table::describe,
};
use millrace_pipeline::{
    decode::{DecodeLimits, Decoder},
    record::Record,
};

use crate::{
    protocol::{batch, claims},
    world::World,
};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A datum of each type in the table, and what is read back from each column that takes it; the last text goes for the
/// columns that follow, too.
const SAMPLES: [(&str, &[u8], &[&str]); 27] = [
    (r#""boolean""#, &[1], &["true", "1"]),
    (r#""int""#, &[0x53], &["-42"]),
    (r#""long""#, &[0x54], &["42"]),
    (r#""float""#, &[0, 0, 0xc0, 0x3f], &["1.5"]),
    (r#""double""#, &[0, 0, 0, 0, 0, 0, 0xf8, 0x3f], &["1.5"]),
    (r#""bytes""#, &[4, b'h', b'i'], &["hi"]),
    (r#""string""#, &[2, b'a'], &["a"]),
    (
        r#"{"type":"string","logicalType":"uuid"}"#,
        b"\x4873697874-6565-6e20-6c65-747465727321",
        &["73697874-6565-6e20-6c65-747465727321", "sixteen letters!"],
    ),
    (
        r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#,
        b"sixteen letters!",
        &["73697874-6565-6e20-6c65-747465727321", "sixteen letters!"],
    ),
    (r#"{"type":"int","logicalType":"date"}"#, &[2], &["1970-01-02"]),
    (r#"{"type":"int","logicalType":"time-millis"}"#, &[0xda, 0x0f], &["00:00:01.005"]),
    (r#"{"type":"long","logicalType":"time-micros"}"#, &[0xda, 0x0f], &["00:00:00.001005"]),
    (r#"{"type":"long","logicalType":"timestamp-millis"}"#, &[0xda, 0x0f], &["1970-01-01 00:00:01.005"]),
    (r#"{"type":"long","logicalType":"timestamp-micros"}"#, &[0xda, 0x0f], &["1970-01-01 00:00:00.001005"]),
    (r#"{"type":"long","logicalType":"timestamp-nanos"}"#, &[0xda, 0x0f], &["1970-01-01 00:00:00.000001005"]),
    (r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, &[0xda, 0x0f], &["1970-01-01 00:00:01.005"]),
    (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, &[0xda, 0x0f], &["1970-01-01 00:00:00.001005"]),
    (r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, &[0xda, 0x0f], &["1970-01-01 00:00:00.000001005"]),
    (
        r#"{"type":"fixed","name":"D","size":12,"logicalType":"duration"}"#,
        &[1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0],
        &["(1,2,3)"],
    ),
    (r#"{"type":"bytes","logicalType":"decimal","precision":18,"scale":2}"#, &[4, 0x04, 0xd2], &["12.34"]),
    (
        r#"{"type":"fixed","name":"P","size":8,"logicalType":"decimal","precision":10,"scale":1}"#,
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf1],
        &["-1.5"],
    ),
    (r#"{"type":"fixed","name":"F","size":5}"#, b"hello", &["hello"]),
    (r#"{"type":"enum","name":"E","symbols":["a","b"]}"#, &[2], &["b"]),
    (r#"{"type":"array","items":"long"}"#, &[4, 2, 4, 0], &["[1,2]"]),
    (
        r#"{"type":"array","items":{"type":"record","name":"I","fields":[{"name":"x","type":"int"}]}}"#,
        &[4, 2, 4, 0],
        &["[(1),(2)]"],
    ),
    (r#"{"type":"map","values":"long"}"#, &[2, 2, b'k', 14, 0], &["{'k':7}"]),
    (
        r#"{"type":"record","name":"R","fields":[{"name":"x","type":"int"},{"name":"y","type":["null","string"]}]}"#,
        &[14, 0],
        &["(7,NULL)"],
    ),
];

/// Of types with nulls: two datums, and what is read back of the second.
const NULLABLE: [(&str, [&[u8]; 2], &str); 2] =
    [(r#"["null","long"]"#, [&[0], &[2, 84]], "42"), (r#"["string","long"]"#, [&[0, 2, b's'], &[2, 84]], "(NULL,42)")];

/// The types of the table with the columns that take them.
fn documented() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/types.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let taken = rows.filter_map(|(avro, rest)| {
        let columns = rest.split(" | ").nth(1)?;
        let columns: Vec<String> = columns.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (!columns.is_empty()).then(|| (avro.to_owned(), columns))
    });
    taken.collect()
}

/// Rows of a column `v`, decoded from datums of a type.
fn rows(avro: &str, datums: &[&[u8]]) -> RecordBatch {
    let schema = format!(r#"{{"type":"record","name":"Event","fields":[{{"name":"v","type":{avro}}}]}}"#);
    let mut decoder = Decoder::new(&schema, DecodeLimits::default()).unwrap();
    decoder.learn(1, &schema);
    let values: Vec<Vec<u8>> = datums.iter().map(|datum| [&[0, 0, 0, 0, 1], *datum].concat()).collect();
    let records = values.iter().map(|value| Record { partition: 0, offset: 0, timestamp_ms: 0, value: Some(value) });
    let decoded = decoder.decode(&records.collect::<Vec<_>>());
    assert_eq!(decoded.rejected, [], "{avro}");
    let count = datums.len() as i64;
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("v", Arc::clone(decoded.rows.column(0)), true),
        ("_partition", Arc::new(Int32Array::from_value(0, datums.len())), false),
        ("_offset", Arc::new(Int64Array::from_iter_values(0..count)), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// What is read back of values that were inserted, as text.
async fn landed(world: &World, column: &str, rows: RecordBatch) -> Result<Vec<String>, String> {
    world.sql("DROP TABLE IF EXISTS {db}.taken").await;
    let table = format!(
        "CREATE TABLE {{db}}.taken (v {column}, _partition Int32, _offset Int64) ENGINE = MergeTree ORDER BY _offset \
         SETTINGS non_replicated_deduplication_window = 100"
    );
    world.sql(&table).await;
    let claims = claims(world, "me");
    let epoch = claims.claim(&[0]).await.unwrap()[&0];
    let table = describe(&world.client, &world.database, "taken", TIMEOUT).await.unwrap().unwrap();
    let columns = ["v", "_partition", "_offset"].map(str::to_owned);
    let name = format!("`{}`.`taken`", world.database);
    let inserter = Inserter::new(world.client.clone(), claims.clone(), "orders", &name, &table, &columns, TIMEOUT);
    let batch = batch(rows, epoch);
    let token = uuid::Uuid::new_v4().to_string();
    let sent = inserter.send(&batch, &token, 0, claims.lease(), &body(&batch.rows).unwrap()).await;
    sent.map_err(|error| error.to_string())?;
    let sql = format!("SELECT toNullable(toString(v)) AS text FROM {name} ORDER BY _offset");
    world
        .client
        .query_raw(&sql)
        .fetch_all::<Option<String>>()
        .await
        .map_err(|error| error.to_string())
        .map(|texts| texts.into_iter().map(Option::unwrap_or_default).collect())
}

#[tokio::test]
async fn every_column_type_that_is_documented_takes_its_values() {
    let world = World::migrated().await;
    let documented = documented();
    let mut wrong = Vec::new();
    for (avro, datum, texts) in SAMPLES {
        let columns = documented.get(avro).map_or(&[][..], Vec::as_slice);
        if columns.is_empty() {
            wrong.push(format!("{avro} has no column"));
        }
        for (at, column) in columns.iter().enumerate() {
            let column =
                if column.starts_with("Enum") { format!("{column}('a' = 1, 'b' = 2)") } else { column.clone() };
            let column = if column.starts_with("DateTime64") { column.replace(')', ", 'UTC')") } else { column };
            let expected = texts[at.min(texts.len() - 1)];
            let found = landed(&world, &column, rows(avro, &[datum])).await;
            if found != Ok(vec![expected.to_owned()]) {
                wrong.push(format!("{avro} into {column}: {found:?}, expected {expected}"));
            }
        }
    }
    for (avro, datums, expected) in NULLABLE {
        let columns = documented.get(avro).map_or(&[][..], Vec::as_slice);
        for column in columns {
            let column = if column.starts_with("Tuple") { column.clone() } else { format!("Nullable({column})") };
            let found = landed(&world, &column, rows(avro, &datums)).await;
            if !found.as_ref().is_ok_and(|found| found[1] == expected) {
                wrong.push(format!("{avro} into {column}: {found:?}, expected {expected}"));
            }
        }
    }
    let sampled = SAMPLES.iter().map(|sample| sample.0).chain(NULLABLE.iter().map(|sample| sample.0)).count();
    assert_eq!((wrong, documented.len()), (Vec::<String>::new(), sampled));
    world.clean_up().await;
}

/// Nulls where ClickHouse has none.
#[tokio::test]
async fn a_null_array_and_a_null_map_become_empty_ones() {
    let world = World::migrated().await;
    for (avro, column, datum, texts) in [
        (r#"["null",{"type":"array","items":"long"}]"#, "Array(Int64)", &[2, 2, 2, 0][..], ["[]", "[1]"]),
        (r#"["null",{"type":"map","values":"long"}]"#, "Map(String, Int64)", &[2, 2, 2, b'k', 2, 0], ["{}", "{'k':1}"]),
    ] {
        let found = landed(&world, column, rows(avro, &[&[0], datum])).await;
        assert_eq!(found, Ok(texts.map(str::to_owned).to_vec()), "{avro}");
    }
    world.clean_up().await;
}
