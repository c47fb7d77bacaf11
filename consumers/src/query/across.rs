//! A query over every shard: the same SQL over the tables that read all of them. Rows of shards are put together by ClickHouse,
//! before anything is grouped, sorted or cut off; the answers of shards are never merged. Pure.

use crate::{migrate::everywhere, sql::blanked};

/// The form of a query that reads every shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Everywhere {
    /// One SELECT.
    pub sql: String,
    /// The tables that it reads, each once.
    pub tables: Vec<String>,
}

/// Puts the table that reads every shard in the place of each that is named behind FROM or JOIN. Whatever could name a table
/// in another way is refused, since of it one shard's share would be read.
///
/// # Errors
/// The line of what is refused, and why.
pub(super) fn across(sql: &str) -> Result<Everywhere, (usize, String)> {
    let code = blanked(sql);
    let mut all = Everywhere::default();
    let (mut copied, mut before) = (0, "");
    for (at, word) in words(&code) {
        let keyword = word.to_ascii_uppercase();
        let rest = code[at + word.len()..].trim_start();
        let start = code.len() - rest.len();
        let wrong = |message: &str| Err((sql[..at].matches('\n').count() + 1, message.to_owned()));
        match keyword.as_str() {
            "IN" if !rest.starts_with(['(', '{']) => return wrong("expected a list, a query or a parameter behind IN"),
            "FROM" | "JOIN" if !before.eq_ignore_ascii_case("ARRAY") && !rest.starts_with('(') => {
                let name = words(rest).next().filter(|(at, _)| *at == 0).map_or("", |(_, name)| name);
                let after = &rest[name.len()..];
                // What `numbers(10)` gives is the same on every shard.
                let is_function = !name.is_empty() && after.starts_with('(');
                if !is_function && (name.is_empty() || after.starts_with('.') || names_another(after)) {
                    return wrong("expected one table behind FROM or JOIN, by its name alone and without quotes");
                }
                if !is_function {
                    let table = everywhere(name);
                    all.sql.push_str(&sql[copied..start]);
                    all.sql.push_str(&table);
                    copied = start + name.len();
                    if !all.tables.contains(&table) {
                        all.tables.push(table);
                    }
                }
            }
            _ => {}
        }
        before = word;
    }
    all.sql.push_str(&sql[copied..]);
    Ok(all)
}

/// Whether a table is followed by a comma and so by another one, perhaps behind an alias or `FINAL`.
fn names_another(after: &str) -> bool {
    let mut rest = after.trim_start();
    for _ in 0..3 {
        if rest.starts_with(',') {
            return true;
        }
        let word = words(rest).next().filter(|(at, _)| *at == 0).map_or(0, |(_, word)| word.len());
        rest = rest[word..].trim_start();
    }
    false
}

/// Words of letters, digits and `_`, and where each begins.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    code.split(move |c| !is_plain(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::shipped;

    #[test]
    fn every_table_of_the_shipped_queries_is_replaced_and_nothing_else() {
        for query in shipped() {
            let Everywhere { sql, tables } = &query.everywhere;
            assert!(!tables.is_empty() && tables.iter().all(|table| table.ends_with("_all")), "{}", query.name);
            let mut back = sql.clone();
            for table in tables {
                let local = table.strip_suffix("_all").unwrap();
                assert_eq!(sql.matches(&format!("FROM {local}\n")).count(), 0, "{sql}");
                back = back.replace(table, local);
            }
            assert_eq!(back, query.sql);
        }
        let funnel = shipped().iter().find(|query| query.name == "funnel").unwrap();
        assert_eq!(funnel.everywhere.tables, ["orders_steps_all"]);
        assert_eq!(funnel.everywhere.sql.matches("FROM orders_steps_all").count(), 4);
        assert!(funnel.everywhere.sql.contains("sum(orders) AS orders,"), "{}", funnel.everywhere.sql);
    }

    #[test]
    fn what_is_no_table_stays() {
        for sql in [
            "SELECT number FROM numbers(7) LIMIT 1",
            "SELECT 'FROM orders', from_x FROM (SELECT 1) LIMIT 1",
            "SELECT 1 -- FROM orders\nLIMIT 1",
        ] {
            assert_eq!(across(sql), Ok(Everywhere { sql: sql.to_owned(), tables: Vec::new() }), "{sql}");
        }
        let sql = "SELECT a FROM t FINAL ARRAY JOIN b WHERE c IN (SELECT d FROM u) AND e IN {f:Array(String)}";
        let all = across(sql).unwrap();
        assert_eq!(all.sql, sql.replace("FROM t ", "FROM t_all ").replace("FROM u)", "FROM u_all)"));
        assert_eq!(all.tables, ["t_all", "u_all"]);
    }

    #[test]
    fn a_table_that_is_named_in_another_way_is_refused_with_its_line() {
        for sql in [
            "SELECT 1\nFROM d.t",
            "SELECT 1\nFROM `t`",
            "SELECT 1\nFROM t, u",
            "SELECT 1\nFROM t AS x, u",
            "SELECT 1\nFROM t FINAL, u",
            "SELECT 1 FROM t\nJOIN \"u\" USING a",
            "SELECT 1 FROM t\nWHERE a IN u",
        ] {
            assert_eq!(across(sql).unwrap_err().0, 2, "{sql}");
        }
    }
}
