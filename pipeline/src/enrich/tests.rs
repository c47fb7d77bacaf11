use arrow_array::{ListArray, StringArray, types::Int32Type};
use arrow_buffer::OffsetBuffer;

use super::*;
use crate::spec::MissPolicy;

fn reference(known: &[(&str, &str)]) -> ReferenceTable {
    let keys: StringArray = known.iter().map(|(key, _)| Some(*key)).collect();
    let colours: StringArray = known.iter().map(|(_, colour)| Some(*colour)).collect();
    let columns: [(&str, ArrayRef); 2] = [("key", Arc::new(keys)), ("colour", Arc::new(colours))];
    let records = RecordBatch::try_from_iter(columns).unwrap();
    let key = "key".parse().unwrap();
    let mut table = ReferenceTable::new(records.schema_ref(), &key, &["colour".parse().unwrap()]).unwrap();
    table.upsert(&records).unwrap();
    table
}

fn events(column: &str, keys: ArrayRef) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable([(column, keys, true)]).unwrap()
}

fn lookup(on: &str, events: &RecordBatch) -> Result<Lookup, LookupError> {
    let spec = LookupSpec {
        name: "paint".into(),
        topic: "paints".into(),
        key: "key".parse().unwrap(),
        on: on.parse().unwrap(),
        miss: MissPolicy::Null,
    };
    Lookup::new(spec, reference(&[("a", "red"), ("b", "blue")]), events.schema_ref())
}

fn texts(array: &dyn Array) -> Vec<Option<String>> {
    let texts = array.as_dictionary::<Int32Type>().downcast_dict::<StringArray>().unwrap();
    texts.into_iter().map(|text| text.map(str::to_owned)).collect()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn each_event_gets_the_value_of_its_key() {
    let keys = StringArray::from(vec![Some("b"), Some("a"), Some("x"), None, Some("b")]);
    let events = events("key", Arc::new(keys));
    let mut lookup = lookup("key", &events).unwrap();
    let found = lookup.find(&events).unwrap();
    assert_eq!(found.misses, 1, "a null key asks for nothing and misses nothing");
    assert_eq!(found.missing(), [false, false, true, false, false]);
    let column = lookup.column(0, &found).unwrap();
    assert_eq!(column.data_type(), &lookup.data_type(0));
    assert_eq!(texts(&column), [some("blue"), some("red"), None, None, some("blue")]);
}

fn lists(offsets: &[i32], items: Vec<Option<&str>>, valid: Vec<bool>) -> ArrayRef {
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let offsets = OffsetBuffer::new(offsets.to_vec().into());
    Arc::new(ListArray::new(item, offsets, Arc::new(StringArray::from(items)), Some(valid.into())))
}

#[test]
fn each_array_item_gets_the_value_of_its_key_and_one_missing_item_makes_its_event_miss() {
    let keys = lists(&[0, 2, 2, 4, 5], vec![Some("a"), Some("b"), Some("x"), Some("a"), None], vec![true; 4]);
    let events = events("keys", keys);
    let mut lookup = lookup("keys", &events).unwrap();
    let found = lookup.find(&events).unwrap();
    assert_eq!((found.misses, found.missing()), (1, vec![false, false, true, false]));
    let column = lookup.column(0, &found).unwrap();
    assert_eq!(column.data_type(), &lookup.data_type(0));
    let column = column.as_list::<i32>();
    assert_eq!(column.value_offsets(), [0, 2, 2, 4, 5]);
    assert_eq!(texts(column.values()), [some("red"), some("blue"), None, some("red"), None]);
}

#[test]
fn slices_and_no_events_at_all_are_looked_up_like_any_others() {
    let keys = lists(&[0, 1, 3, 4], vec![Some("x"), Some("a"), Some("b"), Some("x")], vec![true; 3]);
    let events = events("keys", keys);
    let mut lookup = lookup("keys", &events).unwrap();
    let middle = lookup.find(&events.slice(1, 1)).unwrap();
    assert_eq!(middle.missing(), [false]);
    let column = lookup.column(0, &middle).unwrap();
    assert_eq!(texts(&column.as_list::<i32>().value(0)), [some("red"), some("blue")]);
    let none = lookup.find(&events.slice(0, 0)).unwrap();
    assert_eq!(lookup.column(0, &none).unwrap().len(), 0);
    assert!(none.missing().is_empty());
}

#[test]
fn only_items_of_the_events_at_hand_count_as_misses() {
    let keys = lists(&[0, 1, 2, 3], vec![Some("x"), Some("a"), Some("y")], vec![true; 3]);
    let events = events("keys", keys);
    let lookup = lookup("keys", &events).unwrap();
    assert_eq!(lookup.find(&events.slice(1, 1)).unwrap().misses, 0, "x and y belong to other events");
}

#[test]
fn a_key_that_is_not_there_or_is_no_string_is_refused() {
    let numbers = events("n", Arc::new(UInt32Array::from(vec![1])));
    assert!(matches!(lookup("m", &numbers), Err(LookupError::NoSuchField { .. })));
    assert!(matches!(lookup("n", &numbers), Err(LookupError::KeyType { .. })));
}
