//! Answers and lists of queries as text: a table for people, CSV and JSON for programs. Pure.

use std::fmt::Write;

use serde_json::Value;

use super::{Answer, Query, answer::plain_kind};

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, numbers to the right.
    Table,
    /// RFC 4180 with a line of names; null is an empty field.
    Csv,
    /// One line: columns, rows and seconds.
    Json,
}

impl Format {
    /// As they are called on the command line.
    pub const NAMES: [(&str, Self); 3] = [("table", Self::Table), ("csv", Self::Csv), ("json", Self::Json)];
}

/// A line for each query: its name, its parameters with their defaults, and what it answers.
pub fn list(queries: &[Query]) -> String {
    let heads: Vec<String> = queries.iter().map(head).collect();
    let width = heads.iter().map(String::len).max().unwrap_or(0);
    heads.iter().zip(queries).map(|(head, query)| format!("{head:width$}  {}\n", query.description)).collect()
}

fn head(query: &Query) -> String {
    let parameters = query.parameters.iter().map(|one| match one.default.as_deref() {
        None => format!(" {}:{}", one.name, one.kind),
        Some("") => format!(" [{}:{}]", one.name, one.kind),
        Some(default) => format!(" [{}:{}={default}]", one.name, one.kind),
    });
    query.name.clone() + &parameters.collect::<String>()
}

/// The answer, ended by a line break.
pub fn render(answer: &Answer, format: Format) -> String {
    match format {
        Format::Table => table(answer),
        Format::Csv => csv(answer),
        Format::Json => serde_json::to_string(answer).unwrap_or_default() + "\n",
    }
}

fn table(answer: &Answer) -> String {
    let right: Vec<bool> = answer.columns.iter().map(|column| is_number(&column.kind)).collect();
    let mut lines = vec![answer.columns.iter().map(|column| printable(&column.name)).collect::<Vec<_>>()];
    lines.extend(answer.rows.iter().map(|row| row.iter().map(|value| printable(&plain(value, "-"))).collect()));
    let mut widths = vec![0; answer.columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells =
            line.iter().zip(&widths).zip(&right).map(|((cell, width), right)| {
                if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    let rows = match answer.rows.len() {
        1 => "1 row".to_owned(),
        rows => format!("{rows} rows"),
    };
    _ = writeln!(text, "({rows} in {:.3} s)", answer.seconds);
    text
}

fn is_number(kind: &str) -> bool {
    ["UInt", "Int", "Float", "Decimal"].iter().any(|start| plain_kind(kind).starts_with(start))
}

fn plain(value: &Value, null: &str) -> String {
    match value {
        Value::Null => null.to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Events hold what anybody wrote: a terminal must not take it for commands.
fn printable(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
}

fn csv(answer: &Answer) -> String {
    let quoted = |field: String| {
        if field.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field }
    };
    let line = |fields: Vec<String>| fields.into_iter().map(quoted).collect::<Vec<_>>().join(",") + "\r\n";
    let names = line(answer.columns.iter().map(|column| column.name.clone()).collect());
    let rows = answer.rows.iter().map(|row| line(row.iter().map(|value| plain(value, "")).collect()));
    std::iter::once(names).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::query::{Column, parse};

    fn answer() -> Answer {
        let column = |name: &str, kind: &str| Column { name: name.into(), kind: kind.into() };
        Answer {
            columns: vec![column("country", "String"), column("revenue", "Decimal(38, 2)"), column("orders", "UInt64")],
            rows: vec![
                vec![json!("DE\u{1b}[2J"), json!("1234.50"), json!(7)],
                vec![Value::Null, json!("0.07"), json!(12_345)],
                vec![json!("a,\"b\""), json!("-1.00"), json!(1)],
            ],
            seconds: 0.01234,
        }
    }

    #[test]
    fn a_table_is_aligned_with_numbers_to_the_right_and_nothing_for_the_terminal_to_obey() {
        let expected = "country  revenue  orders\n\
                        DE\u{fffd}[2J   1234.50       7\n\
                        -           0.07   12345\n\
                        a,\"b\"      -1.00       1\n\
                        (3 rows in 0.012 s)\n";
        assert_eq!(render(&answer(), Format::Table), expected);
    }

    #[test]
    fn csv_is_quoted_where_it_must_be_and_json_is_whole() {
        let expected = "country,revenue,orders\r\nDE\u{1b}[2J,1234.50,7\r\n,0.07,12345\r\n\"a,\"\"b\"\"\",-1.00,1\r\n";
        assert_eq!(render(&answer(), Format::Csv), expected);
        let json: Value = serde_json::from_str(&render(&answer(), Format::Json)).unwrap();
        assert_eq!(json["columns"][1], json!({"name": "revenue", "type": "Decimal(38, 2)"}));
        assert_eq!((&json["rows"][0][1], &json["rows"][1][0]), (&json!("1234.50"), &Value::Null));
    }

    #[test]
    fn the_list_has_a_line_for_each_query_with_its_parameters() {
        let text = "-- What.\n-- param limit UInt8 = 5: How many\n-- param id UUID: Which\n-- param name String = : Who\n\
            -- example\n-- a\nSELECT {id:UUID}, {name:String} LIMIT {limit:UInt8}";
        let queries =
            [parse("one", text).unwrap(), parse("two", "-- More.\n-- example\n-- a\nSELECT 1 LIMIT 1").unwrap()];
        let expected = "one [limit:UInt8=5] id:UUID [name:String]  What.\n\
                        two                                        More.\n";
        assert_eq!(list(&queries), expected);
    }
}
