//! The default that an Avro schema gives a field, as SQL: what old events read as is what old rows should have.

use std::collections::HashMap;

use arrow_schema::DataType;
use millrace_pipeline::spec::FieldPath;
use serde_json::Value;

use crate::clickhouse::claims::quote;

/// SQL of the default of the field at `path` in a schema (Avro JSON), if it has one that is written as it is meant: null,
/// a number, a text, a symbol or a boolean. The default of a decimal, a time or bytes is not.
pub(super) fn of_field(avro: &str, path: &FieldPath, data_type: &DataType) -> Option<String> {
    let schema: Value = serde_json::from_str(avro).ok()?;
    let mut names = HashMap::new();
    collect(&schema, &mut names);
    let (last, parents) = path.segments().split_last()?;
    let record = parents.iter().try_fold(&schema, |record, name| field(record, name, &names)?.get("type"))?;
    let default = field(record, last, &names)?.get("default")?;
    literal(default, data_type)
}

fn literal(default: &Value, data_type: &DataType) -> Option<String> {
    let data_type = match data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    };
    match (default, data_type) {
        (Value::Null, _) => Some("NULL".to_owned()),
        (Value::Bool(yes), DataType::Boolean) => Some(yes.to_string()),
        (Value::Number(number), DataType::Int32 | DataType::Int64 | DataType::Float32 | DataType::Float64) => {
            Some(number.to_string())
        }
        (Value::String(text), DataType::Utf8) => Some(quote(text)),
        _ => None,
    }
}

/// The field of this name in a record, which may be named, or the one record of a union.
fn field<'s>(schema: &'s Value, name: &str, names: &HashMap<&'s str, &'s Value>) -> Option<&'s Value> {
    let record = match schema {
        Value::String(reference) => names.get(reference.rsplit('.').next()?)?,
        Value::Array(branches) => return branches.iter().find_map(|branch| field(branch, name, names)),
        other => other,
    };
    record.get("fields")?.as_array()?.iter().find(|field| field.get("name").and_then(Value::as_str) == Some(name))
}

/// Named types by their short names.
fn collect<'s>(schema: &'s Value, names: &mut HashMap<&'s str, &'s Value>) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| collect(branch, names)),
        Value::Object(object) => {
            if let (Some(name), Some(_)) = (object.get("name").and_then(Value::as_str), object.get("fields")) {
                names.insert(name.rsplit('.').next().unwrap_or(name), schema);
            }
            for (key, inner) in object {
                match (key.as_str(), inner) {
                    ("type" | "items" | "values", inner) => collect(inner, names),
                    ("fields", Value::Array(fields)) => fields.iter().for_each(|field| collect(field, names)),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_is_found_wherever_the_field_is() {
        let schema = r#"{"type": "record", "name": "E", "fields": [
            {"name": "n", "type": ["null", "string"], "default": null},
            {"name": "a", "type": {"type": "record", "name": "x.Inner", "fields": [
                {"name": "i", "type": "int", "default": -7},
                {"name": "t", "type": "string", "default": "it's"},
                {"name": "m", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4}, "default": "\u0000"}]}},
            {"name": "b", "type": ["null", "x.Inner"]}]}"#;
        let of = |path: &str, data_type| of_field(schema, &path.parse().unwrap(), &data_type);
        assert_eq!(of("n", DataType::Utf8).as_deref(), Some("NULL"));
        assert_eq!(of("a.i", DataType::Int32).as_deref(), Some("-7"));
        assert_eq!(of("b.t", DataType::Utf8).as_deref(), Some(r"'it\'s'"));
        assert_eq!(of("a.m", DataType::Decimal128(4, 0)), None);
        assert_eq!((of("b", DataType::Utf8), of("a.z", DataType::Utf8)), (None, None));
    }
}
