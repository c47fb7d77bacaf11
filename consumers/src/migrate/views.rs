//! The shipped views of a shipped table: rollups, which materialized views feed, and plain views. Made after what they feed and
//! what they read; one that is there and is another one is told and left alone.

use anyhow::{Context, Result};
use clickhouse::{Row, error::Error};
use millrace_schemas::CLICKHOUSE_DDL;
use serde::Deserialize;

use super::{Plan, Step, ddl::Ddl};
use crate::clickhouse::{
    claims::{identifier, quote},
    client::within,
};

/// One `CREATE VIEW` or `CREATE MATERIALIZED VIEW … TO …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) name: String,
    /// Table that a materialized view feeds.
    pub(super) target: Option<String>,
    /// Table that it reads.
    pub(super) source: String,
    /// From behind its name to the query.
    head: String,
    query: String,
    /// Behind the query.
    tail: String,
}

#[derive(Row, Deserialize)]
struct Found {
    same: bool,
}

impl View {
    /// Reads a statement; `None` if it makes no view, or one of a form that is not shipped.
    pub(super) fn parse(written: &str) -> Option<Self> {
        let (materialized, after) = match written.split_once("\nCREATE MATERIALIZED VIEW IF NOT EXISTS ") {
            Some((_, after)) => (true, after),
            None => (false, written.split_once("\nCREATE VIEW IF NOT EXISTS ")?.1),
        };
        let (name, rest) = after.split_once([' ', '\n'])?;
        let at = rest.find("SELECT\n")?;
        let (head, rest) = rest.split_at(at);
        let (query, tail) = rest.split_once("\nCOMMENT ")?;
        let target = match materialized {
            true => Some(head.strip_prefix("TO ")?.strip_suffix(" AS\n")?.to_owned()),
            false => None,
        };
        let (_, source) = query.split_once(" FROM ").filter(|(_, rest)| !rest.trim_start().starts_with('('))?;
        let source = source.split_whitespace().next()?;
        Some(Self {
            name: name.to_owned(),
            target,
            source: source.to_owned(),
            head: head.trim_end().trim_end_matches("AS").trim_end().to_owned(),
            query: query.to_owned(),
            tail: format!("COMMENT {}", tail.trim_end()),
        })
    }

    /// The query, with the database of the table that it reads.
    fn query_in(&self, database: &str) -> String {
        let Self { source, query, .. } = self;
        query.replacen(&format!(" FROM {source}\n"), &format!(" FROM {}.{source}\n", identifier(database)), 1)
    }

    fn create_in(&self, database: &str) -> String {
        let (name, database_name) = (identifier(&self.name), identifier(database));
        let (query, tail) = (self.query_in(database), &self.tail);
        match &self.target {
            Some(target) => format!(
                "CREATE MATERIALIZED VIEW IF NOT EXISTS {database_name}.{name} TO {database_name}.{} AS\n{query}\n{tail}",
                identifier(target)
            ),
            None => format!("CREATE VIEW IF NOT EXISTS {database_name}.{name}\n{} AS {query}\n{tail}", self.head),
        }
    }
}

/// The shipped views of a table, in the order in which they are made.
///
/// # Errors
/// A shipped statement is not understood, which is a defect.
pub(super) fn views_of(table: &str) -> Result<Vec<View>> {
    let mut views = Vec::new();
    for (name, sql) in CLICKHOUSE_DDL {
        if Ddl::parse(sql).is_none() {
            views.push(View::parse(sql).with_context(|| format!("read the shipped statement {name}"))?);
        }
    }
    views.retain(|view| view.source == table);
    Ok(views)
}

impl Plan {
    /// The views of a table, each after the table that it feeds.
    pub(super) async fn views(&mut self, table: &str) -> Result<()> {
        for view in views_of(table)? {
            if let Some(target) = &view.target {
                let ddl = super::shipped(target)?;
                self.table(target, ddl.as_ref(), None, "").await?;
            }
            self.view(&view).await.map_err(|error| self.explain(error))?;
        }
        Ok(())
    }

    async fn view(&mut self, view: &View) -> Result<(), Error> {
        let (database, name) = (self.settings.database.clone(), &view.name);
        let found = format!(
            "SELECT toBool(as_select = formatQuerySingleLine({})) AS same FROM system.tables \
             WHERE database = {} AND name = {} AND engine LIKE '%View'",
            quote(&view.query_in(&database)),
            quote(&database),
            quote(name),
        );
        let found = self.client.query_raw(&found).fetch_optional::<Found>();
        match within(self.settings.query_timeout, found).await? {
            Some(Found { same: true }) => self.kept.push(format!("view {name} is as it should be")),
            Some(Found { same: false }) => self.differences.push(format!(
                "view {name} asks another question than the shipped one; how to change a rollup says docs/analytics.md"
            )),
            None => {
                let what = match &view.target {
                    Some(target) => format!(
                        "create materialized view {name}: counts what is inserted from then on into {target}; \
                         how to count what is there already says docs/analytics.md"
                    ),
                    None => format!("create view {name}"),
                };
                self.steps.push(Step::create(name, what, view.create_in(&database)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_view_is_understood_and_names_the_database_of_all_that_it_touches() {
        let views = views_of("orders").unwrap();
        let names: Vec<&str> = views.iter().map(|view| view.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "orders_revenue_per_minute_mv",
                "orders_steps_mv",
                "orders_skus_per_day_mv",
                "customer_value_per_hour_mv",
                "orders_current"
            ]
        );
        for view in &views {
            let sql = view.create_in("d");
            assert_eq!(sql.matches(" FROM `d`.orders\n").count(), 1, "{sql}");
            assert_eq!(sql.matches(" FROM orders").count(), 0, "{sql}");
            assert!(sql.contains("\nCOMMENT '"), "{sql}");
            match &view.target {
                Some(target) => {
                    assert_eq!(view.name, format!("{target}_mv"));
                    assert!(sql.contains(&format!(" TO `d`.`{target}` AS\nSELECT\n")), "{sql}");
                }
                None => assert!(sql.contains("\n) AS SELECT\n"), "{sql}"),
            }
        }
        assert!(views_of("payments").unwrap().is_empty());
    }
}
