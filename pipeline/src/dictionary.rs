//! Dictionaries without repetitions. Joining chunks may repeat values in a dictionary, which Arrow allows and ClickHouse
//! refuses (code 117, seen with 26.7).

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, UInt32Array, cast::AsArray,
    types::Int32Type,
};
use arrow_schema::ArrowError;
use arrow_select::take::take;
use hashbrown::HashMap;

use crate::field::map_items;

/// The rows with every text dictionary free of repetitions; columns that have none are shared, not copied.
///
/// # Errors
/// Never for columns that are valid Arrow.
pub fn unique_dictionaries(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = rows.columns().iter().map(unique).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(rows.schema(), columns)
}

fn unique(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    if let Some(list) = array.as_list_opt::<i32>() {
        return Ok(Arc::new(map_items(list, unique)?));
    }
    let Some(dictionary) = array.as_dictionary_opt::<Int32Type>() else { return Ok(Arc::clone(array)) };
    let Some(values) = dictionary.values().as_string_opt::<i32>() else { return Ok(Arc::clone(array)) };
    let Some((firsts, renumbered)) = renumber(values) else { return Ok(Arc::clone(array)) };
    let keys: Int32Array =
        dictionary.keys().iter().map(|key| key.and_then(|key| renumbered.get(key as usize).copied())).collect();
    let values = take(values, &firsts, None)?;
    Ok(Arc::new(DictionaryArray::try_new(keys, values)?))
}

/// Where each distinct value stands first, and for every value its number among the distinct ones; `None` when all are
/// distinct.
fn renumber(values: &StringArray) -> Option<(UInt32Array, Vec<i32>)> {
    let mut numbers: HashMap<Option<&str>, i32> = HashMap::with_capacity(values.len());
    let mut firsts = Vec::new();
    let mut renumbered = Vec::with_capacity(values.len());
    for (at, value) in (0u32..).zip(values.iter()) {
        let next = numbers.len() as i32;
        let number = *numbers.entry(value).or_insert_with(|| {
            firsts.push(at);
            next
        });
        renumbered.push(number);
    }
    (firsts.len() < values.len()).then(|| (firsts.into(), renumbered))
}

#[cfg(test)]
mod tests {
    use arrow_array::ListArray;
    use arrow_buffer::OffsetBuffer;
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    fn repeated() -> DictionaryArray<Int32Type> {
        let keys = Int32Array::from(vec![Some(0), Some(2), None, Some(1), Some(3)]);
        let values: StringArray = ["a", "b", "a", "c"].into_iter().map(Some).collect();
        DictionaryArray::new(keys, Arc::new(values))
    }

    #[test]
    fn repeated_values_are_merged_also_inside_lists_and_the_rows_stay_the_same() {
        let flat: ArrayRef = Arc::new(repeated());
        let item = Arc::new(Field::new("item", flat.data_type().clone(), true));
        let list: ArrayRef =
            Arc::new(ListArray::new(item, OffsetBuffer::new(vec![0, 2, 5].into()), Arc::clone(&flat), None));
        for array in [&flat, &list.as_list::<i32>().values().clone()] {
            let before: Vec<Option<&str>> =
                array.as_dictionary::<Int32Type>().downcast_dict::<StringArray>().unwrap().into_iter().collect();
            let schema = Schema::new(vec![Field::new("c", array.data_type().clone(), true)]);
            let rows = RecordBatch::try_new(Arc::new(schema), vec![Arc::clone(array)]).unwrap();
            let merged = unique_dictionaries(&rows).unwrap();
            let merged = merged.column(0).as_dictionary::<Int32Type>();
            assert_eq!(merged.values().len(), 3);
            let after: Vec<Option<&str>> = merged.downcast_dict::<StringArray>().unwrap().into_iter().collect();
            assert_eq!(before, after);
        }
        let merged = unique(&list).unwrap();
        assert_eq!(merged.as_list::<i32>().values().as_dictionary::<Int32Type>().values().len(), 3);
        assert_eq!(merged.data_type(), &DataType::List(Arc::new(Field::new("item", flat.data_type().clone(), true))));
    }
}
