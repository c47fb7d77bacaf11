//! The answer of a query, as it is told and as ClickHouse writes it.

use serde::Serialize;
use serde_json::Value;

/// Names and types first, text escaped, null apart from any text; it needs no setting, which a read-only user may not set.
pub(super) const FORMAT: &str = "TabSeparatedWithNamesAndTypes";

/// The answer of a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// In order.
    pub columns: Vec<Column>,
    /// A value for each column: a number for integers and floats (null if not finite), a boolean, null, or else the text as
    /// ClickHouse writes it. Decimals are texts, so that no cent is lost.
    pub rows: Vec<Vec<Value>>,
    /// How long it took, as seen from here.
    pub seconds: f64,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type in ClickHouse.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Columns and rows of the format [`FORMAT`].
pub(super) fn read_answer(text: &[u8]) -> Option<(Vec<Column>, Vec<Vec<Value>>)> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split_terminator('\n');
    let (names, kinds) = (lines.next()?, lines.next()?);
    let column = |(name, kind)| Column { name: unescaped(name), kind: unescaped(kind) };
    let columns: Vec<Column> = names.split('\t').zip(kinds.split('\t')).map(column).collect();
    let row = |line: &str| line.split('\t').zip(&columns).map(|(field, of)| value(field, &of.kind)).collect();
    let rows = lines.map(row).collect();
    Some((columns, rows))
}

fn value(field: &str, kind: &str) -> Value {
    if field == "\\N" {
        return Value::Null;
    }
    let number = match plain_kind(kind) {
        "UInt8" | "UInt16" | "UInt32" | "UInt64" => field.parse::<u64>().ok().map(Value::from),
        "Int8" | "Int16" | "Int32" | "Int64" => field.parse::<i64>().ok().map(Value::from),
        "Float32" | "Float64" => field.parse::<f64>().ok().map(Value::from),
        "Bool" => field.parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    number.unwrap_or_else(|| Value::from(unescaped(field)))
}

/// A type without what says only whether it may be null and how it is stored.
pub(super) fn plain_kind(kind: &str) -> &str {
    let mut kind = kind;
    for wrapper in ["LowCardinality(", "Nullable("] {
        kind = kind.strip_prefix(wrapper).and_then(|inner| inner.strip_suffix(')')).unwrap_or(kind);
    }
    kind
}

/// As [the format](https://clickhouse.com/docs/interfaces/formats/TabSeparated) escapes text.
fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(one) = characters.next() {
        if one != '\\' {
            text.push(one);
            continue;
        }
        match characters.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('0') => text.push('\0'),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_keeps_decimals_nulls_and_odd_texts_apart() {
        let text =
            b"n\tamount\tname\tshare\tok\nUInt64\tDecimal(18, 2)\tLowCardinality(Nullable(String))\tFloat64\tBool\n\
            18446744073709551615\t12345678901234567.89\ta\\tb\\\\N\t0.5\ttrue\n0\t-0.01\t\\N\tnan\tfalse\n";
        let (columns, rows) = read_answer(text).unwrap();
        assert_eq!(columns[2], Column { name: "name".into(), kind: "LowCardinality(Nullable(String))".into() });
        assert_eq!(
            rows[0],
            [json!(u64::MAX), json!("12345678901234567.89"), json!("a\tb\\N"), json!(0.5), json!(true)]
        );
        assert_eq!(rows[1], [json!(0), json!("-0.01"), Value::Null, Value::Null, json!(false)]);
        assert!(read_answer(b"a\n").is_none());
        assert_eq!(read_answer(b"a\nUInt8\n").unwrap().1.len(), 0);
    }
}
