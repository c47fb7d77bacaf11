//! Values for the parameters of a query: which are known, which are missing, which cannot be of their type. Pure. What is of
//! the right type is ClickHouse's to say; here only what people get wrong is told before anything is asked.

use std::fmt;

use super::Query;
use crate::config;

/// A parameter as somebody gave it.
pub type Given = (String, String);

/// Longest value, in bytes.
const LONGEST: usize = 1024;

/// Why a query cannot be asked with these values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError(String);

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ValueError {}

/// A value for each parameter of the query, in their order: the given one, or the default.
///
/// # Errors
/// A name that the query does not have, one that comes twice, one that is missing, or a value that cannot be of the type.
pub fn bind<'q>(query: &'q Query, given: &[Given]) -> Result<Vec<(&'q str, String)>, ValueError> {
    let wrong = |text: String| Err(ValueError(format!("query {}: {text}", query.name)));
    for (at, (name, _)) in given.iter().enumerate() {
        let names = || query.parameters.iter().map(|parameter| parameter.name.as_str());
        if !names().any(|known| known == name) {
            let hint = config::did_you_mean(name, names());
            let has = match names().collect::<Vec<_>>().join(", ") {
                names if names.is_empty() => "no parameters".to_owned(),
                names => names,
            };
            return wrong(format!("no parameter {}; it has {has}{hint}", shown(name)));
        }
        if given[..at].iter().any(|(before, _)| before == name) {
            return wrong(format!("parameter {name} is given twice"));
        }
    }
    let mut values = Vec::with_capacity(query.parameters.len());
    for parameter in &query.parameters {
        let name = parameter.name.as_str();
        let value = given.iter().find(|(one, _)| one == name).map(|(_, value)| value).or(parameter.default.as_ref());
        let Some(value) = value else {
            return wrong(format!("parameter {name} is missing ({}): {}", parameter.kind, parameter.description));
        };
        if value.len() > LONGEST || value.contains('\0') {
            return wrong(format!("parameter {name} is longer than {LONGEST} bytes, or holds a zero byte"));
        }
        if let Some(expected) = expected(&parameter.kind, value) {
            return wrong(format!("parameter {name} is {}, expected {expected}", shown(value)));
        }
        values.push((name, value.clone()));
    }
    Ok(values)
}

/// What is expected of a value that cannot be of the type.
fn expected(kind: &str, value: &str) -> Option<String> {
    let whole = |least: i128, greatest: i128| {
        let fits = value.parse::<i128>().is_ok_and(|number| (least..=greatest).contains(&number));
        // `+5` and `007` are none to ClickHouse, or not the same.
        let plain = value.parse::<i128>().is_ok_and(|number| number.to_string() == value);
        (!(fits && plain)).then(|| format!("a whole number from {least} to {greatest}"))
    };
    match kind {
        "UInt8" => whole(0, u8::MAX.into()),
        "UInt16" => whole(0, u16::MAX.into()),
        "UInt32" => whole(0, u32::MAX.into()),
        "UInt64" => whole(0, u64::MAX.into()),
        "Int8" => whole(i8::MIN.into(), i8::MAX.into()),
        "Int16" => whole(i16::MIN.into(), i16::MAX.into()),
        "Int32" => whole(i32::MIN.into(), i32::MAX.into()),
        "Int64" => whole(i64::MIN.into(), i64::MAX.into()),
        "UUID" => uuid::Uuid::parse_str(value)
            .is_err()
            .then(|| "a UUID such as 018f0000-0000-7000-8000-000000000000".to_owned()),
        _ => None,
    }
}

/// A text of others, short and without control characters.
fn shown(text: &str) -> String {
    const SHOWN: usize = 60;
    let short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::parse;

    fn query() -> Query {
        let text = "-- What.\n-- param limit UInt8 = 5: How many\n-- param id UUID: Which\n-- param name String = : Who\n\
            -- example\n-- a\nSELECT {id:UUID}, {name:String} LIMIT {limit:UInt8}";
        parse("one", text).unwrap()
    }

    fn bound(given: &[(&str, &str)]) -> Result<Vec<(&'static str, String)>, String> {
        let given: Vec<Given> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let query = Box::leak(Box::new(query()));
        bind(query, &given).map_err(|error| error.to_string())
    }

    const ID: &str = "018f0000-0000-7000-8000-000000000000";

    #[test]
    fn what_is_given_counts_and_defaults_stand_in_for_the_rest() {
        let values = bound(&[("id", ID), ("name", "'; DROP TABLE orders --")]).unwrap();
        let expected = [("limit", "5"), ("id", ID), ("name", "'; DROP TABLE orders --")];
        assert_eq!(values, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_cannot_be_asked_is_told_in_words() {
        let long = "x".repeat(1025);
        let cases: [(&[(&str, &str)], &str); 9] = [
            (&[], "query one: parameter id is missing (UUID): Which"),
            (&[("id", ID), ("limits", "1")], "did you mean `limit`"),
            (&[("id", ID), ("id", ID)], "parameter id is given twice"),
            (&[("id", ID), ("limit", "256")], "parameter limit is \"256\", expected a whole number from 0 to 255"),
            (&[("id", ID), ("limit", "+1")], "expected a whole number"),
            (&[("id", ID), ("limit", "1 OR 1")], "expected a whole number"),
            (&[("id", "x")], "parameter id is \"x\", expected a UUID"),
            (&[("id", ID), ("name", &long)], "longer than 1024 bytes"),
            (&[("id", ID), ("name", "a\0b")], "zero byte"),
        ];
        for (given, expected) in cases {
            let error = bound(given).unwrap_err();
            assert!(error.contains(expected), "{given:?}: {error}");
        }
    }
}
