use std::collections::HashMap as Map;

use arrow_array::types::Int64Type;
use proptest::prelude::*;

use super::*;

fn records(rows: &[(&str, Option<&str>, i64)]) -> RecordBatch {
    let keys: StringArray = rows.iter().map(|row| Some(row.0)).collect();
    let texts: StringArray = rows.iter().map(|row| row.1).collect();
    let numbers: arrow_array::Int64Array = rows.iter().map(|row| Some(row.2)).collect();
    let columns: [(&str, ArrayRef, bool); 3] =
        [("key", Arc::new(keys), false), ("text", Arc::new(texts), true), ("number", Arc::new(numbers), true)];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

fn table() -> ReferenceTable {
    let fields = ["text", "number"].map(|field| field.parse().unwrap());
    ReferenceTable::new(records(&[]).schema_ref(), &"key".parse().unwrap(), &fields).unwrap()
}

/// What the table says of a key.
fn look_up(table: &mut ReferenceTable, key: &str) -> Option<(Option<String>, i64)> {
    let rows = table.find(&StringArray::from(vec![key]));
    let text = table.take(0, &rows).unwrap();
    let number = table.take(1, &rows).unwrap();
    assert_eq!((text.data_type(), number.data_type()), (&table.data_type(0), &table.data_type(1)));
    let text = text.as_dictionary::<Int32Type>().downcast_dict::<StringArray>().unwrap().into_iter().next().unwrap();
    let text = text.map(str::to_owned);
    if rows.is_null(0) {
        assert!(text.is_none() && number.is_null(0));
        return None;
    }
    Some((text, number.as_primitive::<Int64Type>().value(0)))
}

#[test]
fn the_last_record_of_a_key_wins_within_records_and_across_them() {
    let mut table = table();
    table.upsert(&records(&[("a", Some("1"), 1), ("b", None, 2), ("a", Some("3"), 3)])).unwrap();
    assert_eq!(look_up(&mut table, "a"), Some((Some("3".into()), 3)));
    assert_eq!(look_up(&mut table, "b"), Some((None, 2)), "a null attribute is no missing record");
    table.upsert(&records(&[("b", Some("4"), 4)])).unwrap();
    assert_eq!(look_up(&mut table, "b"), Some((Some("4".into()), 4)));
    assert_eq!(look_up(&mut table, "c"), None);
    assert_eq!(table.len(), 2);
}

#[test]
fn a_tombstone_forgets_its_key_until_it_is_published_again() {
    let mut table = table();
    table.delete("a");
    table.upsert(&records(&[("a", Some("1"), 1)])).unwrap();
    table.delete("a");
    assert_eq!(look_up(&mut table, "a"), None);
    assert!(table.is_empty());
    table.upsert(&records(&[("a", Some("2"), 2)])).unwrap();
    assert_eq!(look_up(&mut table, "a"), Some((Some("2".into()), 2)));
}

#[test]
fn a_null_key_finds_nothing() {
    let mut table = table();
    table.upsert(&records(&[("a", Some("1"), 1)])).unwrap();
    let rows = table.find(&StringArray::from(vec![None, Some("a"), None]));
    assert_eq!(rows.iter().collect::<Vec<_>>(), [None, Some(0), None]);
}

#[test]
fn a_key_updated_for_ever_does_not_grow_the_table() {
    let mut table = table();
    for round in 0..20 {
        let chunk: Vec<(&str, Option<&str>, i64)> = (0..1000).map(|n| ("a", Some("t"), round * 1000 + n)).collect();
        table.upsert(&records(&chunk)).unwrap();
        assert!(table.rows < MIN_GARBAGE + 1000, "{} rows are held for one key", table.rows);
    }
    assert_eq!(look_up(&mut table, "a"), Some((Some("t".into()), 19_999)));
}

#[test]
fn a_text_that_is_null_in_every_record_survives_compaction() {
    let mut table = table();
    for _ in 0..4 {
        let chunk: Vec<(&str, Option<&str>, i64)> = (0..MIN_GARBAGE as i64).map(|n| ("a", None, n)).collect();
        table.upsert(&records(&chunk)).unwrap();
    }
    assert_eq!(look_up(&mut table, "a"), Some((None, MIN_GARBAGE as i64 - 1)));
}

#[test]
fn keys_and_fields_that_are_not_there_are_refused() {
    let records = records(&[]);
    let new = |key: &str, field: &str| {
        ReferenceTable::new(records.schema_ref(), &key.parse().unwrap(), &[field.parse().unwrap()])
    };
    assert!(matches!(new("nobody", "text"), Err(ReferenceError::NoSuchField(_))));
    assert!(matches!(new("key", "nothing"), Err(ReferenceError::NoSuchField(_))));
    assert!(matches!(new("number", "text"), Err(ReferenceError::KeyType { .. })));
}

#[test]
fn records_of_another_schema_are_an_error_and_harm_nothing() {
    let mut table = table();
    table.upsert(&records(&[("a", Some("1"), 1)])).unwrap();
    let other: [(&str, ArrayRef, bool); 3] = [
        ("key", Arc::new(StringArray::from(vec!["a"])), false),
        ("text", Arc::new(StringArray::from(vec!["2"])), true),
        ("number", Arc::new(StringArray::from(vec!["2"])), true),
    ];
    assert!(table.upsert(&RecordBatch::try_from_iter_with_nullable(other).unwrap()).is_err());
    table.upsert(&records(&[("b", Some("3"), 3)])).unwrap();
    assert_eq!(look_up(&mut table, "a"), Some((Some("1".into()), 1)));
    assert_eq!(look_up(&mut table, "b"), Some((Some("3".into()), 3)));
}

#[derive(Clone, Debug)]
enum Action {
    Upsert(Vec<(u8, Option<u8>)>),
    Delete(u8),
    /// A whole generation of updates, which makes compaction due.
    Churn(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => prop::collection::vec((0..20u8, prop::option::of(any::<u8>())), 0..10).prop_map(Action::Upsert),
        4 => (0..20u8).prop_map(Action::Delete),
        1 => (0..20u8).prop_map(Action::Churn),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_lookup_agrees_with_a_map_through_updates_deletes_and_compaction(
        actions in prop::collection::vec(action(), 1..40),
    ) {
        let mut table = table();
        let mut map: Map<String, (Option<String>, i64)> = Map::new();
        let mut number = 0;
        for action in actions {
            let chunk: Vec<(String, Option<String>)> = match action {
                Action::Upsert(rows) => rows.iter().map(|(k, t)| (k.to_string(), t.map(|t| t.to_string()))).collect(),
                Action::Churn(key) => (0..MIN_GARBAGE).map(|n| (key.to_string(), Some(n.to_string()))).collect(),
                Action::Delete(key) => {
                    table.delete(&key.to_string());
                    map.remove(&key.to_string());
                    Vec::new()
                }
            };
            let rows: Vec<(&str, Option<&str>, i64)> =
                (number..).zip(&chunk).map(|(n, (key, text))| (key.as_str(), text.as_deref(), n)).collect();
            table.upsert(&records(&rows)).unwrap();
            number += rows.len() as i64;
            map.extend(rows.iter().map(|(key, text, n)| ((*key).to_owned(), (text.map(str::to_owned), *n))));
            prop_assert_eq!(table.len(), map.len());
            for key in (0..20u8).map(|key| key.to_string()) {
                prop_assert_eq!(look_up(&mut table, &key), map.get(&key).cloned(), "key {}", key);
            }
        }
    }
}
