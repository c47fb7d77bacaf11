//! `millrace migrate`: makes the shipped tables, and adds to tables what newer versions of them have. The plan comes
//! first; it never drops, narrows or rewrites anything, and what it cannot change it tells.

mod ddl;

use std::fmt;

use anyhow::{Context, Result};
use clickhouse::{Client, error::Error};
use millrace_schemas::CLICKHOUSE_DDL;

use self::ddl::{ColumnDdl, Ddl, same};
use crate::{
    clickhouse::{
        client::{client, within},
        errors::{ErrorClass, classify, is_connect},
        table::{Table, describe},
    },
    config::{ClickHouse, Config},
};

/// The table of the shipped statements whose name the configuration may change.
const CLAIMS: &str = "claims";
/// Always there, so that the plan can be made before the configured database is.
const CATALOGUE: &str = "system";

/// What is to be done, and what cannot be.
pub struct Plan {
    client: Client,
    settings: ClickHouse,
    steps: Vec<Step>,
    kept: Vec<String>,
    differences: Vec<String>,
}

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub what: String,
    /// The statement.
    pub sql: String,
}

/// Compares the shipped tables that the configuration uses with those that are there. Changes nothing.
///
/// # Errors
/// ClickHouse cannot be reached or refuses the user.
pub async fn plan(config: &Config) -> Result<Plan> {
    let settings = config.clickhouse.clone();
    let client = client(&ClickHouse { database: CATALOGUE.to_owned(), ..settings.clone() })?;
    let mut plan = Plan { client, settings, steps: Vec::new(), kept: Vec::new(), differences: Vec::new() };
    plan.database().await.map_err(|error| plan.explain(error))?;
    for (name, sql) in CLICKHOUSE_DDL {
        let ddl = Ddl::parse(sql).with_context(|| format!("read the shipped statement {name}"))?;
        let table = match ddl.table.as_str() {
            CLAIMS => plan.settings.claims_table.clone(),
            name if config.topics.iter().any(|topic| topic.table == name) => ddl.table.clone(),
            _ => continue,
        };
        plan.table(&table, &ddl).await.map_err(|error| plan.explain(error))?;
    }
    for topic in &config.topics {
        if !CLICKHOUSE_DDL.iter().filter_map(|(_, sql)| Ddl::parse(sql)).any(|ddl| ddl.table == topic.table) {
            plan.kept
                .push(format!("table {} of topic {} is your own: make it yourself", topic.table, topic.spec.topic));
        }
    }
    Ok(plan)
}

impl Plan {
    /// What is to be done, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What differs and must be changed by hand.
    pub fn differences(&self) -> &[String] {
        &self.differences
    }

    /// Runs the steps in order and tells each that is done; returns how many.
    ///
    /// # Errors
    /// The first step that fails; those before it stay done, and a second run goes on from there.
    pub async fn apply(&self, tell: impl Fn(&str) -> Result<()>) -> Result<usize> {
        for step in &self.steps {
            let statement = self.client.query_raw(&step.sql).execute();
            match within(self.settings.query_timeout, statement).await {
                Ok(()) => tell(&format!("done: {}", step.what))?,
                Err(error) => return Err(self.explain(error).context(step.what.clone())),
            }
        }
        Ok(self.steps.len())
    }

    async fn database(&mut self) -> Result<(), Error> {
        let name = self.settings.database.clone();
        let found = self.client.query("SELECT count() FROM system.databases WHERE name = ?").bind(&name);
        if within(self.settings.query_timeout, found.fetch_one::<u64>()).await? == 0 {
            let sql = format!("CREATE DATABASE IF NOT EXISTS `{name}`");
            self.steps.push(Step { what: format!("create database {name}"), sql });
        }
        Ok(())
    }

    async fn table(&mut self, name: &str, ddl: &Ddl) -> Result<(), Error> {
        let qualified = format!("`{}`.`{name}`", self.settings.database);
        let found = describe(&self.client, &self.settings.database, name, self.settings.query_timeout).await?;
        let Some(found) = found else {
            let what = format!("create table {name} ({} columns)", ddl.columns.len());
            self.steps.push(Step { what, sql: format!("CREATE TABLE IF NOT EXISTS {qualified} {}", ddl.body) });
            return Ok(());
        };
        let before = (self.steps.len(), self.differences.len());
        let mut after: Option<&ColumnDdl> = None;
        for column in &ddl.columns {
            self.column(name, &qualified, &found, column, after);
            after = Some(column);
        }
        self.indexes(name, &qualified, ddl).await?;
        if ddl.deduplication_window > 0 && found.deduplication_window == 0 && !found.is_replicated() {
            let setting = format!("non_replicated_deduplication_window = {}", ddl.deduplication_window);
            self.steps.push(Step {
                what: format!("table {name}: remember insert tokens, so that a retried insert lands once"),
                sql: format!("ALTER TABLE {qualified} MODIFY SETTING {setting}"),
            });
        }
        self.unchangeable(name, &found, ddl);
        if before == (self.steps.len(), self.differences.len()) {
            self.kept.push(format!("table {name} is as it should be"));
        }
        Ok(())
    }

    fn column(&mut self, name: &str, qualified: &str, found: &Table, column: &ColumnDdl, after: Option<&ColumnDdl>) {
        let ColumnDdl { name: column_name, type_, default_kind, definition } = column;
        let Some(found) = found.column(column_name) else {
            let position = after.map_or_else(|| "FIRST".to_owned(), |after| format!("AFTER `{}`", after.name));
            self.steps.push(Step {
                what: format!("table {name}: add column {column_name} {type_}"),
                sql: format!(
                    "ALTER TABLE {qualified} ADD COLUMN IF NOT EXISTS `{column_name}` {definition} {position}"
                ),
            });
            return;
        };
        if !same(&found.type_, type_) {
            self.differences.push(format!(
                "table {name}: column {column_name} is of type {}, shipped is {type_}; if it should change, do it by hand: ALTER TABLE {qualified} MODIFY COLUMN `{column_name}` {type_}",
                found.type_
            ));
        } else if found.default_kind != *default_kind {
            self.differences.push(format!(
                "table {name}: column {column_name} has {}, shipped is `{definition}`; if it should change, do it by hand: ALTER TABLE {qualified} MODIFY COLUMN `{column_name}` {definition}",
                if found.default_kind.is_empty() { "no default" } else { &found.default_kind }
            ));
        }
    }

    async fn indexes(&mut self, name: &str, qualified: &str, ddl: &Ddl) -> Result<(), Error> {
        if ddl.indexes.is_empty() {
            return Ok(());
        }
        let found = self
            .client
            .query("SELECT name FROM system.data_skipping_indices WHERE database = ? AND table = ?")
            .bind(&self.settings.database)
            .bind(name)
            .fetch_all::<String>();
        let found = match within(self.settings.query_timeout, found).await {
            // Indexes are for speed: a user that may not see them may still have the rest compared.
            Err(error) if classify(&error) == ErrorClass::Auth => return Ok(()),
            found => found?,
        };
        for (index, definition) in ddl.indexes.iter().filter(|(index, _)| !found.contains(index)) {
            self.steps.push(Step {
                what: format!("table {name}: add index {index}, for parts written from now on"),
                sql: format!("ALTER TABLE {qualified} ADD INDEX IF NOT EXISTS {definition}"),
            });
        }
        Ok(())
    }

    fn unchangeable(&mut self, name: &str, found: &Table, ddl: &Ddl) {
        let engine = found.engine.trim_start_matches("Replicated").trim_start_matches("Shared");
        for (what, is, shipped) in [
            ("engine", engine, &ddl.engine),
            ("PARTITION BY", &found.partition_key, &ddl.partition_by),
            ("ORDER BY", &found.sorting_key, &ddl.order_by),
        ] {
            if !same(is, shipped) {
                let is = if is.is_empty() { "none" } else { is };
                self.differences.push(format!(
                    "table {name}: {what} is {is}, shipped is {shipped}; it cannot be changed in place, only by copying into a new table"
                ));
            }
        }
    }

    fn explain(&self, error: Error) -> anyhow::Error {
        let ClickHouse { url, user, .. } = &self.settings;
        let advice = match classify(&error) {
            _ if is_connect(&error) => format!("{url} cannot be reached: is it running, and is clickhouse.url right?"),
            ErrorClass::Auth => {
                format!("ClickHouse refuses user {user}: name one that may do it with --user and --password-file")
            }
            _ => format!("ClickHouse at {url} refuses"),
        };
        anyhow::Error::new(error).context(advice)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ClickHouse { url, database, user, .. } = &self.settings;
        writeln!(f, "Plan for database {database} at {url}, as user {user}:")?;
        for kept in &self.kept {
            writeln!(f, "  = {kept}")?;
        }
        for Step { what, sql } in &self.steps {
            writeln!(f, "  + {what}")?;
            // A whole table is in schemas/clickhouse/ to be read; its summary does here.
            if sql.starts_with("ALTER") {
                writeln!(f, "      {sql}")?;
            }
        }
        for difference in &self.differences {
            writeln!(f, "  ! {difference}")?;
        }
        if self.steps.is_empty() {
            writeln!(f, "Nothing to do.")?;
        }
        Ok(())
    }
}
