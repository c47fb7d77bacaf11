//! The default of a field as the datum that a writer would have written, so that it is read like any other.

use apache_avro::{Schema, schema::UuidSchema};
use serde_json::Value;

use super::{
    names::{Names, Path, PlanError},
    plan::{Base, Number, base},
};

/// Encodes `default` as a value of `schema`; the first branch of a union that takes it counts.
///
/// # Errors
/// When it is no value of the schema.
pub(super) fn datum<'s>(
    default: &Value,
    schema: &'s Schema,
    names: &Names<'s>,
    path: &Path<'_>,
) -> Result<Vec<u8>, PlanError> {
    let mut datum = Vec::new();
    write(default, schema, names, path, &mut datum)?;
    Ok(datum)
}

fn write<'s>(
    default: &Value,
    schema: &'s Schema,
    names: &Names<'s>,
    path: &Path<'_>,
    datum: &mut Vec<u8>,
) -> Result<(), PlanError> {
    let (schema, path) = names.enter(schema, path)?;
    let wrong = || PlanError::Unresolved(format!("the default {default} is no value of its type"));
    match (schema, default) {
        (Schema::Null, Value::Null) => {}
        (Schema::Boolean, Value::Bool(value)) => datum.push(u8::from(*value)),
        (Schema::Int | Schema::Date | Schema::TimeMillis, Value::Number(number)) => {
            let number = number.as_i64().and_then(|number| i32::try_from(number).ok()).ok_or_else(wrong)?;
            push_long(number.into(), datum);
        }
        (Schema::Float, Value::Number(number)) => {
            datum.extend_from_slice(&(number.as_f64().ok_or_else(wrong)? as f32).to_le_bytes());
        }
        (Schema::Double, Value::Number(number)) => {
            datum.extend_from_slice(&number.as_f64().ok_or_else(wrong)?.to_le_bytes());
        }
        (Schema::String | Schema::Uuid(UuidSchema::String), Value::String(text)) => push_bytes(text.as_bytes(), datum),
        (Schema::Enum(symbols), Value::String(symbol)) => {
            let at = symbols.symbols.iter().position(|known| known == symbol).ok_or_else(wrong)?;
            push_long(at as i64, datum);
        }
        (Schema::Union(union), value) => {
            let branches = union.variants().iter().enumerate();
            let mut found = branches.filter_map(|(at, branch)| {
                let mut inner = Vec::new();
                write(value, branch, names, &path, &mut inner).ok().map(|()| (at, inner))
            });
            let (at, inner) = found.next().ok_or_else(wrong)?;
            push_long(at as i64, datum);
            datum.extend_from_slice(&inner);
        }
        (Schema::Record(record), Value::Object(fields)) => {
            for field in &record.fields {
                let value = fields.get(&field.name).or(field.default.as_ref()).ok_or_else(wrong)?;
                write(value, &field.schema, names, &path, datum)?;
            }
        }
        (Schema::Array(array), Value::Array(items)) => {
            if !items.is_empty() {
                push_long(items.len() as i64, datum);
            }
            items.iter().try_for_each(|item| write(item, &array.items, names, &path, datum))?;
            datum.push(0);
        }
        (Schema::Map(map), Value::Object(entries)) => {
            if !entries.is_empty() {
                push_long(entries.len() as i64, datum);
            }
            for (key, value) in entries {
                push_bytes(key.as_bytes(), datum);
                write(value, &map.types, names, &path, datum)?;
            }
            datum.push(0);
        }
        (_, Value::Number(number)) if matches!(base(schema), Base::Number(Number::Long)) => {
            push_long(number.as_i64().ok_or_else(wrong)?, datum)
        }
        (_, Value::String(text)) => {
            // Bytes are written as characters 0 to 255.
            let bytes: Option<Vec<u8>> = text.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect();
            let bytes = bytes.ok_or_else(wrong)?;
            match base(schema) {
                Base::Bytes => push_bytes(&bytes, datum),
                Base::Fixed(len) if len == bytes.len() => datum.extend_from_slice(&bytes),
                _ => return Err(wrong()),
            }
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

fn push_bytes(bytes: &[u8], datum: &mut Vec<u8>) {
    push_long(bytes.len() as i64, datum);
    datum.extend_from_slice(bytes);
}

/// A zigzag variable-length integer.
fn push_long(number: i64, datum: &mut Vec<u8>) {
    let mut raw = (number << 1 ^ number >> 63) as u64;
    while raw >= 0x80 {
        datum.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    datum.push(raw as u8);
}
