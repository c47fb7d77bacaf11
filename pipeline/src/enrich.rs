//! Joins reference columns to events: a key per event, or per array item, and a `take` from the reference table.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, UInt32Array, cast::AsArray};
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::{
    field::{Extract, NoSuchField, map_items},
    reference::ReferenceTable,
    spec::LookupSpec,
};

/// One lookup of a topic, with the table it looks in.
#[derive(Debug)]
pub struct Lookup {
    /// What was configured.
    pub spec: LookupSpec,
    /// The reference topic's records.
    pub table: ReferenceTable,
    key: Extract,
}

/// A lookup that does not fit the event schema.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The field to look up is not there.
    #[error("lookup `{lookup}`: {source}")]
    NoSuchField {
        /// Name of the lookup.
        lookup: String,
        /// The field.
        source: NoSuchField,
    },
    /// The field to look up is not a string.
    #[error("lookup `{lookup}`: `{on}` is of type {found}; expected a string, or an array of records with one")]
    KeyType {
        /// Name of the lookup.
        lookup: String,
        /// Path of the key in the event.
        on: String,
        /// Its Arrow type.
        found: DataType,
    },
}

/// Where the keys of some events were found.
#[derive(Debug)]
pub struct Found {
    /// Keys, or lists of keys.
    keys: ArrayRef,
    /// Row in the reference table per key; for lists, per item.
    rows: UInt32Array,
    /// Keys that are not there.
    pub misses: usize,
}

impl Lookup {
    /// Binds a lookup to the columns of the events.
    ///
    /// # Errors
    /// When the key field is missing or is not a string.
    pub fn new(spec: LookupSpec, table: ReferenceTable, events: &Schema) -> Result<Self, LookupError> {
        let key = Extract::resolve(&spec.on, events)
            .map_err(|source| LookupError::NoSuchField { lookup: spec.name.clone(), source })?;
        let scalar = match key.data_type() {
            DataType::List(item) => item.data_type(),
            other => other,
        };
        if scalar != &DataType::Utf8 {
            let found = key.data_type().clone();
            return Err(LookupError::KeyType { lookup: spec.name, on: spec.on.to_string(), found });
        }
        Ok(Self { spec, table, key })
    }

    /// Looks the keys of `events` up.
    ///
    /// # Errors
    /// When `events` do not have the columns that the lookup was bound to.
    pub fn find(&self, events: &RecordBatch) -> Result<Found, ArrowError> {
        let keys = self.key.from(events)?;
        let rows = match keys.as_list_opt::<i32>() {
            Some(list) => self.table.find(list.values().as_string()),
            None => self.table.find(keys.as_string()),
        };
        // A null key is no key: it asks for nothing and misses nothing. Items that belong to no event at hand, as those
        // around a slice, do not count either.
        let (asked, at_hand) = match keys.as_list_opt::<i32>() {
            Some(list) => {
                let (from, to) = (list.value_offsets()[0] as usize, list.value_offsets()[list.len()] as usize);
                (list.values().slice(from, to - from), rows.slice(from, to - from))
            }
            None => (Arc::clone(&keys), rows.clone()),
        };
        let misses = (asked.len() - asked.null_count()) - (at_hand.len() - at_hand.null_count());
        Ok(Found { keys, rows, misses })
    }

    /// The `column`th reference field beside the events that `found` was made from: a value per event, or a list with
    /// a value per item.
    ///
    /// # Errors
    /// Never for what [`Lookup::find`] returned.
    pub fn column(&mut self, column: usize, found: &Found) -> Result<ArrayRef, ArrowError> {
        let values = self.table.take(column, &found.rows)?;
        match found.keys.as_list_opt::<i32>() {
            Some(list) => Ok(Arc::new(map_items(list, |_| Ok(values))?)),
            None => Ok(values),
        }
    }
}

impl Lookup {
    /// Arrow type of the enriched column that [`Lookup::column`] makes: the field's, in a list where the key is in one.
    pub fn data_type(&self, column: usize) -> DataType {
        let scalar = self.table.data_type(column);
        match self.key.data_type() {
            DataType::List(item) => DataType::List(Arc::new(Field::new(item.name(), scalar, true))),
            _ => scalar,
        }
    }
}

impl Found {
    /// For each event whether a key of it is missing.
    pub fn missing(&self) -> Vec<bool> {
        match self.keys.as_list_opt::<i32>() {
            Some(list) => {
                let items = list.values();
                list.offsets()
                    .windows(2)
                    .map(|ends| {
                        (ends[0] as usize..ends[1] as usize).any(|at| self.rows.is_null(at) && items.is_valid(at))
                    })
                    .collect()
            }
            None => (0..self.rows.len()).map(|at| self.rows.is_null(at) && self.keys.is_valid(at)).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
