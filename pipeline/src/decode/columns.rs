//! The columns of a reader's schema: which Arrow type each Avro type has.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use apache_avro::{
    Schema,
    schema::{UnionSchema, UuidSchema},
};
use arrow_schema::{DataType, Field, Fields, TimeUnit};

use super::{
    names::{Names, Path, PlanError},
    plan::{Base, Number, base},
    skip::decimal_limit,
};

/// Metadata of an enum's field: its symbols as a JSON array.
pub const ENUM_SYMBOLS: &str = "avro.enum.symbols";

/// Metadata of a record's field, and of the schema of rows: a JSON object of the fields that have no column, and why.
pub const WITHOUT_COLUMN: &str = "avro.without.column";

/// The field of a value.
///
/// # Errors
/// [`PlanError::NoColumn`] for a type that no column can hold, and for what consists of nothing else.
pub(super) fn field<'s>(
    name: &str,
    schema: &'s Schema,
    names: &Names<'s>,
    path: &Path<'_>,
) -> Result<Field, PlanError> {
    let (schema, path) = names.enter(schema, path)?;
    match schema {
        Schema::Union(union) => match only_value(union) {
            Some(value) => Ok(field(name, value, names, &path)?.with_nullable(union.variants().len() > 1)),
            None => one_of(name, union, names, &path),
        },
        Schema::Record(record) => {
            let members = record.fields.iter().map(|one| (one.name.as_str(), &one.schema));
            members_of(name, members, names, &path)
        }
        Schema::Enum(symbols) => {
            let symbols = serde_json::to_string(&symbols.symbols).unwrap_or_default();
            let metadata = HashMap::from([(ENUM_SYMBOLS.to_owned(), symbols)]);
            Ok(Field::new(name, data_type(schema, names, &path)?, false).with_metadata(metadata))
        }
        // What is always null has to be allowed to be.
        _ => Ok(Field::new(name, data_type(schema, names, &path)?, matches!(schema, Schema::Null))),
    }
}

/// A struct with a column for each type of a union, of which one at most is not null.
fn one_of<'s>(name: &str, union: &'s UnionSchema, names: &Names<'s>, path: &Path<'_>) -> Result<Field, PlanError> {
    let values = || union.variants().iter().filter(|branch| !matches!(branch, Schema::Null));
    if values().next().is_none() {
        return Err(PlanError::NoColumn("a union of nothing but null".to_owned()));
    }
    let mut seen = Vec::new();
    for branch in values().map(branch_name) {
        if seen.contains(&branch) {
            return Err(PlanError::NoColumn(format!("a union of two types that are both called `{branch}`")));
        }
        seen.push(branch);
    }
    let field = members_of(name, values().map(|branch| (branch_name(branch), branch)), names, path)?;
    let DataType::Struct(branches) = field.data_type() else { unreachable!("members are those of a struct") };
    let branches: Fields = branches.iter().map(|branch| branch.as_ref().clone().with_nullable(true)).collect();
    Ok(field.with_data_type(DataType::Struct(branches)))
}

/// A struct of those members that have a column.
fn members_of<'s, 'n>(
    name: &str,
    members: impl Iterator<Item = (&'n str, &'s Schema)>,
    names: &Names<'s>,
    path: &Path<'_>,
) -> Result<Field, PlanError> {
    let (mut fields, mut without) = (Vec::new(), BTreeMap::new());
    for (member, schema) in members {
        match field(member, schema, names, path) {
            Ok(field) => fields.push(field),
            Err(PlanError::NoColumn(why)) => drop(without.insert(member, why)),
            Err(error) => return Err(error),
        }
    }
    if fields.is_empty() {
        let why = without.into_values().next().unwrap_or_else(|| "a record without fields".to_owned());
        return Err(PlanError::NoColumn(why));
    }
    let metadata = match serde_json::to_string(&without) {
        Ok(without_columns) if !without.is_empty() => HashMap::from([(WITHOUT_COLUMN.to_owned(), without_columns)]),
        _ => HashMap::new(),
    };
    Ok(Field::new(name, DataType::Struct(fields.into()), false).with_metadata(metadata))
}

fn data_type<'s>(schema: &'s Schema, names: &Names<'s>, path: &Path<'_>) -> Result<DataType, PlanError> {
    let none = |what: &str| Err(PlanError::NoColumn(what.to_owned()));
    let utc = || Some(Arc::from("+00:00"));
    Ok(match schema {
        Schema::Null => DataType::Null,
        Schema::Boolean => DataType::Boolean,
        Schema::Int => DataType::Int32,
        Schema::Long => DataType::Int64,
        Schema::Float => DataType::Float32,
        Schema::Double => DataType::Float64,
        Schema::Bytes => DataType::Binary,
        Schema::String => DataType::Utf8,
        Schema::Uuid(UuidSchema::String | UuidSchema::Bytes) => DataType::FixedSizeBinary(16),
        Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Fixed(fixed) => match i32::try_from(fixed.size) {
            Ok(len) if len > 0 => DataType::FixedSizeBinary(len),
            _ => return none("a fixed of no bytes"),
        },
        Schema::Date => DataType::Date32,
        Schema::TimeMillis => DataType::Time32(TimeUnit::Millisecond),
        Schema::TimeMicros => DataType::Time64(TimeUnit::Microsecond),
        Schema::TimestampMillis => DataType::Timestamp(TimeUnit::Millisecond, utc()),
        Schema::TimestampMicros => DataType::Timestamp(TimeUnit::Microsecond, utc()),
        Schema::TimestampNanos => DataType::Timestamp(TimeUnit::Nanosecond, utc()),
        Schema::LocalTimestampMillis => DataType::Timestamp(TimeUnit::Millisecond, None),
        Schema::LocalTimestampMicros => DataType::Timestamp(TimeUnit::Microsecond, None),
        Schema::LocalTimestampNanos => DataType::Timestamp(TimeUnit::Nanosecond, None),
        // At most 38 digits fit 8 bits.
        Schema::Decimal(decimal) => match decimal_limit(decimal) {
            Some(_) => DataType::Decimal128(decimal.precision as u8, decimal.scale as i8),
            None => return none("a decimal of more than 38 digits, or with more after the point than it has"),
        },
        Schema::Enum(_) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Schema::Array(array) => {
            DataType::List(Arc::new(field(Field::LIST_FIELD_DEFAULT_NAME, &array.items, names, path)?))
        }
        Schema::Map(map) => {
            let entries = [Field::new("key", DataType::Utf8, false), field("value", &map.types, names, path)?];
            let entries = DataType::Struct(entries.into_iter().collect());
            DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
        }
        Schema::Duration(_) => {
            let parts = ["months", "days", "millis"].map(|part| Field::new(part, DataType::UInt32, false));
            DataType::Struct(parts.into_iter().collect())
        }
        Schema::BigDecimal => return none("a big-decimal, of which each value has a scale of its own"),
        Schema::Record(_) | Schema::Union(_) | Schema::Ref { .. } => unreachable!("they are told before"),
    })
}

/// What the column of a union's branch is called: as the branch in Avro's own JSON, without the namespace.
pub(super) fn branch_name(branch: &Schema) -> &str {
    if let Some(name) = branch.name() {
        return name.name();
    }
    match base(branch) {
        Base::Null => "null",
        Base::Boolean => "boolean",
        Base::Number(Number::Int) => "int",
        Base::Number(Number::Long) => "long",
        Base::Number(Number::Float) => "float",
        Base::Number(Number::Double) => "double",
        Base::Text => "string",
        Base::Bytes => "bytes",
        Base::Array(_) => "array",
        Base::Map(_) => "map",
        Base::Fixed(_) | Base::Enum(_) | Base::Record(_) | Base::Other => unreachable!("they have a name"),
    }
}

/// The one type of a union besides null.
pub(super) fn only_value(union: &UnionSchema) -> Option<&Schema> {
    let mut values = union.variants().iter().filter(|branch| !matches!(branch, Schema::Null));
    let only = values.next();
    only.filter(|_| values.next().is_none())
}

/// The symbols of an enum's field, in order.
pub(super) fn symbols(field: &Field) -> Vec<String> {
    field.metadata().get(ENUM_SYMBOLS).and_then(|symbols| serde_json::from_str(symbols).ok()).unwrap_or_default()
}
