//! How to check a value of a writer's schema that no column wants, and pass over it.

use apache_avro::{
    Schema,
    schema::{DecimalSchema, InnerDecimalSchema, UuidSchema},
};

use super::{
    cursor::DAY_MS,
    names::{Names, Path, PlanError},
};

/// A value of a writer's schema.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Null,
    Boolean,
    Int,
    Long,
    Date,
    Timestamp { per_day: i64 },
    Time { per_day: i64 },
    Skip(usize),
    Bytes,
    String,
    UuidString,
    UuidBytes,
    DecimalBytes { limit: u128 },
    DecimalFixed { len: usize, limit: u128 },
    Enum(i32),
    Union(Vec<Node>),
    Record(Vec<Node>),
    Array { item: Box<Node>, item_min: usize },
    Map { value: Box<Node>, value_min: usize },
}

impl Node {
    /// How to pass over a value of `schema`, which lies in what `path` names.
    pub(super) fn compile<'s>(schema: &'s Schema, names: &Names<'s>, path: &Path<'_>) -> Result<Self, PlanError> {
        let (schema, path) = names.enter(schema, path)?;
        let inner = |schema| Self::compile(schema, names, &path);
        if let Some(per_day) = per_day(schema) {
            return Ok(Self::Timestamp { per_day });
        }
        Ok(match schema {
            Schema::Null => Self::Null,
            Schema::Boolean => Self::Boolean,
            Schema::Int => Self::Int,
            Schema::Long => Self::Long,
            Schema::TimeMillis => Self::Time { per_day: DAY_MS },
            Schema::TimeMicros => Self::Time { per_day: DAY_MS * 1000 },
            Schema::Date => Self::Date,
            Schema::Float => Self::Skip(4),
            Schema::Double => Self::Skip(8),
            Schema::Bytes | Schema::BigDecimal => Self::Bytes,
            Schema::String => Self::String,
            Schema::Uuid(UuidSchema::String) => Self::UuidString,
            Schema::Uuid(UuidSchema::Bytes) => Self::UuidBytes,
            Schema::Uuid(UuidSchema::Fixed(fixed)) | Schema::Fixed(fixed) | Schema::Duration(fixed) => {
                Self::Skip(fixed.size)
            }
            Schema::Decimal(decimal) => match (&decimal.inner, decimal_limit(decimal)) {
                (InnerDecimalSchema::Bytes, Some(limit)) => Self::DecimalBytes { limit },
                (InnerDecimalSchema::Fixed(fixed), Some(limit)) => Self::DecimalFixed { len: fixed.size, limit },
                (InnerDecimalSchema::Bytes, None) => Self::Bytes,
                (InnerDecimalSchema::Fixed(fixed), None) => Self::Skip(fixed.size),
            },
            Schema::Enum(symbols) => Self::Enum(symbol_count(&symbols.symbols)),
            Schema::Union(union) => Self::Union(union.variants().iter().map(inner).collect::<Result<_, _>>()?),
            Schema::Record(record) => {
                let fields = record.fields.iter().map(|field| inner(&field.schema));
                // What takes no bytes is left out, so that passing over a value takes no longer than it has bytes.
                Self::Record(fields.filter(|it| it.as_ref().map_or(true, Self::takes_bytes)).collect::<Result<_, _>>()?)
            }
            Schema::Array(array) => {
                let item = inner(&array.items)?;
                Self::Array { item_min: item.min_len(), item: Box::new(item) }
            }
            Schema::Map(map) => {
                let value = inner(&map.types)?;
                Self::Map { value_min: value.min_len(), value: Box::new(value) }
            }
            Schema::Ref { name } => return Err(PlanError::UnknownName(name.to_string())),
            Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => unreachable!("timestamps are told above"),
        })
    }

    /// Whether any value of it takes bytes in a datum.
    pub(super) fn takes_bytes(&self) -> bool {
        match self {
            Self::Null | Self::Skip(0) | Self::DecimalFixed { len: 0, .. } => false,
            Self::Record(fields) => !fields.is_empty(),
            _ => true,
        }
    }

    /// Fewest bytes that a value can have.
    pub(super) fn min_len(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Skip(len) | Self::DecimalFixed { len, .. } => *len,
            Self::DecimalBytes { .. } => 2,
            Self::UuidString => 37,
            Self::UuidBytes => 17,
            Self::Union(branches) => branches.iter().map(Self::min_len).min().unwrap_or(0).saturating_add(1),
            Self::Record(fields) => fields.iter().map(Self::min_len).fold(0, usize::saturating_add),
            _ => 1,
        }
    }
}

/// What unscaled values stay below: ten to the precision; `None` for more than the 38 digits that a column can have.
pub(super) fn decimal_limit(decimal: &DecimalSchema) -> Option<u128> {
    let limit = 10u128.checked_pow(u32::try_from(decimal.precision).ok()?);
    limit.filter(|_| (1..=38).contains(&decimal.precision) && decimal.scale <= decimal.precision)
}

/// How many of its units a day has, if it is a timestamp.
pub(super) fn per_day(schema: &Schema) -> Option<i64> {
    match schema {
        Schema::TimestampMillis | Schema::LocalTimestampMillis => Some(DAY_MS),
        Schema::TimestampMicros | Schema::LocalTimestampMicros => Some(DAY_MS * 1000),
        Schema::TimestampNanos | Schema::LocalTimestampNanos => Some(DAY_MS * 1_000_000),
        _ => None,
    }
}

pub(super) fn symbol_count(symbols: &[String]) -> i32 {
    i32::try_from(symbols.len()).unwrap_or(i32::MAX)
}
