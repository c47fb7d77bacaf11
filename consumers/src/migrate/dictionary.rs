//! The data dictionary of the documentation: every shipped table and view with its columns and their comments.

use std::{env, fmt::Write, fs, path::Path};

use millrace_schemas::CLICKHOUSE_DDL;

use super::{
    ddl::{ColumnDdl, Ddl, columns_of},
    views::View,
};
use crate::tables::is_documented;

/// What stands in the last `COMMENT` of a statement.
fn comment(sql: &str) -> &str {
    let (_, rest) = sql.rsplit_once("\nCOMMENT '").unwrap_or_else(|| panic!("a statement without a comment: {sql}"));
    rest.trim_end().strip_suffix('\'').unwrap()
}

/// Every table and view that is read: its name, what it is, and its columns.
fn shipped() -> Vec<(String, &'static str, Vec<ColumnDdl>)> {
    let mut all = Vec::new();
    for (name, sql) in CLICKHOUSE_DDL {
        let (title, columns) = match (Ddl::parse(sql), View::parse(sql)) {
            (Some(ddl), _) => (ddl.table, ddl.columns),
            // What feeds a rollup is read by nobody.
            (None, Some(view)) if view.target.is_some() => continue,
            (None, Some(view)) => (view.name, columns_of(sql).unwrap_or_else(|| panic!("{name} names no columns"))),
            (None, None) => panic!("{name} is not understood"),
        };
        all.push((title, comment(sql), columns));
    }
    all
}

/// What a column means.
fn meaning(column: &ColumnDdl) -> &str {
    let (_, rest) =
        column.definition.split_once(" COMMENT '").unwrap_or_else(|| panic!("{} says nothing", column.name));
    rest.split('\'').next().unwrap()
}

#[test]
fn the_data_dictionary_is_that_of_the_shipped_statements() {
    let mut text = String::new();
    for (title, comment, columns) in shipped() {
        writeln!(text, "\n## {title}\n\n{comment}.\n\n| column | type | meaning |\n| --- | --- | --- |").unwrap();
        for column in &columns {
            writeln!(text, "| `{}` | `{}` | {} |", column.name, column.type_, meaning(column)).unwrap();
        }
    }
    is_documented("data-dictionary.md", &text);
}

#[test]
fn the_sources_for_dbt_are_those_of_the_shipped_statements() {
    let mut text = "# Sources for dbt; a test writes this file out of the shipped statements.\nversion: 2\nsources:\n  - name: millrace\n    \
                    schema: millrace\n    tables:\n"
        .to_owned();
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    for (title, comment, columns) in shipped() {
        writeln!(text, "      - name: {title}\n        description: {}\n        columns:", quoted(comment)).unwrap();
        for column in &columns {
            let (name, meaning) = (quoted(&column.name), quoted(meaning(column)));
            writeln!(text, "          - name: {name}\n            description: {meaning}").unwrap();
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/clickhouse/examples/sources.yml");
    if env::var_os("MILLRACE_BLESS").is_some() {
        fs::write(&file, text).unwrap();
    } else {
        assert!(
            fs::read_to_string(&file).unwrap() == text,
            "{} differs; look at it, then MILLRACE_BLESS=1",
            file.display()
        );
    }
}
