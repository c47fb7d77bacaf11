use arrow_array::{Int32Array, StringArray, StructArray, types::Int32Type};

use super::*;

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// A struct column of `fields`, null where `valid` says so.
fn structs(fields: Vec<(&str, ArrayRef)>, valid: Option<&[bool]>) -> ArrayRef {
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        fields.into_iter().map(|(name, column)| (Field::new(name, column.data_type().clone(), true), column)).unzip();
    Arc::new(StructArray::new(fields.into(), columns, valid.map(|valid| valid.to_vec().into())))
}

fn lists(offsets: &[i32], items: ArrayRef, valid: Option<&[bool]>) -> ArrayRef {
    let item = Arc::new(Field::new("item", items.data_type().clone(), true));
    let offsets = OffsetBuffer::new(offsets.to_vec().into());
    Arc::new(ListArray::new(item, offsets, items, valid.map(|valid| valid.to_vec().into())))
}

fn rows(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn extract(path: &str, rows: &RecordBatch) -> ArrayRef {
    let extract = Extract::resolve(&path.parse().unwrap(), rows.schema_ref()).unwrap();
    let values = extract.from(rows).unwrap();
    assert_eq!(values.data_type(), extract.data_type(), "what is announced is what comes");
    assert_eq!(values.len(), rows.num_rows());
    values
}

fn texts(array: &ArrayRef) -> Vec<Option<&str>> {
    array.as_string::<i32>().iter().collect()
}

#[test]
fn a_path_leads_through_structs() {
    let inner = structs(vec![("x", strings(&[Some("a"), None])), ("y", strings(&[Some("b"), Some("c")]))], None);
    let rows =
        rows(vec![("other", Arc::new(Int32Array::from(vec![1, 2]))), ("outer", structs(vec![("in", inner)], None))]);
    assert_eq!(texts(&extract("outer.in.x", &rows)), [Some("a"), None]);
    assert_eq!(texts(&extract("outer.in.y", &rows)), [Some("b"), Some("c")]);
    assert_eq!(extract("other", &rows).as_primitive::<Int32Type>().values(), &[1, 2]);
    assert!(extract("outer.in", &rows).as_struct_opt().is_some(), "a path may end at a struct");
}

#[test]
fn a_field_of_a_null_struct_is_null_whatever_lies_under_it() {
    let inner =
        structs(vec![("x", strings(&[Some("a"), Some("b"), None, Some("d")]))], Some(&[true, true, true, false]));
    let outer = structs(vec![("in", inner)], Some(&[true, false, true, true]));
    let rows = rows(vec![("outer", outer)]);
    assert_eq!(texts(&extract("outer.in.x", &rows)), [Some("a"), None, None, None]);
    let sliced = rows.slice(1, 2);
    assert_eq!(texts(&extract("outer.in.x", &sliced)), [None, None]);
}

#[test]
fn a_field_inside_a_list_of_structs_is_a_list_of_the_same_shape() {
    let items = structs(vec![("sku", strings(&[Some("a"), Some("b"), Some("c")]))], Some(&[true, false, true]));
    let rows = rows(vec![("items", lists(&[0, 2, 2, 3, 3], items, Some(&[true, true, true, false])))]);
    let found = extract("items.sku", &rows);
    let found = found.as_list::<i32>();
    assert_eq!(found.value_offsets(), [0, 2, 2, 3, 3]);
    assert_eq!((0..4).map(|row| found.is_null(row)).collect::<Vec<_>>(), [false, false, false, true]);
    assert_eq!(texts(found.values()), [Some("a"), None, Some("c")]);
}

#[test]
fn lists_in_lists_stay_nested() {
    let innermost = structs(vec![("x", strings(&[Some("a"), Some("b"), Some("c")]))], None);
    let inner = structs(vec![("list", lists(&[0, 1, 3], innermost, None))], None);
    let rows = rows(vec![("outer", lists(&[0, 2], inner, None))]);
    let found = extract("outer.list.x", &rows);
    let inner = found.as_list::<i32>().values().as_list::<i32>();
    assert_eq!(inner.value_offsets(), [0, 1, 3]);
    assert_eq!(texts(inner.values()), [Some("a"), Some("b"), Some("c")]);
}

#[test]
fn a_path_that_leads_nowhere_names_what_there_is() {
    let inner = structs(vec![("x", strings(&[None])), ("y", strings(&[None]))], None);
    let rows = rows(vec![("a", strings(&[None])), ("b", lists(&[0, 1], inner, None))]);
    let miss = |path: &str| Extract::resolve(&path.parse().unwrap(), rows.schema_ref()).unwrap_err();
    let error = miss("c.x");
    assert_eq!((error.segment.as_str(), error.known.as_slice()), ("c", &["a".to_owned(), "b".to_owned()][..]));
    let error = miss("b.z");
    assert_eq!((error.segment.as_str(), error.known.as_slice()), ("z", &["x".to_owned(), "y".to_owned()][..]));
    let error = miss("a.x");
    assert_eq!((error.segment.as_str(), error.known.len()), ("x", 0), "a string has no fields");
    assert_eq!(miss("b.z").to_string(), "the event schema has no field `b.z`: `z` is not among [\"x\", \"y\"]");
}

#[test]
fn rows_of_another_shape_are_an_error_and_no_panic() {
    let deep = rows(vec![("a", structs(vec![("x", strings(&[None]))], None))]);
    let listed = rows(vec![("a", lists(&[0, 1], structs(vec![("x", strings(&[None]))], None), None))]);
    let flat = rows(vec![("a", strings(&[None]))]);
    for shape in [&deep, &listed] {
        let extract = Extract::resolve(&"a.x".parse().unwrap(), shape.schema_ref()).unwrap();
        assert!(extract.from(&flat).is_err());
    }
}
