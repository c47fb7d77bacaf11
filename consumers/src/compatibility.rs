//! What must hold between versions: two of them are in one group during an upgrade, and after a rollback the older one reads
//! what the newer one left. `tests/golden/between_versions.json` has what earlier versions write; it is read by this one,
//! and this one writes the same. The scenario with two real builds is `cargo xtask upgrade`.

use std::time::Duration;

use clickhouse::Client;
use millrace_pipeline::batch::Progress;
use millrace_schemas::CLICKHOUSE_DDL;
use rdkafka::{Timestamp, message::OwnedMessage};
use serde_json::Value;

use crate::{
    clickhouse::claims::{ALTERED, Claims, TOO_LATE},
    kafka::{
        dead_letters::header,
        mark::{Mark, Seen},
        source::ASSIGNMENT_STRATEGY,
    },
};

fn golden() -> Value {
    serde_json::from_str(include_str!("../tests/golden/between_versions.json")).unwrap()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// The columns `name type` that a shipped table has.
fn has_columns(migration: &str, columns: &Value) {
    let (_, sql) = CLICKHOUSE_DDL.iter().find(|(name, _)| *name == migration).unwrap();
    for column in texts(columns) {
        assert!(sql.lines().any(|line| line.trim_start().starts_with(column)), "{migration} has no column {column}");
    }
}

#[test]
fn a_mark_of_an_earlier_version_is_read_and_finds_its_record_and_this_one_writes_the_same() {
    let golden = golden();
    for case in golden["marks"].as_array().unwrap() {
        let metadata = case["metadata"].as_str().unwrap();
        let mark: Mark = metadata.parse().unwrap_or_else(|()| panic!("{metadata} is not taken for a mark any more"));
        assert_eq!(Some(mark.offset), case["offset"].as_i64(), "{metadata}");
        assert_eq!(Some(mark.timestamp_ms), case["timestamp_ms"].as_i64(), "{metadata}");
        assert_eq!(mark.to_string(), metadata, "a version before this one reads what this one writes");
        let Some(value) = case["value_hex"].as_str() else { continue };
        let record = OwnedMessage::new(
            Some(bytes(value)),
            case["key"].as_str().map(|key| key.as_bytes().to_vec()),
            "orders".into(),
            Timestamp::CreateTime(mark.timestamp_ms),
            0,
            mark.offset,
            None,
        );
        let found = Mark::of(&record);
        assert_eq!(found.to_string(), metadata, "the digest of a record must not change");
        assert_eq!(mark.seen(0, mark.offset + 1, Some(found)), Seen::Same);
    }
}

#[test]
fn an_insert_of_an_earlier_version_is_found_by_who_claims_its_partitions_next() {
    let golden = &golden()["insert_comment"];
    let text = |key: &str| golden[key].as_str().unwrap();
    let (table, topic, owner) = (text("claims").to_owned(), text("topic"), text("owner"));
    let claims = Claims::new(Client::default(), table, topic, owner, Duration::ZERO);
    let partitions = golden["partitions"].as_array().unwrap().iter();
    let progress: Vec<Progress> = partitions
        .map(|partition| Progress { partition: partition.as_i64().unwrap() as i32, epoch: 7, next_offset: 10 })
        .collect();
    assert_eq!(claims.comment(&progress), text("log_comment"));
    // By these it is looked for.
    let comment: Value = serde_json::from_str(text("log_comment")).unwrap();
    for key in ["millrace", "claims", "topic", "partitions"] {
        assert!(comment.get(key).is_some(), "{key}");
    }
}

#[test]
fn claims_rows_group_and_dead_letters_are_those_that_an_earlier_version_knows() {
    let golden = golden();
    has_columns("0002_claims", &golden["claims_columns"]);
    for migration in ["0001_orders", "0004_payments"] {
        has_columns(migration, &golden["row_columns"]);
    }
    // Members of a group with no strategy in common cannot be in it together.
    assert_eq!(golden["assignment_strategy"], ASSIGNMENT_STRATEGY);
    assert_eq!(texts(&golden["dead_letter_headers"]), header::ALL);
    assert_eq!(golden["refusals"]["too_late"], TOO_LATE);
    assert_eq!(golden["refusals"]["altered"], ALTERED);
}
