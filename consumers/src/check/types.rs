//! Which ClickHouse types take which Arrow types without loss: the one table of it.

use arrow_schema::{DataType, TimeUnit};

/// A ClickHouse type taken apart: what is around it, and the type itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ColumnType<'a> {
    /// `Array(…)` levels.
    arrays: usize,
    /// Whether null can be told from a default.
    pub(super) nullable: bool,
    /// Name without parameters, such as `Decimal`.
    name: &'a str,
    /// Parameters as written, such as `18, 2`.
    parameters: &'a str,
}

impl<'a> ColumnType<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let (mut arrays, mut nullable, mut text) = (0, false, text.trim());
        loop {
            let (name, parameters) = match text.strip_suffix(')').and_then(|text| text.split_once('(')) {
                Some((name, parameters)) => (name, parameters),
                None => (text, ""),
            };
            match name {
                "Array" => arrays += 1,
                "Nullable" => nullable = true,
                "LowCardinality" => {}
                _ => return Self { arrays, nullable, name, parameters },
            }
            text = parameters;
        }
    }

    fn numbers(&self) -> Vec<i64> {
        self.parameters.split(',').filter_map(|number| number.trim().parse().ok()).collect()
    }

    /// Names of an `Enum8` or `Enum16`.
    fn enum_names(&self) -> Option<Vec<String>> {
        let is_enum = matches!(self.name, "Enum8" | "Enum16");
        // Every name stands between two quotes, which may be escaped in it.
        let unescaped = self.parameters.replace("\\'", "\u{0}");
        let names = unescaped.split('\'').skip(1).step_by(2).map(|name| name.replace('\u{0}', "'"));
        is_enum.then(|| names.collect())
    }
}

/// Why values of this Arrow type cannot all be kept in this column; `symbols` are those of an Avro enum.
pub(super) fn mismatch(arrow: &DataType, symbols: Option<&[String]>, column: &str) -> Option<String> {
    let column = ColumnType::parse(column);
    let (mut arrow, mut lists) = (arrow, 0);
    while let DataType::List(item) | DataType::LargeList(item) = arrow {
        arrow = item.data_type();
        lists += 1;
    }
    let wrap = |name: &str| format!("{}{name}{}", "Array(".repeat(lists), ")".repeat(lists));
    let expected = expected(arrow);
    let fits = expected.iter().any(|candidate| candidate.takes(&column));
    if column.arrays != lists || !fits {
        let names: Vec<String> = expected.iter().map(|candidate| wrap(&candidate.to_string())).collect();
        return Some(match names.as_slice() {
            [] => format!("no ClickHouse type is known to take its values ({arrow}); map a part of it instead"),
            names => format!("expected {}", names.join(" or ")),
        });
    }
    let (names, symbols) = (column.enum_names()?, symbols?);
    let missing: Vec<&str> = symbols.iter().map(String::as_str).filter(|s| !names.iter().any(|n| n == s)).collect();
    (!missing.is_empty()).then(|| format!("the enum of the column lacks {}; add them to it", missing.join(", ")))
}

/// A ClickHouse type with the least parameters that it must have.
struct Candidate {
    name: &'static str,
    least: Vec<i64>,
}

impl Candidate {
    fn takes(&self, column: &ColumnType<'_>) -> bool {
        let numbers = column.numbers();
        match (self.name, self.least.as_slice(), numbers.as_slice()) {
            (name, ..) if name != column.name => false,
            // As many digits before the point, and after it.
            ("Decimal", [precision, scale], [p, s]) => s >= scale && p - s >= precision - scale,
            ("FixedString", [length], [l]) => l == length,
            (_, [least, ..], [number, ..]) => number >= least,
            (_, [], _) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<String> = self.least.iter().map(i64::to_string).collect();
        match numbers.as_slice() {
            [] => f.write_str(self.name),
            numbers => write!(f, "{}({})", self.name, numbers.join(", ")),
        }
    }
}

/// The table: Arrow type of an Avro field, and the ClickHouse types that keep all its values.
fn expected(arrow: &DataType) -> Vec<Candidate> {
    let any = |names: &[&'static str]| -> Vec<Candidate> {
        names.iter().map(|name| Candidate { name, least: Vec::new() }).collect()
    };
    let one = |name, least: &[i64]| vec![Candidate { name, least: least.to_vec() }];
    match arrow {
        DataType::Boolean => any(&["Bool", "UInt8"]),
        DataType::Int32 => any(&["Int32", "Int64", "Int128", "Int256"]),
        DataType::Int64 => any(&["Int64", "Int128", "Int256"]),
        DataType::Float32 => any(&["Float32", "Float64"]),
        DataType::Float64 => any(&["Float64"]),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => any(&["String", "Enum8", "Enum16"]),
        DataType::Dictionary(_, value) => expected(value),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => any(&["String"]),
        DataType::FixedSizeBinary(16) => [any(&["UUID"]), one("FixedString", &[16])].into_iter().flatten().collect(),
        DataType::FixedSizeBinary(length) => {
            [any(&["String"]), one("FixedString", &[i64::from(*length)])].into_iter().flatten().collect()
        }
        DataType::Date32 => any(&["Date32"]),
        DataType::Timestamp(TimeUnit::Second, _) => any(&["DateTime64"]),
        DataType::Timestamp(TimeUnit::Millisecond, _) => one("DateTime64", &[3]),
        DataType::Timestamp(TimeUnit::Microsecond, _) => one("DateTime64", &[6]),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => one("DateTime64", &[9]),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => one("Decimal", &[i64::from(*precision), i64::from(*scale)]),
        DataType::Map(..) => any(&["Map"]),
        DataType::Struct(_) => any(&["Tuple"]),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::Field;

    use super::*;

    fn dictionary() -> DataType {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    }

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", item, true)))
    }

    #[test]
    fn columns_that_keep_every_value_are_accepted() {
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
        for (arrow, column) in [
            (DataType::FixedSizeBinary(16), "UUID"),
            (dictionary(), "LowCardinality(Nullable(String))"),
            (DataType::Utf8, "Nullable(String)"),
            (milliseconds.clone(), "DateTime64(3, 'UTC')"),
            (milliseconds, "DateTime64(6)"),
            (DataType::Decimal128(18, 2), "Decimal(18, 2)"),
            (DataType::Decimal128(18, 2), "Decimal(38, 4)"),
            (list(DataType::Decimal128(18, 2)), "Array(Decimal(18, 2))"),
            (list(dictionary()), "Array(LowCardinality(Nullable(String)))"),
            (DataType::Int32, "Int64"),
            (DataType::Date32, "Nullable(Date32)"),
        ] {
            assert_eq!(mismatch(&arrow, None, column), None, "{arrow} into {column}");
        }
    }

    #[test]
    fn columns_that_would_lose_values_are_refused_with_what_would_do() {
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        for (arrow, column, expected) in [
            (DataType::FixedSizeBinary(16), "String", "expected UUID or FixedString(16)"),
            (milliseconds, "DateTime('UTC')", "expected DateTime64(3)"),
            (DataType::Decimal128(18, 2), "Decimal(10, 2)", "expected Decimal(18, 2)"),
            (DataType::Decimal128(18, 2), "Decimal(18, 4)", "expected Decimal(18, 2)"),
            (DataType::Int64, "Int32", "expected Int64 or Int128 or Int256"),
            (list(DataType::Int32), "Int32", "expected Array(Int32) or Array(Int64) or Array(Int128) or Array(Int256)"),
            (DataType::Float64, "Array(Float64)", "expected Float64"),
        ] {
            assert_eq!(mismatch(&arrow, None, column).as_deref(), Some(expected), "{arrow} into {column}");
        }
    }

    #[test]
    fn an_enum_must_have_every_symbol() {
        let symbols = ["created", "paid", "lost"].map(str::to_owned);
        let column = "Enum8('created' = 1, 'paid' = 2)";
        assert_eq!(mismatch(&dictionary(), Some(&symbols[..2]), column), None);
        let missing = mismatch(&dictionary(), Some(&symbols), column);
        assert_eq!(missing.as_deref(), Some("the enum of the column lacks lost; add them to it"));
    }

    #[test]
    fn a_type_is_taken_apart() {
        let column = ColumnType::parse("Array(LowCardinality(Nullable(String)))");
        assert_eq!((column.arrays, column.nullable, column.name), (1, true, "String"));
    }
}
