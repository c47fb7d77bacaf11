//! The columns of a reader's schema: which Arrow type each Avro type has.

use std::{collections::HashMap, sync::Arc};

use apache_avro::{
    Schema,
    schema::{UnionSchema, UuidSchema},
};
use arrow_schema::{DataType, Field, Fields, TimeUnit};

use super::{
    names::{Names, Path, PlanError},
    skip::decimal_limit,
};

/// Metadata of an enum's field: its symbols as a JSON array.
pub const ENUM_SYMBOLS: &str = "avro.enum.symbols";

/// The field of a value, or `None` for a type that has no column: a union of several types, `duration`, `big-decimal`, a
/// decimal of more than 38 digits, and what consists of nothing else.
pub(super) fn field<'s>(
    name: &str,
    schema: &'s Schema,
    names: &Names<'s>,
    path: &Path<'_>,
) -> Result<Option<Field>, PlanError> {
    let (schema, path) = names.enter(schema, path)?;
    if let Schema::Union(union) = schema {
        let Some(value) = only_value(union) else { return Ok(None) };
        let nullable = union.variants().len() > 1;
        return Ok(field(name, value, names, &path)?.map(|field| field.with_nullable(nullable)));
    }
    let Some(data_type) = data_type(schema, names, &path)? else { return Ok(None) };
    // What is always null has to be allowed to be.
    let field = Field::new(name, data_type, matches!(schema, Schema::Null));
    Ok(Some(match schema {
        Schema::Enum(symbols) => {
            let symbols = serde_json::to_string(&symbols.symbols).unwrap_or_default();
            field.with_metadata(HashMap::from([(ENUM_SYMBOLS.to_owned(), symbols)]))
        }
        _ => field,
    }))
}

fn data_type<'s>(schema: &'s Schema, names: &Names<'s>, path: &Path<'_>) -> Result<Option<DataType>, PlanError> {
    let utc = || Some(Arc::from("+00:00"));
    Ok(Some(match schema {
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
            _ => return Ok(None),
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
            None => return Ok(None),
        },
        Schema::Enum(_) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Schema::Record(record) => {
            let fields = record.fields.iter().filter_map(|one| field(&one.name, &one.schema, names, path).transpose());
            let fields: Fields = fields.collect::<Result<_, _>>()?;
            if fields.is_empty() {
                return Ok(None);
            }
            DataType::Struct(fields)
        }
        Schema::Array(array) => match field(Field::LIST_FIELD_DEFAULT_NAME, &array.items, names, path)? {
            Some(item) => DataType::List(Arc::new(item)),
            None => return Ok(None),
        },
        Schema::Map(map) => match field("value", &map.types, names, path)? {
            Some(value) => {
                let entries = Fields::from(vec![Field::new("key", DataType::Utf8, false), value]);
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
            }
            None => return Ok(None),
        },
        Schema::BigDecimal | Schema::Duration(_) | Schema::Union(_) | Schema::Ref { .. } => return Ok(None),
    }))
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
