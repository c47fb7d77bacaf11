//! Re-labels event fields and enriched values as ClickHouse columns, and adds the coordinates of each event.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, DictionaryArray, Int32Array, Int64Array, RecordBatch, cast::AsArray, types::Int32Type,
};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};

use crate::{
    enrich::{Found, Lookup},
    field::{Extract, NoSuchField},
    reference::enriched_field,
    spec::{ColumnSpec, FieldPath, Source},
};

/// Column with the Kafka partition, `Int32`.
pub const PARTITION_COLUMN: &str = "_partition";
/// Column with the Kafka offset, `Int64`.
pub const OFFSET_COLUMN: &str = "_offset";
/// Column with the time of the insert, filled by ClickHouse's default; never sent.
pub const INGESTED_AT_COLUMN: &str = "_ingested_at";

/// Makes ClickHouse columns of decoded and enriched events.
#[derive(Debug)]
pub struct Projector {
    columns: Vec<Column>,
    schema: SchemaRef,
}

#[derive(Debug)]
struct Column {
    source: ColumnSource,
    /// The last dictionary sent: chunks with an equal one share it, so that a batch needs no merging of dictionaries.
    dictionary: Option<ArrayRef>,
}

#[derive(Debug)]
enum ColumnSource {
    Event(Extract),
    Lookup { lookup: usize, column: usize },
}

/// The reference fields that each lookup must hold, in the order in which [`Projector`] asks for them.
pub fn reference_fields(columns: &[ColumnSpec], lookup: usize) -> Vec<FieldPath> {
    let mut fields: Vec<FieldPath> = Vec::new();
    for column in columns {
        match &column.source {
            Source::Lookup { lookup: at, field } if *at == lookup && !fields.contains(field) => {
                fields.push(field.clone());
            }
            _ => {}
        }
    }
    fields
}

impl Projector {
    /// Binds column specifications to the event schema and the lookups.
    ///
    /// # Errors
    /// When a column names a field that the event does not have.
    pub fn new(specs: &[ColumnSpec], events: &Schema, lookups: &[Lookup]) -> Result<Self, NoSuchField> {
        let mut columns = Vec::with_capacity(specs.len());
        let mut fields = Vec::with_capacity(specs.len() + 2);
        for spec in specs {
            let (source, data_type) = match &spec.source {
                Source::Event(path) => {
                    let extract = Extract::resolve(path, events)?;
                    let data_type = extract.data_type().clone();
                    (ColumnSource::Event(extract), data_type)
                }
                Source::Lookup { lookup, field } => {
                    let column = reference_fields(specs, *lookup).iter().position(|other| other == field);
                    let column = column.unwrap_or_default();
                    let found = &lookups[*lookup];
                    (ColumnSource::Lookup { lookup: *lookup, column }, found.data_type(column))
                }
            };
            fields.push(enriched_field(&spec.column, data_type));
            columns.push(Column { source, dictionary: None });
        }
        fields.push(Field::new(PARTITION_COLUMN, DataType::Int32, false));
        fields.push(Field::new(OFFSET_COLUMN, DataType::Int64, false));
        Ok(Self { columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// Arrow schema of the rows: a nullable column per specification, then `_partition` and `_offset`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The events as table rows; `found` holds one entry per lookup.
    ///
    /// # Errors
    /// When `events` do not have the columns that the projector was bound to.
    pub fn project(
        &mut self,
        events: &RecordBatch,
        partitions: Int32Array,
        offsets: Int64Array,
        lookups: &mut [Lookup],
        found: &[Found],
    ) -> Result<RecordBatch, ArrowError> {
        let mut arrays = Vec::with_capacity(self.columns.len() + 2);
        for column in &mut self.columns {
            let array = match &column.source {
                ColumnSource::Event(extract) => extract.from(events)?,
                ColumnSource::Lookup { lookup, column } => lookups[*lookup].column(*column, &found[*lookup])?,
            };
            arrays.push(share_dictionary(array, &mut column.dictionary)?);
        }
        arrays.push(Arc::new(partitions));
        arrays.push(Arc::new(offsets));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
    }
}

fn share_dictionary(array: ArrayRef, last: &mut Option<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    let Some(dictionary) = array.as_dictionary_opt::<Int32Type>() else { return Ok(array) };
    match last {
        // A chunk of which nothing was left has no dictionary worth remembering.
        _ if array.is_empty() => Ok(array),
        Some(last) if Arc::ptr_eq(last, dictionary.values()) => Ok(array),
        Some(last) if last.as_ref() == dictionary.values().as_ref() => {
            Ok(Arc::new(DictionaryArray::try_new(dictionary.keys().clone(), Arc::clone(last))?))
        }
        _ => {
            *last = Some(Arc::clone(dictionary.values()));
            Ok(array)
        }
    }
}
