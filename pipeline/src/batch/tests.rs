use std::{sync::Arc, time::Duration};

use arrow_array::{Array, DictionaryArray, Int64Array, StringArray, cast::AsArray, types::Int32Type, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};

use super::*;
use crate::reason::{Reason, Rejection};

fn schema() -> SchemaRef {
    let text = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("text", text, true)]))
}

fn rows(numbers: &[i64]) -> RecordBatch {
    let text: DictionaryArray<Int32Type> = numbers.iter().map(|n| if n % 2 == 0 { "even" } else { "odd" }).collect();
    let numbers = Int64Array::from(numbers.to_vec());
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(text)]).unwrap()
}

fn letter(len: usize) -> DeadLetter {
    DeadLetter {
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: None,
        value: Some(vec![0; len]),
        headers: Vec::new(),
        rejection: Rejection::new(Reason::BadMagic, ""),
    }
}

fn batcher(max_rows: usize, max_bytes: usize, max_age_ms: u64) -> Batcher {
    Batcher::new(BatchLimits { max_rows, max_bytes, max_age: Duration::from_millis(max_age_ms) }, schema())
}

#[test]
fn an_empty_batcher_is_never_due_and_closes_to_nothing() {
    let mut batcher = batcher(1, 1, 0);
    assert_eq!((batcher.due(u64::MAX), batcher.deadline()), (None, None));
    assert!(batcher.close(0, Trigger::Drain).unwrap().is_none());
}

#[test]
fn it_is_due_by_rows_dead_letters_among_them() {
    let mut batcher = batcher(3, usize::MAX, 1000);
    batcher.add_rows(rows(&[1, 2]), &[0, 0], 7);
    assert_eq!(batcher.due(7), None);
    batcher.add_dead_letter(letter(1), 7);
    assert_eq!(batcher.due(7), Some(Trigger::Rows));
}

#[test]
fn it_is_due_by_bytes_dead_letters_among_them() {
    let mut batcher = batcher(100, 10_000, 1000);
    batcher.add_dead_letter(letter(9_999), 7);
    assert_eq!(batcher.due(7), None);
    batcher.add_rows(rows(&[1]), &[0], 7);
    assert_eq!(batcher.due(7), Some(Trigger::Bytes));
}

#[test]
fn headers_of_a_dead_letter_are_bytes_too() {
    let mut batcher = batcher(100, 10_000, 1000);
    let headers = vec![("trace".to_owned(), Some(vec![0; 9_000])), ("none".to_owned(), None)];
    let letter = DeadLetter { key: Some(vec![0; 90]), headers, ..letter(900) };
    assert_eq!(letter.bytes(), 5 + 9_000 + 4 + 90 + 900);
    batcher.add_dead_letter(letter, 7);
    assert_eq!(batcher.due(7), None);
    batcher.add_dead_letter(self::letter(1), 7);
    assert_eq!(batcher.due(7), Some(Trigger::Bytes));
}

#[test]
fn it_is_due_by_the_age_of_the_first_thing_in_it() {
    let mut batcher = batcher(100, usize::MAX, 1000);
    batcher.advance(0, 1, 5, 50);
    batcher.add_rows(rows(&[1]), &[0], 900);
    assert_eq!(batcher.deadline(), Some(1050));
    assert_eq!((batcher.due(1049), batcher.due(1050)), (None, Some(Trigger::Age)));
    assert!(batcher.close(0, Trigger::Age).unwrap().is_some());
    assert_eq!(batcher.deadline(), None);
}

#[test]
fn progress_without_rows_is_a_batch_because_dropped_duplicates_move_offsets_too() {
    let mut batcher = batcher(100, usize::MAX, 1000);
    batcher.advance(3, 2, 10, 0);
    batcher.advance(1, 4, 7, 0);
    batcher.advance(3, 2, 12, 0);
    let batch = batcher.close(0, Trigger::Age).unwrap().unwrap();
    assert_eq!(batch.rows.num_rows(), 0);
    assert_eq!(batch.rows.schema(), schema());
    let expected = [(1, 4, 7), (3, 2, 12)];
    let expected = expected.map(|(partition, epoch, next_offset)| Progress { partition, epoch, next_offset });
    assert_eq!(batch.progress, expected);
}

#[test]
fn chunks_are_joined_in_order_with_their_times_and_without_repeated_dictionary_values() {
    let mut batcher = batcher(100, usize::MAX, 1000);
    batcher.add_rows(rows(&[5, 4]), &[50, 40], 0);
    batcher.add_rows(rows(&[]), &[], 0);
    batcher.add_rows(rows(&[2, 3, 1]), &[20, 30, 10], 0);
    assert_eq!(batcher.rows(), 5);
    let batch = batcher.close(0, Trigger::Drain).unwrap().unwrap();
    assert_eq!(batch.rows.column(0).as_primitive::<Int64Type>().values(), &[5, 4, 2, 3, 1]);
    assert_eq!(batch.published_ms, [50, 40, 20, 30, 10]);
    let text = batch.rows.column(1).as_dictionary::<Int32Type>();
    assert_eq!(text.values().len(), 2, "ClickHouse refuses a dictionary that repeats a value");
    let text: Vec<_> = text.downcast_dict::<StringArray>().unwrap().into_iter().flatten().collect();
    assert_eq!(text, ["odd", "even", "even", "odd", "odd"]);
    assert_eq!((batch.trigger.code(), batcher.rows()), ("drain", 0));
}

#[test]
fn numbers_rise_and_nothing_of_a_closed_batch_is_in_the_next() {
    let mut batcher = batcher(100, usize::MAX, 1000);
    for seq in 0..3 {
        batcher.add_rows(rows(&[1]), &[0], 0);
        batcher.add_dead_letter(letter(1), 0);
        batcher.advance(0, 1, 1, 0);
        let batch = batcher.close(seq, Trigger::Age).unwrap().unwrap();
        assert_eq!((batch.seq, batch.rows.num_rows(), batch.dead_letters.len(), batch.progress.len()), (seq, 1, 1, 1));
    }
}

#[test]
fn an_abandoned_batch_tells_its_partitions_and_leaves_nothing_behind() {
    let mut batcher = batcher(2, usize::MAX, 1000);
    batcher.add_rows(rows(&[1, 2]), &[0, 0], 0);
    batcher.add_dead_letter(letter(9), 0);
    batcher.advance(4, 1, 1, 0);
    batcher.advance(2, 1, 1, 0);
    assert_eq!(batcher.partitions().collect::<Vec<_>>(), [2, 4]);
    assert_eq!(batcher.abandon(), [2, 4]);
    assert_eq!((batcher.due(u64::MAX), batcher.rows(), batcher.partitions().count()), (None, 0, 0));
    batcher.add_rows(rows(&[3]), &[1], 0);
    let batch = batcher.close(0, Trigger::Age).unwrap().unwrap();
    assert_eq!((batch.rows.num_rows(), batch.dead_letters.len(), batch.published_ms.len()), (1, 0, 1));
}

#[test]
fn batches_are_sent_young_while_inserts_are_quick_and_old_while_they_are_slow() {
    let age = |inserts_ms: &[u64]| {
        let mut batcher = batcher(100, usize::MAX, 1000);
        inserts_ms.iter().for_each(|took_ms| batcher.inserted(*took_ms));
        batcher.add_rows(rows(&[1]), &[0], 0);
        batcher.deadline().unwrap()
    };
    assert_eq!(age(&[]), 1000, "as long as nothing is known");
    assert_eq!(age(&[1]), 250, "never younger than a quarter");
    assert_eq!(age(&[100]), 400);
    assert_eq!(age(&[100, 200, 200, 200]), 400, "slow inserts beside a quick one do not count");
    assert_eq!(age(&[100, 200, 200, 200, 200]), 800, "until it is long ago");
    assert_eq!(age(&[60_000]), 1000);
}

#[test]
fn bytes_are_those_of_the_values_whatever_room_they_have_and_however_long_the_dictionary() {
    let one = rows(&[1]);
    assert_eq!(body_bytes(one.column(0)), 8);
    assert_eq!(body_bytes(one.column(1)), 4);
    assert_eq!(body_bytes(&rows(&[1, 2, 3, 4]).column(0).slice(1, 2)), 16);
}
