//! Reads the text of a named query: what it answers, its parameters, an example of its answer, and its SQL. Pure.
//!
//! ```text
//! -- One sentence or more: what it answers.
//! --
//! -- param minutes UInt32 = 60: How many minutes back from the newest event
//! -- param order_id String: The order (without `=` it has to be given)
//! --
//! -- example
//! -- minute               revenue
//! -- 2026-01-01 00:00:00  1234.50
//! SELECT … WHERE … {minutes:UInt32} … LIMIT 1000
//! ```

use std::fmt;

use super::{Parameter, Query, across::across};
use crate::sql::blanked;

/// What is wrong with the text of a query, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    file: String,
    line: usize,
    message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, message } = self;
        write!(f, "{file}:{line}: {message}")
    }
}

impl std::error::Error for ParseError {}

/// Which part of the comment a line is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Description,
    Parameters,
    Example,
}

/// Reads the query of this name.
///
/// # Errors
/// The text has not the form above, its SQL is no bounded SELECT, or declared and used parameters differ; with file and line.
pub fn parse(name: &str, text: &str) -> Result<Query, ParseError> {
    let file = format!("{name}.sql");
    let wrong = |line: usize, message: String| Err(ParseError { file: file.clone(), line, message });
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
        return wrong(1, format!("found the name {name:?}, expected lower case, digits and _"));
    }
    let (mut description, mut parameters, mut example) = (Vec::new(), Vec::<(usize, Parameter)>::new(), Vec::new());
    let mut part = Part::Description;
    let mut head = 0;
    for (at, line) in text.lines().enumerate() {
        let Some(comment) = line.strip_prefix("--") else { break };
        head = at + 1;
        let comment = comment.strip_prefix(' ').unwrap_or(comment);
        if part == Part::Example {
            example.push(comment.trim_end());
        } else if comment.trim() == "example" {
            part = Part::Example;
        } else if let Some(declared) = comment.strip_prefix("param ") {
            part = Part::Parameters;
            let parameter = match parameter(declared) {
                Ok(parameter) => parameter,
                Err(message) => return wrong(head, message),
            };
            if parameters.iter().any(|(_, known)| known.name == parameter.name) {
                return wrong(head, format!("parameter {} is declared twice", parameter.name));
            }
            parameters.push((head, parameter));
        } else if comment.trim().is_empty() {
        } else if part == Part::Description {
            description.push(comment.trim());
        } else {
            return wrong(head, "expected `param NAME TYPE = DEFAULT: what it is`, or `example`".to_owned());
        }
    }
    if description.is_empty() {
        return wrong(1, "expected comment lines first that say what the query answers".to_owned());
    }
    if example.iter().all(|line| line.is_empty()) {
        return wrong(head.max(1), "expected `-- example` and an example of the answer before the SQL".to_owned());
    }
    let sql: String = text.lines().skip(head).collect::<Vec<_>>().join("\n");
    let sql = sql.trim_end();
    if let Err((at, message)) = bounded_select(sql) {
        return wrong(head + at, message);
    }
    let used = match substitutions(sql) {
        Ok(used) => used,
        Err((at, message)) => return wrong(head + at, message),
    };
    for (at, name, kind) in &used {
        match parameters.iter().find(|(_, parameter)| parameter.name == *name) {
            Some((_, parameter)) if parameter.kind == *kind => {}
            Some((_, parameter)) => {
                return wrong(head + at, format!("{name} is a {kind} here and declared as {}", parameter.kind));
            }
            None => {
                return wrong(head + at, format!("{{{name}:{kind}}} is not declared; add `-- param {name} {kind}: …`"));
            }
        }
    }
    if let Some((at, parameter)) = parameters.iter().find(|(_, one)| !used.iter().any(|(_, name, _)| one.name == *name))
    {
        return wrong(*at, format!("parameter {} is not used in the SQL", parameter.name));
    }
    let everywhere = match across(sql) {
        Ok(everywhere) => everywhere,
        Err((at, message)) => return wrong(head + at, message),
    };
    Ok(Query {
        name: name.to_owned(),
        description: description.join(" "),
        parameters: parameters.into_iter().map(|(_, parameter)| parameter).collect(),
        example: example.join("\n").trim_end().to_owned(),
        sql: sql.to_owned(),
        everywhere,
    })
}

/// `NAME TYPE[ = DEFAULT]: TEXT`.
fn parameter(declared: &str) -> Result<Parameter, String> {
    let expected = || format!("found `param {declared}`, expected `param NAME TYPE = DEFAULT: what it is`");
    // An empty default leaves `= :`.
    let (head, description) = declared.split_once(": ").ok_or_else(expected)?;
    let (name, rest) = head.split_once(' ').ok_or_else(expected)?;
    let (kind, default) = match rest.split_once('=') {
        Some((kind, default)) => (kind.trim(), Some(default.trim().to_owned())),
        None => (rest.trim(), None),
    };
    if !is_name(name) || kind.is_empty() || description.trim().is_empty() {
        return Err(expected());
    }
    Ok(Parameter { name: name.to_owned(), kind: kind.to_owned(), default, description: description.trim().to_owned() })
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether the SQL reads, ends by itself and leaves its format open; where it does not, the line of it and why.
fn bounded_select(sql: &str) -> Result<(), (usize, String)> {
    let last = sql.lines().count().max(1);
    let words: Vec<String> = blanked(sql).split_whitespace().map(str::to_uppercase).collect();
    if !words.first().is_some_and(|word| word == "SELECT" || word == "WITH") {
        return Err((1, "expected SQL that begins with SELECT or WITH".to_owned()));
    }
    if let Some(at) = blanked(sql).find(';') {
        let line = sql[..at].matches('\n').count() + 1;
        return Err((line, "expected one statement without a semicolon".to_owned()));
    }
    if words.iter().any(|word| word == "FORMAT") {
        return Err((last, "expected no FORMAT; whoever asks chooses it".to_owned()));
    }
    let bounded = |pair: &[String]| pair[0] == "LIMIT" && pair[1].parse::<u64>().is_ok();
    // `LIMIT {limit:UInt32}` is a bound too.
    let given = |pair: &[String]| pair[0] == "LIMIT" && pair[1].starts_with('{');
    if !words.windows(2).any(|pair| bounded(pair) || given(pair)) {
        return Err((last, "expected a LIMIT, so that the answer is bounded".to_owned()));
    }
    Ok(())
}

/// A substitution of the SQL: the line that it stands in, name and type.
type Used<'s> = (usize, &'s str, &'s str);

/// All `{name:Type}`; braces of anything else, such as map literals, are refused, since they would be taken for some.
fn substitutions(sql: &str) -> Result<Vec<Used<'_>>, (usize, String)> {
    let code = blanked(sql);
    let mut used = Vec::new();
    let mut from = 0;
    while let Some(open) = code[from..].find('{').map(|at| from + at) {
        let line = sql[..open].matches('\n').count() + 1;
        let inner = code[open..].find('}').map(|length| &sql[open + 1..open + length]);
        let Some((name, kind)) = inner.and_then(|inner| inner.split_once(':')) else {
            return Err((line, "expected {name:Type}".to_owned()));
        };
        if !is_name(name) || kind.trim().is_empty() {
            return Err((line, format!("found {{{name}:{kind}}}, expected {{name:Type}}")));
        }
        used.push((line, name, kind.trim()));
        from = open + name.len() + kind.len() + 2;
    }
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "-- Orders of a country,\n-- by day.\n--\n-- param days UInt32 = 7: How many days\n\
        -- param country String = : Only this: one\n-- param order_id String: The order\n--\n-- example\n\
        -- day         orders\n-- 2026-01-01       3\nWITH {days:UInt32} AS d\nSELECT '{x;', 1 -- FORMAT ;\n\
        FROM orders WHERE c = {country:String} AND o = {order_id:String}\nLIMIT 10\n";

    #[test]
    fn a_query_is_read_with_description_parameters_example_and_sql() {
        let query = parse("by_day", GOOD).unwrap();
        assert_eq!(query.description, "Orders of a country, by day.");
        assert_eq!(query.example, "day         orders\n2026-01-01       3");
        assert!(query.sql.starts_with("WITH {days:UInt32}") && query.sql.ends_with("LIMIT 10"));
        let parameters: Vec<_> = query
            .parameters
            .iter()
            .map(|one| (one.name.as_str(), one.kind.as_str(), one.default.as_deref(), one.description.as_str()))
            .collect();
        assert_eq!(
            parameters,
            [
                ("days", "UInt32", Some("7"), "How many days"),
                ("country", "String", Some(""), "Only this: one"),
                ("order_id", "String", None, "The order"),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        let cases = [
            ("-- Orders of a country,\n-- by day.\n", "", "q.sql:1: expected comment lines first"),
            (
                "-- param days UInt32 = 7: How many days",
                "-- param days",
                "q.sql:4: found `param days`, expected `param NAME",
            ),
            ("-- param country String = ", "-- param days String = ", "q.sql:5: parameter days is declared twice"),
            ("-- param days UInt32", "-- param days UInt8", "q.sql:11: days is a UInt32 here and declared as UInt8"),
            ("{order_id:String}", "{other:String}", "q.sql:13: {other:String} is not declared"),
            (" AND o = {order_id:String}", "", "q.sql:6: parameter order_id is not used"),
            ("-- example\n", "-- An afterthought\n", "q.sql:8: expected `param NAME"),
            ("-- day         orders\n-- 2026-01-01       3\n", "", "q.sql:8: expected `-- example`"),
            (
                "WITH {days:UInt32} AS d\nSELECT",
                "INSERT {days:UInt32}",
                "q.sql:11: expected SQL that begins with SELECT",
            ),
            ("FROM orders", "; FROM orders", "q.sql:13: expected one statement"),
            ("LIMIT 10", "LIMIT 10 FORMAT CSV", "q.sql:14: expected no FORMAT"),
            ("LIMIT 10", "", "q.sql:13: expected a LIMIT"),
            ("LIMIT 10", "LIMIT {'a'}", "q.sql:14: expected {name:Type}"),
            ("FROM orders", "FROM orders, claims", "q.sql:13: expected one table behind FROM or JOIN"),
        ];
        for (part, instead, expected) in cases {
            assert!(GOOD.contains(part), "{part}");
            let error = parse("q", &GOOD.replace(part, instead)).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{part} -> {instead}: {error}");
        }
        assert!(parse("Q-1", GOOD).unwrap_err().to_string().contains("expected lower case"));
    }

    #[test]
    fn every_shipped_query_is_read_and_named_as_its_file() {
        assert!(!millrace_schemas::QUERIES.is_empty());
        for (name, text) in millrace_schemas::QUERIES {
            let query = parse(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(query.name, *name);
        }
    }
}
