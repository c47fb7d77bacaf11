//! The named types of an Avro schema, and the way down into it, which has to have an end.

use std::{cell::Cell, collections::HashMap};

use apache_avro::{Schema, schema::Name};

/// A schema that unfolds into more types than this, by naming the same ones over and over, is refused.
const MAX_TYPES: usize = 100_000;

/// A schema that cannot be walked.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlanError {
    /// It is no Avro schema.
    #[error("the schema is not valid Avro: {0}")]
    Parse(String),
    /// It contains itself.
    #[error("the type `{0}` contains itself; recursive types have no columns")]
    Recursive(String),
    /// It is nested without reason.
    #[error(
        "the schema nests deeper than {0} levels, which is topics.limits.max_depth, or unfolds into more than {MAX_TYPES} types"
    )]
    TooDeep(usize),
    /// It is of a type that no column can hold.
    #[error("no column can hold {0}")]
    NoColumn(String),
    /// It refers to a name that it does not define.
    #[error("the schema refers to `{0}`, which it does not define; are its references registered?")]
    UnknownName(String),
    /// The writer's schema cannot be read into the reader's.
    #[error("{0}")]
    Unresolved(String),
}

/// Parses an Avro schema given as JSON.
///
/// # Errors
/// [`PlanError::Parse`].
pub(super) fn parse(schema: &str) -> Result<Schema, PlanError> {
    Schema::parse_str(schema).map_err(|error| PlanError::Parse(error.to_string()))
}

/// What the names in a schema stand for.
#[derive(Debug)]
pub(super) struct Names<'s> {
    types: HashMap<&'s Name, &'s Schema>,
    types_left: Cell<usize>,
    max_depth: usize,
}

/// The named types around a type, innermost first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path<'p> {
    around: Option<&'p Path<'p>>,
    name: Option<&'p Name>,
    depth: usize,
}

/// The types that a schema defines, by name.
pub fn named_types(schema: &Schema) -> HashMap<&Name, &Schema> {
    let mut types = HashMap::new();
    let mut open = vec![schema];
    while let Some(schema) = open.pop() {
        match schema {
            Schema::Record(record) => open.extend(record.fields.iter().map(|field| &field.schema)),
            Schema::Array(array) => open.push(&array.items),
            Schema::Map(map) => open.push(&map.types),
            Schema::Union(union) => open.extend(union.variants()),
            _ => {}
        }
        if let (Some(name), false) = (schema.name(), matches!(schema, Schema::Ref { .. })) {
            types.insert(name, schema);
        }
    }
    types
}

impl<'s> Names<'s> {
    /// Those of `schema`, of which what nests deeper than `max_depth` is refused.
    pub(super) fn of(schema: &'s Schema, max_depth: usize) -> Self {
        Self { types: named_types(schema), types_left: Cell::new(MAX_TYPES), max_depth }
    }

    /// What a schema is, its name resolved if there is such a type.
    pub(super) fn definition(&self, schema: &'s Schema) -> &'s Schema {
        match schema {
            Schema::Ref { name } => self.types.get(name).copied().unwrap_or(schema),
            other => other,
        }
    }

    /// What a schema is, its name resolved, and the path of what lies inside it.
    pub(super) fn enter<'p>(&self, schema: &'s Schema, path: &'p Path<'p>) -> Result<(&'s Schema, Path<'p>), PlanError>
    where
        's: 'p,
    {
        let schema = match schema {
            Schema::Ref { name } => *self.types.get(name).ok_or_else(|| PlanError::UnknownName(name.to_string()))?,
            other => other,
        };
        let name = if let Schema::Record(record) = schema { Some(&record.name) } else { None };
        let mut around = Some(path);
        while let Some(path) = around {
            if let Some(name) = path.name.filter(|open| Some(*open) == name) {
                return Err(PlanError::Recursive(name.to_string()));
            }
            around = path.around;
        }
        let left = self.types_left.get().checked_sub(1).filter(|_| path.depth < self.max_depth);
        self.types_left.set(left.ok_or(PlanError::TooDeep(self.max_depth))?);
        Ok((schema, Path { around: Some(path), name, depth: path.depth + 1 }))
    }
}
