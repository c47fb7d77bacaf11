//! A compacted reference topic held whole: key to latest record, as columns to `take` from.

mod keys;

use std::sync::Arc;

use self::keys::Keys;
use crate::{
    field::{Extract, NoSuchField},
    spec::FieldPath,
};
use arrow_array::{
    Array, ArrayRef, DictionaryArray, RecordBatch, StringArray, UInt32Array, builder::StringDictionaryBuilder,
    cast::AsArray, types::Int32Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema};
use arrow_select::{concat::concat, take::take};

/// Rows of overwritten and deleted records are dropped once they are this many and more than half of all.
const MIN_GARBAGE: usize = 1024;

/// The latest record of every key of one reference topic.
#[derive(Debug)]
pub struct ReferenceTable {
    key: Extract,
    rows_by_key: Keys,
    columns: Vec<Column>,
    rows: usize,
}

#[derive(Debug)]
struct Column {
    extract: Extract,
    values: Values,
}

/// Text is kept as a dictionary: reference attributes repeat, and ClickHouse keeps them as `LowCardinality`.
enum Values {
    Text {
        builder: Box<StringDictionaryBuilder<Int32Type>>,
        built: Option<DictionaryArray<Int32Type>>,
    },
    /// As pieces that were appended, joined when they are next asked for; never empty.
    Other(Vec<ArrayRef>),
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text { builder, .. } => {
                write!(f, "Text({} rows)", arrow_array::builder::ArrayBuilder::len(&**builder))
            }
            Self::Other(pieces) => {
                let rows: usize = pieces.iter().map(Array::len).sum();
                write!(f, "{}({rows} rows)", pieces[0].data_type())
            }
        }
    }
}

/// Why records do not fit a reference table.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// A field that the configuration names is not in the schema.
    #[error(transparent)]
    NoSuchField(#[from] NoSuchField),
    /// The key is not a string.
    #[error("the key field `{path}` is of type {found}; expected a string")]
    KeyType {
        /// Path of the key.
        path: String,
        /// Its Arrow type.
        found: DataType,
    },
    /// The columns changed under way.
    #[error("the reference records do not have the columns agreed on: {0}")]
    Arrow(#[from] ArrowError),
}

impl ReferenceTable {
    /// An empty table for records of `schema`, keyed by `key` (Utf8), from which `fields` are taken.
    ///
    /// # Errors
    /// When a field is not in the schema, or the key is not a string.
    pub fn new(schema: &Schema, key: &FieldPath, fields: &[FieldPath]) -> Result<Self, ReferenceError> {
        let extract = Extract::resolve(key, schema)?;
        if extract.data_type() != &DataType::Utf8 {
            let found = extract.data_type().clone();
            return Err(ReferenceError::KeyType { path: key.to_string(), found });
        }
        let columns = fields
            .iter()
            .map(|field| {
                let extract = Extract::resolve(field, schema)?;
                let values = Values::empty(extract.data_type());
                Ok(Column { extract, values })
            })
            .collect::<Result<_, NoSuchField>>()?;
        Ok(Self { key: extract, rows_by_key: Keys::default(), columns, rows: 0 })
    }

    /// Takes in records in the order of the topic: the later one of a key wins.
    ///
    /// # Errors
    /// When the records do not have the schema that the table was made for.
    pub fn upsert(&mut self, records: &RecordBatch) -> Result<(), ReferenceError> {
        let keys = self.key.from(records)?;
        let keys: &StringArray = keys.as_string();
        // All of them or none: columns of different lengths would give every later key another's attributes.
        let new: Vec<ArrayRef> =
            self.columns.iter().map(|column| column.fitting(records)).collect::<Result<_, ArrowError>>()?;
        for (column, new) in self.columns.iter_mut().zip(&new) {
            column.values.append(new);
        }
        for (row, key) in (self.rows..).zip(keys.iter()) {
            let (Some(key), Ok(row)) = (key, u32::try_from(row)) else { continue };
            self.rows_by_key.insert(key, row);
        }
        self.rows += records.num_rows();
        self.compact()
    }

    /// A tombstone: forgets a key.
    pub fn delete(&mut self, key: &str) {
        self.rows_by_key.remove(key);
    }

    /// Keys held.
    pub fn len(&self) -> usize {
        self.rows_by_key.len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.rows_by_key.is_empty()
    }

    /// For each key the row of its record; null where there is none.
    pub fn find(&self, keys: &StringArray) -> UInt32Array {
        self.rows_by_key.get(keys)
    }

    /// The values of the `column`th field at `rows`, as found by [`ReferenceTable::find`]; null where a row is null.
    ///
    /// # Errors
    /// Never for rows that `find` returned.
    pub fn take(&mut self, column: usize, rows: &UInt32Array) -> Result<ArrayRef, ArrowError> {
        take(&self.columns[column].values.built()?, rows, None)
    }

    /// Arrow type of the `column`th field: text as `Dictionary(Int32, Utf8)`.
    pub fn data_type(&self, column: usize) -> DataType {
        match &self.columns[column].values {
            Values::Text { .. } => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            Values::Other(pieces) => pieces[0].data_type().clone(),
        }
    }

    fn compact(&mut self) -> Result<(), ReferenceError> {
        let garbage = self.rows - self.rows_by_key.len();
        if garbage < MIN_GARBAGE || garbage * 2 < self.rows {
            return Ok(());
        }
        let mut live: Vec<&mut u32> = self.rows_by_key.rows_mut().collect();
        live.sort_unstable();
        let rows = UInt32Array::from_iter_values(live.iter().map(|row| **row));
        for column in &mut self.columns {
            let kept = take(&column.values.built()?, &rows, None)?;
            column.values = Values::empty(column.extract.data_type());
            column.values.append(&kept);
        }
        for (at, row) in (0u32..).zip(live) {
            *row = at;
        }
        self.rows = rows.len();
        Ok(())
    }
}

impl Column {
    /// The field's values in `records`, of the type agreed on.
    fn fitting(&self, records: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        let new = self.extract.from(records)?;
        let (expected, found) = (self.extract.data_type(), new.data_type());
        if expected != found {
            return Err(ArrowError::SchemaError(format!("expected {expected}, got {found}")));
        }
        Ok(new)
    }
}

impl Values {
    fn empty(data_type: &DataType) -> Self {
        match data_type {
            DataType::Utf8 => Self::Text { builder: Box::default(), built: None },
            DataType::Dictionary(_, value) if **value == DataType::Utf8 => {
                Self::Text { builder: Box::default(), built: None }
            }
            other => Self::Other(vec![arrow_array::new_empty_array(other)]),
        }
    }

    fn append(&mut self, new: &ArrayRef) {
        match self {
            Self::Other(pieces) => pieces.push(Arc::clone(new)),
            Self::Text { builder, built } => {
                *built = None;
                if new.null_count() == new.len() {
                    // A dictionary of nothing but nulls may have no values, which `normalized_keys` does not bear.
                    builder.append_nulls(new.len());
                } else if let Some(dictionary) = new.as_any_dictionary_opt() {
                    let text = dictionary.values().as_string::<i32>();
                    for (row, key) in dictionary.normalized_keys().into_iter().enumerate() {
                        builder.append_option(dictionary.is_valid(row).then(|| text.value(key)));
                    }
                } else {
                    builder.extend(new.as_string::<i32>().iter());
                }
            }
        }
    }

    /// The values as an array; built once after each change, so that the batches in between share it.
    fn built(&mut self) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Other(pieces) => {
                if pieces.len() > 1 {
                    let all: Vec<&dyn Array> = pieces.iter().map(|piece| &**piece).collect();
                    *pieces = vec![concat(&all)?];
                }
                Ok(Arc::clone(&pieces[0]))
            }
            Self::Text { builder, built } => Ok(Arc::new(built.get_or_insert_with(|| builder.finish_cloned()).clone())),
        }
    }
}

/// The field of an enriched column: always nullable, since a key may be missing.
pub(crate) fn enriched_field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

#[cfg(test)]
mod tests;
