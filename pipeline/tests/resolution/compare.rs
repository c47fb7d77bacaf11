//! Columns against the values that apache-avro makes of the same bytes.

use apache_avro::types::Value;
use arrow_array::{Array, ArrayRef, cast::AsArray, types};

use crate::schema::{FixedLogical, Kind, Schema, Type, null};

/// What differs, with the way to it.
pub(crate) fn same(schema: &Schema, type_: &Type, column: &ArrayRef, row: usize, value: &Value) -> Result<(), String> {
    let here = || format!("{value:?} is in the column as {:?}", column.slice(row, 1));
    let like = |same: bool| if same { Ok(()) } else { Err(here()) };
    let inside = |name: &str, found: Result<(), String>| found.map_err(|error| format!("{name}: {error}"));
    match (type_, value) {
        (Type::Union(branches), Value::Union(at, value)) => {
            let values: Vec<&Type> = branches.iter().filter(|branch| **branch != null()).collect();
            let chosen = &branches[*at as usize];
            if let [only] = values[..] {
                return match **value {
                    Value::Null => like(column.is_null(row)),
                    _ => like(column.is_valid(row)).and_then(|()| same(schema, only, column, row, value)),
                };
            }
            let columns = column.as_struct();
            like(columns.num_columns() == values.len())?;
            for (branch, column) in values.into_iter().zip(columns.columns()) {
                if branch == chosen {
                    inside("branch", like(column.is_valid(row)))?;
                    inside("branch", same(schema, branch, column, row, value))?;
                } else {
                    inside("another branch", like(column.is_null(row)))?;
                }
            }
            Ok(())
        }
        (Type::Named(at), value) => match (&schema.named[*at].kind, value) {
            (Kind::Record(fields), Value::Record(values)) => {
                let columns = column.as_struct();
                for (field, (name, value)) in fields.iter().zip(values) {
                    let column = columns.column_by_name(name).ok_or_else(|| format!("{name} has no column"))?;
                    inside(name, same(schema, &field.type_, column, row, value))?;
                }
                like(fields.len() == values.len() && fields.len() == columns.num_columns())
            }
            (Kind::Enum { .. }, Value::Enum(_, symbol)) => {
                let keys = column.as_dictionary::<types::Int32Type>();
                like(keys.values().as_string::<i32>().value(keys.keys().value(row) as usize) == symbol)
            }
            (Kind::Fixed { logical: Some(FixedLogical::Duration), .. }, Value::Duration(duration)) => {
                let parts = [duration.months().into(), duration.days().into(), u32::from(duration.millis())];
                let columns = column.as_struct().columns().iter();
                like(columns.map(|column| column.as_primitive::<types::UInt32Type>().value(row)).eq(parts))
            }
            (_, value) => simple(column, row, value).map_or_else(|| Err(here()), like),
        },
        (Type::Array(items), Value::Array(values)) => {
            let found = column.as_list::<i32>().value(row);
            like(found.len() == values.len())?;
            values.iter().enumerate().try_for_each(|(at, value)| inside("item", same(schema, items, &found, at, value)))
        }
        (Type::Map(inner), Value::Map(values)) => {
            let entries = column.as_map().value(row);
            like(entries.len() == values.len())?;
            entries.column(0).as_string::<i32>().iter().enumerate().try_for_each(|(at, key)| {
                let value = values.get(key.unwrap_or_default()).ok_or_else(here)?;
                inside("map", same(schema, inner, entries.column(1), at, value))
            })
        }
        (_, value) => simple(column, row, value).map_or_else(|| Err(here()), like),
    }
}

/// `None` for a value that the column's type cannot be.
fn simple(column: &ArrayRef, row: usize, value: &Value) -> Option<bool> {
    let long = |value: i64| Some(long(column, row)? == value);
    match value {
        Value::Boolean(value) => Some(column.as_boolean_opt()?.value(row) == *value),
        Value::Int(value) => Some(column.as_primitive_opt::<types::Int32Type>()?.value(row) == *value),
        Value::Long(value) => Some(column.as_primitive_opt::<types::Int64Type>()?.value(row) == *value),
        Value::Float(value) => {
            let found = column.as_primitive_opt::<types::Float32Type>()?.value(row);
            Some(found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan())
        }
        Value::Double(value) => {
            let found = column.as_primitive_opt::<types::Float64Type>()?.value(row);
            Some(found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan())
        }
        Value::String(value) => Some(column.as_string_opt::<i32>()?.value(row) == value),
        Value::Bytes(value) => Some(column.as_binary_opt::<i32>()?.value(row) == value),
        Value::Fixed(_, value) => Some(column.as_fixed_size_binary_opt()?.value(row) == value),
        Value::Uuid(value) => Some(column.as_fixed_size_binary_opt()?.value(row) == value.as_bytes()),
        Value::Decimal(value) => {
            let bytes: Vec<u8> = value.try_into().ok()?;
            let sign = if bytes.first()? & 0x80 == 0 { 0 } else { 0xff };
            let mut wide = [sign; 16];
            wide[16 - bytes.len()..].copy_from_slice(&bytes);
            Some(column.as_primitive_opt::<types::Decimal128Type>()?.value(row) == i128::from_be_bytes(wide))
        }
        Value::Date(value) => Some(column.as_primitive_opt::<types::Date32Type>()?.value(row) == *value),
        Value::TimeMillis(value) => {
            Some(column.as_primitive_opt::<types::Time32MillisecondType>()?.value(row) == *value)
        }
        Value::TimeMicros(value) => {
            Some(column.as_primitive_opt::<types::Time64MicrosecondType>()?.value(row) == *value)
        }
        Value::TimestampMillis(value)
        | Value::LocalTimestampMillis(value)
        | Value::TimestampMicros(value)
        | Value::LocalTimestampMicros(value)
        | Value::TimestampNanos(value)
        | Value::LocalTimestampNanos(value) => long(*value),
        _ => None,
    }
}

/// A timestamp in its own unit.
fn long(column: &ArrayRef, row: usize) -> Option<i64> {
    let milliseconds = column.as_primitive_opt::<types::TimestampMillisecondType>().map(|column| column.value(row));
    let microseconds = || column.as_primitive_opt::<types::TimestampMicrosecondType>().map(|column| column.value(row));
    let nanoseconds = || column.as_primitive_opt::<types::TimestampNanosecondType>().map(|column| column.value(row));
    milliseconds.or_else(microseconds).or_else(nanoseconds)
}
