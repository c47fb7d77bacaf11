//! Follows a field path through columns: into structs, and into lists with the list kept around what is found.

use std::{collections::HashMap, sync::Arc};

use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, cast::AsArray, make_array};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Metadata, Schema};

use crate::{decode::WITHOUT_COLUMN, spec::FieldPath};

/// A field path resolved against columns.
#[derive(Clone, Debug)]
pub struct Extract {
    column: usize,
    steps: Vec<Step>,
    data_type: DataType,
    nullable: bool,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Field(usize),
    Items,
}

/// A field path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchField {
    /// The path asked for.
    pub path: String,
    /// The segment that was not found.
    pub segment: String,
    /// The names there are at that place.
    pub known: Vec<String>,
    /// Why the field that the schema does have there cannot be reached.
    pub why: Option<String>,
}

impl std::error::Error for NoSuchField {}

impl std::fmt::Display for NoSuchField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, segment, known, why } = self;
        match why {
            Some(why) => write!(f, "the field `{path}` cannot be reached: {why}"),
            None => write!(f, "the event schema has no field `{path}`: `{segment}` is not among {known:?}"),
        }
    }
}

impl Extract {
    /// Resolves `path` in the columns of `schema`.
    ///
    /// # Errors
    /// When a segment names no field.
    pub fn resolve(path: &FieldPath, schema: &Schema) -> Result<Self, NoSuchField> {
        let miss = |segment: &str, known: &[FieldRef], why: Option<String>| NoSuchField {
            path: path.to_string(),
            segment: segment.to_owned(),
            known: known.iter().map(|field| field.name().clone()).collect(),
            why,
        };
        let [first, rest @ ..] = path.segments() else { unreachable!("a field path is never empty") };
        let found = schema.fields().find(first);
        let (column, field) =
            found.ok_or_else(|| miss(first, schema.fields(), without_column(schema.metadata(), first)))?;
        let mut steps = Vec::new();
        let mut lists: Vec<FieldRef> = Vec::new();
        let mut field = Arc::clone(field);
        let mut nullable = field.is_nullable();
        for segment in rest {
            while let DataType::List(item) = field.data_type() {
                steps.push(Step::Items);
                lists.push(Arc::clone(item));
                field = Arc::clone(item);
            }
            let DataType::Struct(fields) = field.data_type() else {
                let map = matches!(field.data_type(), DataType::Map(..));
                let why = map.then(|| "a map goes into one column as a whole".to_owned());
                return Err(miss(segment, &[], why));
            };
            let (at, inner) =
                fields.find(segment).ok_or_else(|| miss(segment, fields, without_column(field.metadata(), segment)))?;
            steps.push(Step::Field(at));
            field = Arc::clone(inner);
            nullable |= field.is_nullable();
        }
        let mut data_type = field.data_type().clone();
        for item in lists.iter().rev() {
            data_type = DataType::List(list_item(data_type, item));
        }
        Ok(Self { column, steps, data_type, nullable })
    }

    /// Arrow type of what is extracted; lists on the way are around it.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether the field, or a struct that it is in, may be null.
    pub fn is_nullable(&self) -> bool {
        self.nullable
    }

    /// The field's values, one per row; with lists on the way, lists of them. Shares the buffers of `rows`.
    ///
    /// # Errors
    /// When `rows` do not have the columns that the path was resolved against.
    pub fn from(&self, rows: &RecordBatch) -> Result<ArrayRef, ArrowError> {
        follow(rows.column(self.column), &self.steps)
    }
}

fn follow(array: &ArrayRef, steps: &[Step]) -> Result<ArrayRef, ArrowError> {
    match steps {
        [] => Ok(Arc::clone(array)),
        [Step::Field(at), rest @ ..] => {
            let parent = array
                .as_struct_opt()
                .ok_or_else(|| ArrowError::SchemaError(format!("expected a struct, got {}", array.data_type())))?;
            follow(&with_parent_nulls(parent.column(*at), parent.nulls())?, rest)
        }
        [Step::Items, rest @ ..] => {
            let list = array
                .as_list_opt::<i32>()
                .ok_or_else(|| ArrowError::SchemaError(format!("expected a list, got {}", array.data_type())))?;
            map_items(list, |items| follow(items, rest)).map(|list| Arc::new(list) as ArrayRef)
        }
    }
}

/// Why a record's field has no column.
fn without_column(record: &Metadata, field: &str) -> Option<String> {
    let mut why: HashMap<String, String> = serde_json::from_str(record.get(WITHOUT_COLUMN)?).ok()?;
    Some(format!("no column can hold {}", why.remove(field)?))
}

/// A list of the same shape whose items are `items(old items)`.
pub(crate) fn map_items(
    list: &ListArray,
    items: impl FnOnce(&ArrayRef) -> Result<ArrayRef, ArrowError>,
) -> Result<ListArray, ArrowError> {
    let old = match list.data_type() {
        DataType::List(item) => Arc::clone(item),
        other => return Err(ArrowError::SchemaError(format!("expected a list, got {other}"))),
    };
    let values = items(list.values())?;
    let offsets: OffsetBuffer<i32> = list.offsets().clone();
    let item = list_item(values.data_type().clone(), &old);
    ListArray::try_new(item, offsets, values, list.nulls().cloned())
}

/// Items are declared nullable: whether they are is the table's to decide.
fn list_item(data_type: DataType, old: &Field) -> FieldRef {
    Arc::new(Field::new(old.name(), data_type, true))
}

/// A child of a null struct is null, whatever its own bits say.
fn with_parent_nulls(child: &ArrayRef, parent: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    match parent {
        Some(parent) if parent.null_count() > 0 => {
            let nulls = NullBuffer::union(Some(parent), child.logical_nulls().as_ref());
            Ok(make_array(child.to_data().into_builder().nulls(nulls).build()?))
        }
        _ => Ok(Arc::clone(child)),
    }
}

#[cfg(test)]
mod tests;
