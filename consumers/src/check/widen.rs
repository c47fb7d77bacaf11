//! The type that a column is declared with, and the type that one can be changed to so that it takes all values and loses
//! none of those that it has. What cannot be reached by widening is refused with the reason.

use arrow_schema::{DataType, Field};

use super::{fields::Sent, types};
use crate::clickhouse::claims::{identifier, quote};

/// A type taken apart so that it can be put together again.
struct Shape<'a> {
    arrays: usize,
    low_cardinality: bool,
    nullable: bool,
    base: &'a str,
}

impl<'a> Shape<'a> {
    fn parse(text: &'a str) -> Self {
        let mut shape = Self { arrays: 0, low_cardinality: false, nullable: false, base: text.trim() };
        while let Some((name, inner)) = shape.base.strip_suffix(')').and_then(|text| text.split_once('(')) {
            match name {
                "Array" => shape.arrays += 1,
                "LowCardinality" => shape.low_cardinality = true,
                "Nullable" => shape.nullable = true,
                _ => return shape,
            }
            shape.base = inner.trim();
        }
        shape
    }

    fn write(&self) -> String {
        let mut text = self.base.to_owned();
        if self.nullable {
            text = format!("Nullable({text})");
        }
        if self.low_cardinality {
            text = format!("LowCardinality({text})");
        }
        format!("{}{text}{}", "Array(".repeat(self.arrays), ")".repeat(self.arrays))
    }
}

/// The type of a column that is made for these values; `None` if no type of ClickHouse is known to take them. Symbols
/// become a LowCardinality(String) and no Enum: a symbol that is new then needs no ALTER.
pub(crate) fn declared(data_type: &DataType, nullable: bool) -> Option<String> {
    let (inner, arrays) = innermost(data_type);
    let base = match inner {
        DataType::Map(entries, _) => {
            let DataType::Struct(entries) = entries.data_type() else { return None };
            format!("Map(String, {})", declared(entries[1].data_type(), entries[1].is_nullable())?)
        }
        DataType::Struct(fields) => {
            let element = |field: &Field| {
                Some(format!("{} {}", identifier(field.name()), declared(field.data_type(), field.is_nullable())?))
            };
            let elements: Option<Vec<String>> = fields.iter().map(|field| element(field)).collect();
            format!("Tuple({})", elements?.join(", "))
        }
        // Whatever the zone of the server is, times are told in that of the events.
        DataType::Timestamp(..) => types::best(inner)?.replace(')', ", 'UTC')"),
        other => types::best(other)?,
    };
    let shape = Shape {
        arrays,
        low_cardinality: matches!(inner, DataType::Dictionary(..)),
        nullable: nullable && can_be_null(inner),
        base: &base,
    };
    Some(shape.write())
}

/// The type that a column of type `found` has to be changed to, so that it takes all that is sent.
///
/// # Errors
/// Why it cannot be widened to one.
pub(super) fn widened(found: &str, sent: &Sent) -> Result<String, String> {
    let shape = Shape::parse(found);
    let (inner, arrays) = innermost(&sent.data_type);
    if shape.arrays != arrays {
        return Err("an array cannot be made of single values, nor the other way round".to_owned());
    }
    let symbols = sent.symbols.as_deref();
    let base = match types::mismatch(inner, symbols, shape.base) {
        None => shape.base.to_owned(),
        Some(_) => wider(shape.base, inner, symbols)?,
    };
    let nullable = shape.nullable || (sent.nullable && can_be_null(inner));
    let wide = Shape { nullable, base: &base, ..shape }.write();
    match types::mismatch(&sent.data_type, symbols, &wide) {
        None => Ok(wide),
        Some(why) => Err(format!("no type is known that keeps both what it has and what is sent ({why})")),
    }
}

/// Whether the column is an enum that lacks symbols and fits otherwise: an insert fails only if one of them comes.
pub(super) fn only_lacks_symbols(found: &str, sent: &Sent) -> bool {
    let fits = |symbols: &[String]| types::mismatch(&sent.data_type, Some(symbols), found).is_none();
    sent.symbols.as_deref().is_some_and(|symbols| fits(&[]) && !fits(symbols))
}

/// SQL of the value that rows have which were written before the column was there, or by consumers that do not know it
/// yet: what the schema says, else the default of the type. `None` for a column of a `Nested`, whose arrays have to be as
/// long as those beside them, which ClickHouse sees to if nothing is said.
pub(super) fn default_of(sent: &Sent, type_: &str) -> Option<String> {
    let shape = Shape::parse(type_);
    let name = shape.base.split('(').next().unwrap_or_default();
    Some(match (&sent.default, name) {
        _ if sent.column.contains('.') => return None,
        (Some(default), _) if shape.arrays == 0 && (default != "NULL" || shape.nullable) => default.clone(),
        _ if shape.arrays > 0 => "[]".to_owned(),
        _ if shape.nullable => "NULL".to_owned(),
        (_, "String") => "''".to_owned(),
        (_, "Bool") => "false".to_owned(),
        (_, name) if name.contains("Int") || name.starts_with("Float") || name == "Decimal" => "0".to_owned(),
        _ => format!("defaultValueOfTypeName({})", quote(type_)),
    })
}

/// What is inside of lists, and how many there are.
fn innermost(mut data_type: &DataType) -> (&DataType, usize) {
    let mut lists = 0;
    while let DataType::List(item) | DataType::LargeList(item) = data_type {
        (data_type, lists) = (item.data_type(), lists + 1);
    }
    (data_type, lists)
}

/// Whether ClickHouse has a type that tells a null of what is sent from an empty value.
pub(super) fn takes_null(sent: &Sent) -> bool {
    can_be_null(innermost(&sent.data_type).0)
}

/// ClickHouse has no null map and no null tuple: they become empty ones.
fn can_be_null(inner: &DataType) -> bool {
    !matches!(inner, DataType::Map(..) | DataType::Struct(_))
}

/// The least type that keeps all values of the type `found` and all of `arrow`.
fn wider(found: &str, arrow: &DataType, symbols: Option<&[String]>) -> Result<String, String> {
    let (name, parameters) = match found.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((name, parameters)) => (name, parameters),
        None => (found, ""),
    };
    let refused = || Err(format!("{found} cannot be widened to a type that takes it"));
    match arrow {
        DataType::Int32 | DataType::Int64 => {
            let wanted = if arrow == &DataType::Int32 { 32 } else { 64 };
            match (name.strip_prefix("Int"), name.strip_prefix("UInt")) {
                (Some(bits), _) => Ok(format!("Int{}", bits.parse::<u32>().unwrap_or(256).max(wanted))),
                // One bit more for the sign.
                (_, Some(bits)) if bits != "256" => {
                    Ok(format!("Int{}", (bits.parse::<u32>().unwrap_or(128) * 2).max(wanted)))
                }
                _ => refused(),
            }
        }
        // These have integers of 53 bits.
        DataType::Float64 if ["Float32", "Int8", "Int16", "Int32", "UInt8", "UInt16", "UInt32"].contains(&name) => {
            Ok("Float64".to_owned())
        }
        DataType::Float32 if ["Int8", "Int16", "UInt8", "UInt16"].contains(&name) => Ok("Float32".to_owned()),
        DataType::Decimal128(precision, scale) if name == "Decimal" => {
            let numbers: Vec<i32> = parameters.split(',').filter_map(|number| number.trim().parse().ok()).collect();
            let [found_precision, found_scale] = numbers[..] else { return refused() };
            let (precision, scale) = (i32::from(*precision), i32::from(*scale));
            let after = scale.max(found_scale);
            let all = (precision - scale).max(found_precision - found_scale) + after;
            if all > 76 { refused() } else { Ok(format!("Decimal({all}, {after})")) }
        }
        DataType::Timestamp(..) if name == "DateTime" || name == "DateTime64" => {
            let Some(wanted) = types::best(arrow) else { return refused() };
            if wanted.contains('9') {
                return Err("a DateTime64 of nanoseconds ends in 2262: older values may lie beyond".to_owned());
            }
            let zone = parameters.find('\'').map(|at| &parameters[at..]);
            Ok(zone.map_or_else(|| wanted.clone(), |zone| wanted.replace(')', &format!(", {zone})"))))
        }
        DataType::Date32 if name == "Date" => Ok("Date32".to_owned()),
        DataType::Dictionary(..) | DataType::Utf8 if name.starts_with("Enum") => match symbols {
            Some(symbols) => longer_enum(name, parameters, symbols).map_or_else(refused, Ok),
            None => refused(),
        },
        _ => refused(),
    }
}

/// An enum with the symbols that it lacks; those that it has keep their numbers.
fn longer_enum(name: &str, parameters: &str, symbols: &[String]) -> Option<String> {
    let known = enum_values(parameters)?;
    let mut next = known.iter().map(|(_, number)| *number).max().unwrap_or(0);
    let mut text = parameters.to_owned();
    for symbol in symbols.iter().filter(|symbol| known.iter().all(|(name, _)| name != *symbol)) {
        next += 1;
        text = format!("{text}, {} = {next}", quote(symbol));
    }
    match next {
        ..=127 => Some(format!("{name}({text})")),
        128..=32_767 => Some(format!("Enum16({text})")),
        _ => None,
    }
}

/// Names and numbers out of `'a' = 1, 'b' = 2`, as the server writes them.
fn enum_values(parameters: &str) -> Option<Vec<(String, i32)>> {
    let mut values = Vec::new();
    let mut rest = parameters.trim();
    while let Some(text) = rest.strip_prefix('\'') {
        let (mut name, mut end) = (String::new(), None);
        let mut chars = text.char_indices();
        while let Some((at, char)) = chars.next() {
            match char {
                '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
                '\'' => {
                    end = Some(at + 1);
                    break;
                }
                char => name.push(char),
            }
        }
        let number = text[end?..].trim_start().strip_prefix('=')?;
        let (number, more) = number.split_once(',').unwrap_or((number, ""));
        values.push((name, number.trim().parse().ok()?));
        rest = more.trim_start();
    }
    rest.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::TimeUnit;

    use super::*;

    fn sent(data_type: DataType, nullable: bool, symbols: Option<&[&str]>) -> Sent {
        Sent {
            column: "c".to_owned(),
            source: "f".to_owned(),
            data_type,
            nullable,
            symbols: symbols.map(|symbols| symbols.iter().map(|symbol| (*symbol).to_owned()).collect()),
            default: None,
        }
    }

    fn symbol() -> DataType {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    }

    fn list(item: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", item, true)))
    }

    #[test]
    fn a_new_column_takes_all_that_is_sent() {
        let entries = |value: DataType| {
            let fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", value, true)];
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(fields.into()), false)), false)
        };
        let record =
            DataType::Struct(vec![Field::new("a", DataType::Int32, true), Field::new("b", symbol(), false)].into());
        for (arrow, nullable, expected) in [
            (DataType::Int64, false, "Int64"),
            (DataType::Utf8, true, "Nullable(String)"),
            (symbol(), true, "LowCardinality(Nullable(String))"),
            (list(symbol()), false, "Array(LowCardinality(String))"),
            (list(DataType::Decimal128(18, 2)), true, "Array(Nullable(Decimal(18, 2)))"),
            (DataType::FixedSizeBinary(16), false, "UUID"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), false, "DateTime64(6, 'UTC')"),
            (entries(DataType::Utf8), true, "Map(String, Nullable(String))"),
            (record, true, "Tuple(`a` Nullable(Int32), `b` LowCardinality(String))"),
        ] {
            assert_eq!(declared(&arrow, nullable).as_deref(), Some(expected));
            assert_eq!(types::mismatch(&arrow, None, expected), None, "{arrow} into {expected}");
        }
        assert_eq!(declared(&DataType::Null, true), None);
    }

    #[test]
    fn a_column_is_widened_and_keeps_what_is_around_it() {
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, None);
        for (found, sent, expected) in [
            ("Int32", sent(DataType::Int64, false, None), "Int64"),
            ("UInt32", sent(DataType::Int32, false, None), "Int64"),
            ("UInt64", sent(DataType::Int64, true, None), "Nullable(Int128)"),
            ("Nullable(Float32)", sent(DataType::Float64, false, None), "Nullable(Float64)"),
            ("Int32", sent(DataType::Float64, false, None), "Float64"),
            ("Decimal(10, 4)", sent(DataType::Decimal128(18, 2), false, None), "Decimal(20, 4)"),
            ("Array(Decimal(10, 2))", sent(list(DataType::Decimal128(18, 2)), false, None), "Array(Decimal(18, 2))"),
            ("DateTime('Europe/Berlin')", sent(milliseconds.clone(), false, None), "DateTime64(3, 'Europe/Berlin')"),
            ("DateTime64(0)", sent(milliseconds, false, None), "DateTime64(3)"),
            ("Date", sent(DataType::Date32, true, None), "Nullable(Date32)"),
            ("LowCardinality(String)", sent(symbol(), true, Some(&["a"])), "LowCardinality(Nullable(String))"),
            ("String", sent(DataType::Utf8, true, None), "Nullable(String)"),
            (
                r"Enum8('a' = 1, 'it\'s, so' = -3)",
                sent(symbol(), false, Some(&["a", "b", "it's, so", "c"])),
                r"Enum8('a' = 1, 'it\'s, so' = -3, 'b' = 2, 'c' = 3)",
            ),
            ("Enum8('a' = 127)", sent(symbol(), false, Some(&["a", "b"])), "Enum16('a' = 127, 'b' = 128)"),
        ] {
            assert_eq!(widened(found, &sent).as_deref(), Ok(expected), "{found}");
        }
    }

    #[test]
    fn nothing_is_narrowed_or_made_another_thing() {
        for (found, sent, why) in [
            ("String", sent(DataType::Int64, false, None), "cannot be widened"),
            ("Int64", sent(DataType::Float64, false, None), "cannot be widened"),
            ("Int64", sent(list(DataType::Int64), false, None), "array"),
            ("Decimal(76, 70)", sent(DataType::Decimal128(18, 2), false, None), "cannot be widened"),
            ("DateTime64(3)", sent(DataType::Timestamp(TimeUnit::Nanosecond, None), false, None), "2262"),
            ("UInt256", sent(DataType::Int64, false, None), "cannot be widened"),
        ] {
            let refused = widened(found, &sent).unwrap_err();
            assert!(refused.contains(why), "{found}: {refused}");
        }
    }

    #[test]
    fn old_rows_get_what_the_schema_says_or_the_default_of_the_type() {
        let with = |column: &str, default: Option<&str>, data_type: DataType, nullable| Sent {
            column: column.to_owned(),
            default: default.map(str::to_owned),
            ..sent(data_type, nullable, None)
        };
        for (sent, type_, expected) in [
            (with("c", Some("'x'"), DataType::Utf8, false), "String", Some("'x'")),
            (with("c", Some("NULL"), DataType::Utf8, true), "Nullable(String)", Some("NULL")),
            (with("c", None, DataType::Utf8, true), "Nullable(String)", Some("NULL")),
            (with("c", None, DataType::Int64, false), "Int64", Some("0")),
            (with("c", None, list(DataType::Int64), false), "Array(Int64)", Some("[]")),
            (with("c", None, DataType::FixedSizeBinary(16), false), "UUID", Some("defaultValueOfTypeName('UUID')")),
            (with("items.c", None, list(DataType::Int64), false), "Array(Int64)", None),
        ] {
            assert_eq!(default_of(&sent, type_).as_deref(), expected, "{type_}");
        }
    }

    #[test]
    fn an_enum_that_lacks_a_symbol_is_told_from_a_wrong_type() {
        let sent = sent(symbol(), false, Some(&["a", "b"]));
        assert!(only_lacks_symbols("Enum8('a' = 1)", &sent));
        assert!(!only_lacks_symbols("Enum8('a' = 1, 'b' = 2)", &sent) && !only_lacks_symbols("Int32", &sent));
    }
}
