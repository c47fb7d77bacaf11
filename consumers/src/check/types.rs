//! Which ClickHouse types take which Arrow types without loss: the one table of it, from which `docs/types.md` is made.

use arrow_schema::{DataType, Field, TimeUnit};
use millrace_pipeline::decode::ENUM_SYMBOLS;

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

    /// The types between the parentheses, such as `String` and `Array(Int64)`, each with its name in a `Tuple`.
    fn inner(&self) -> Vec<&'a str> {
        let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0, 0u32, None);
        for (at, char) in self.parameters.char_indices() {
            match (quote, char) {
                (Some(open), char) if open == char => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '`' | '"') => quote = Some(char),
                (None, '(') => depth += 1,
                (None, ')') => depth = depth.saturating_sub(1),
                (None, ',') if depth == 0 => {
                    parts.push(self.parameters[start..at].trim());
                    start = at + 1;
                }
                _ => {}
            }
        }
        parts.push(self.parameters[start..].trim());
        parts
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
    let (all, mut arrow, mut lists) = (arrow, arrow, 0);
    while let DataType::List(item) | DataType::LargeList(item) = arrow {
        arrow = item.data_type();
        lists += 1;
    }
    if column.arrays != lists || !expected(arrow).iter().any(|candidate| candidate.takes(&column)) {
        return Some(match accepted(all).as_slice() {
            [] => format!("no ClickHouse type is known to take its values ({arrow}); map a part of it instead"),
            names => format!("expected {}", names.join(" or ")),
        });
    }
    match arrow {
        DataType::Map(entries, _) => map_mismatch(entries, &column),
        DataType::Struct(fields) => fields.iter().find_map(|field| element_mismatch(field, &column)).or_else(|| {
            let extra = column.inner().len().checked_sub(fields.len()).filter(|extra| *extra > 0)?;
            Some(format!("{extra} elements of the tuple would get no value"))
        }),
        _ => {
            let names = column.enum_names()?;
            let Some(symbols) = symbols else {
                return Some(
                    "an enum column takes its own names only, and this may be any text; expected String".to_owned(),
                );
            };
            let missing: Vec<&str> =
                symbols.iter().map(String::as_str).filter(|s| !names.iter().any(|n| n == s)).collect();
            let lacks = || format!("the enum of the column lacks {}; add them to it", missing.join(", "));
            (!missing.is_empty()).then(lacks)
        }
    }
}

/// As [`mismatch`], for what lies in a map or a tuple.
fn inner_mismatch(field: &Field, column: &str) -> Option<String> {
    fn is_null(field: &Field) -> bool {
        match field.data_type() {
            DataType::List(item) => is_null(item),
            // A null map becomes an empty one.
            DataType::Map(..) => false,
            _ => field.is_nullable(),
        }
    }
    let symbols = field.metadata().get(ENUM_SYMBOLS).and_then(|json| serde_json::from_str::<Vec<String>>(json).ok());
    mismatch(field.data_type(), symbols.as_deref(), column).or_else(|| {
        let lost = is_null(field) && !ColumnType::parse(column).nullable;
        lost.then(|| "it may be null; expected Nullable".to_owned())
    })
}

fn map_mismatch(entries: &Field, column: &ColumnType<'_>) -> Option<String> {
    let DataType::Struct(entries) = entries.data_type() else { return None };
    let [key, value] = column.inner()[..] else { return Some("expected Map(String, …)".to_owned()) };
    if ColumnType::parse(key) != ColumnType::parse("String") {
        return Some(format!("its keys are {key}, expected String"));
    }
    inner_mismatch(&entries[1], value).map(|problem| format!("its values are {value}: {problem}"))
}

/// Elements are told apart by name, as the server does.
fn element_mismatch(field: &Field, column: &ColumnType<'_>) -> Option<String> {
    let mut elements = column.inner().into_iter().filter_map(|element| match element.strip_prefix(['`', '"']) {
        Some(quoted) => quoted.split_once(['`', '"']),
        None => element.split_once(' ').filter(|(name, _)| !name.contains('(')),
    });
    match elements.find(|(name, _)| name == field.name()) {
        None => Some(format!("the tuple has no element named {}", field.name())),
        Some((name, element)) => {
            let element = element.trim();
            inner_mismatch(field, element).map(|problem| format!("its element {name} is {element}: {problem}"))
        }
    }
}

/// The ClickHouse types that keep all values of an Arrow type, with the least parameters; the first suits best.
fn accepted(arrow: &DataType) -> Vec<String> {
    let of = |field: &Field| -> Vec<String> {
        // A tuple cannot be null, as a rule: what is no value would be one of empty parts.
        if field.is_nullable() && matches!(field.data_type(), DataType::Struct(_)) {
            return Vec::new();
        }
        let plain = !matches!(field.data_type(), DataType::List(_) | DataType::Map(..) | DataType::Struct(_));
        let wrap = |name| if plain && field.is_nullable() { format!("Nullable({name})") } else { name };
        accepted(field.data_type()).into_iter().map(wrap).collect()
    };
    match arrow {
        DataType::List(item) | DataType::LargeList(item) => {
            accepted(item.data_type()).iter().map(|name| format!("Array({name})")).collect()
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(entries) => of(&entries[1]).iter().map(|name| format!("Map(String, {name})")).collect(),
            _ => Vec::new(),
        },
        DataType::Struct(fields) => {
            let element = |field: &Field| of(field).first().map(|name| format!("{} {name}", field.name()));
            let elements: Option<Vec<String>> = fields.iter().map(|field| element(field)).collect();
            elements.map(|elements| format!("Tuple({})", elements.join(", "))).into_iter().collect()
        }
        other => expected(other).iter().map(Candidate::to_string).collect(),
    }
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
        DataType::UInt32 => any(&["UInt32", "UInt64", "Int64", "UInt128", "Int128", "UInt256", "Int256"]),
        DataType::Int32 => any(&["Int32", "Int64", "Int128", "Int256"]),
        DataType::Int64 => any(&["Int64", "Int128", "Int256"]),
        DataType::Float32 => any(&["Float32", "Float64"]),
        DataType::Float64 => any(&["Float64"]),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => any(&["String"]),
        DataType::Dictionary(_, value) => [expected(value), any(&["Enum8", "Enum16"])].into_iter().flatten().collect(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => any(&["String"]),
        DataType::FixedSizeBinary(16) => [any(&["UUID"]), one("FixedString", &[16])].into_iter().flatten().collect(),
        DataType::FixedSizeBinary(length) => {
            [any(&["String"]), one("FixedString", &[i64::from(*length)])].into_iter().flatten().collect()
        }
        DataType::Date32 => any(&["Date32"]),
        DataType::Time32(TimeUnit::Millisecond) => one("Time64", &[3]),
        DataType::Time64(TimeUnit::Microsecond) => one("Time64", &[6]),
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

/// The type that suits best, without what is around it; `None` if none keeps the values.
pub(super) fn best(arrow: &DataType) -> Option<String> {
    expected(arrow).first().map(ToString::to_string)
}

#[cfg(test)]
mod tests;
