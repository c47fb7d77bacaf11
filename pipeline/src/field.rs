//! Follows a field path through columns: into structs, and into lists with the list kept around what is found.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, cast::AsArray, make_array};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema};

use crate::spec::FieldPath;

/// A field path resolved against columns.
#[derive(Clone, Debug)]
pub struct Extract {
    column: usize,
    steps: Vec<Step>,
    data_type: DataType,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Field(usize),
    Items,
}

/// A field path that leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event schema has no field `{path}`: `{segment}` is not among {known:?}")]
pub struct NoSuchField {
    /// The path asked for.
    pub path: String,
    /// The segment that was not found.
    pub segment: String,
    /// The names there are at that place.
    pub known: Vec<String>,
}

impl Extract {
    /// Resolves `path` in the columns of `schema`.
    ///
    /// # Errors
    /// When a segment names no field.
    pub fn resolve(path: &FieldPath, schema: &Schema) -> Result<Self, NoSuchField> {
        let miss = |segment: &str, known: &mut dyn Iterator<Item = &FieldRef>| NoSuchField {
            path: path.to_string(),
            segment: segment.to_owned(),
            known: known.map(|field| field.name().clone()).collect(),
        };
        let [first, rest @ ..] = path.segments() else { unreachable!("a field path is never empty") };
        let column = schema.index_of(first).map_err(|_| miss(first, &mut schema.fields().iter()))?;
        let mut steps = Vec::new();
        let mut lists: Vec<FieldRef> = Vec::new();
        let mut data_type = schema.field(column).data_type().clone();
        for segment in rest {
            while let DataType::List(item) = &data_type {
                steps.push(Step::Items);
                lists.push(Arc::clone(item));
                data_type = item.data_type().clone();
            }
            let DataType::Struct(fields) = &data_type else { return Err(miss(segment, &mut std::iter::empty())) };
            let (at, field) = fields.find(segment).ok_or_else(|| miss(segment, &mut fields.iter()))?;
            steps.push(Step::Field(at));
            data_type = field.data_type().clone();
        }
        for item in lists.iter().rev() {
            data_type = DataType::List(list_item(data_type, item));
        }
        Ok(Self { column, steps, data_type })
    }

    /// Arrow type of what is extracted; lists on the way are around it.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
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
