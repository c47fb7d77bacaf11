//! `millrace migrate`: brings tables to what the schemas and the mapping ask for. Shipped tables are made as they are
//! shipped, others out of the schema. The plan comes first; it never drops or narrows anything, and what it does not do it
//! tells.

mod alter;
mod cluster;
mod create;
mod ddl;
#[cfg(test)]
mod dictionary;
mod rewrite;
mod views;

use std::{collections::BTreeSet, fmt};

use anyhow::{Context, Result, bail};
use clickhouse::{Client, error::Error};
use millrace_schemas::CLICKHOUSE_DDL;

pub use self::cluster::Engine;
use self::ddl::Ddl;
use crate::{
    check::{fields::Sent, fit, registry},
    clickhouse::{
        claims::identifier,
        client::{client, within},
        errors::{ErrorClass, classify, is_connect},
        table::describe,
    },
    config::{ClickHouse, Config, Topic},
};

/// The table of the shipped statements whose name the configuration may change.
const CLAIMS: &str = "claims";
/// The shipped table that is made under the name that each topic gives it, if it gives one.
const DEAD_LETTERS: &str = "dead_letters";
/// Always there, so that the plan can be made before the configured database is.
const CATALOGUE: &str = "system";

/// What is to be done, and what cannot be.
pub struct Plan {
    client: Client,
    settings: ClickHouse,
    steps: Vec<Step>,
    /// Tables of which an earlier ALTER is still rewriting parts.
    rewriting: Vec<String>,
    kept: Vec<String>,
    differences: Vec<String>,
}

/// How tables are made, besides what the schemas ask for.
#[derive(Clone, Debug, Default)]
pub struct Making {
    /// Engine of new tables.
    pub engine: Engine,
    /// Cluster of the server's own configuration, for Distributed tables that read every shard.
    pub distributed: Option<String>,
}

/// The plan for every server of the configuration, in the order of the shards; of one server it is [`plan`].
///
/// # Errors
/// As [`plan`], for the first server of which it fails.
pub async fn plans(config: &Config, making: &Making) -> Result<Vec<Plan>> {
    let mut plans = Vec::new();
    for (shard, server) in config.clickhouse.servers() {
        let place = format!("clickhouse.shards[{shard}], {}", server.url);
        let alone = Config { clickhouse: server, ..config.clone() };
        let mut plan = match plan(&alone).await {
            Err(error) if config.clickhouse.is_cluster() => return Err(error.context(place)),
            plan => plan?,
        };
        plan.made_as(config, making).await?;
        plans.push(plan);
    }
    Ok(plans)
}

/// One statement. Each can be run again without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What it does.
    pub what: String,
    /// The statement.
    pub sql: String,
    /// The table, or the database, that it is about.
    pub name: String,
    /// Whether it makes it.
    pub makes: bool,
}

impl Step {
    fn create(name: &str, what: String, sql: String) -> Self {
        Self { what, sql, name: name.to_owned(), makes: true }
    }

    fn alter(table: &str, what: String, sql: String) -> Self {
        Self { what, sql, name: table.to_owned(), makes: false }
    }
}

/// Compares the tables that the configuration uses with those that are there. Changes nothing. Without the schema of a
/// topic its table is compared with what is shipped only, and that is told.
///
/// # Errors
/// ClickHouse cannot be reached or refuses the user.
pub async fn plan(config: &Config) -> Result<Plan> {
    let settings = config.clickhouse.clone();
    let client = client(&ClickHouse { database: CATALOGUE.to_owned(), ..settings.clone() })?;
    let mut plan =
        Plan { client, settings, steps: Vec::new(), rewriting: Vec::new(), kept: Vec::new(), differences: Vec::new() };
    plan.database().await.map_err(|error| plan.explain(error))?;
    let claims = shipped(CLAIMS)?.context("read the shipped statement of the claims table")?;
    let name = plan.settings.claims_table.clone();
    plan.table(&name, Some(&claims), None, "").await.map_err(|error| plan.explain(error))?;
    let dead_letters = shipped(DEAD_LETTERS)?.context("read the shipped statement of the table of dead letters")?;
    let named: BTreeSet<&str> = config.topics.iter().filter_map(|topic| topic.dead_letter_table.as_deref()).collect();
    for name in named {
        plan.table(name, Some(&dead_letters), None, "").await.map_err(|error| plan.explain(error))?;
    }
    let (schemas, unknown) = registry::schemas(config, config.registry.request_timeout).await;
    for (topic, schemas) in config.topics.iter().zip(schemas) {
        let sent = schemas.events.as_ref().map(|events| {
            let (sent, problems) = fit::sent(&topic.spec, events, &schemas.references, schemas.avro.as_deref());
            plan.differences.extend(problems);
            (topic, sent)
        });
        let ddl = shipped(&topic.table)?;
        let why = unknown.join("; ");
        if sent.is_none() && ddl.is_some() {
            let name = &topic.spec.topic;
            plan.kept.push(format!(
                "table {} is compared with what is shipped only, for the schema of topic {name} is not known: {why}",
                topic.table
            ));
        }
        let sends = sent.as_ref().map(|(topic, sent)| (*topic, sent.as_slice()));
        plan.table(&topic.table, ddl.as_ref(), sends, &why).await.map_err(|error| plan.explain(error))?;
        plan.views(&topic.table).await?;
    }
    Ok(plan)
}

/// Makes a table of a topic, and what else it needs and is not there (database, claims, dead letters); alters nothing.
///
/// # Errors
/// As [`plan`] and [`Plan::apply`]; or the schema of the topic is not known, or has what no table takes.
pub async fn create(config: &Config, topic: &Topic, table: &str) -> Result<()> {
    let alone = Config { topics: vec![topic.clone()], ..config.clone() };
    let mut plan = plan(&alone).await?;
    if !plan.makes(table) {
        bail!("table {table} is not made: {}", plan.differences.join("; "));
    }
    plan.steps.retain(|step| step.makes || step.name == table);
    plan.apply(|line| {
        tracing::info!(topic = topic.spec.topic, "auto_create: {line}");
        Ok(())
    })
    .await?;
    Ok(())
}

/// The shipped statement of a table.
fn shipped(table: &str) -> Result<Option<Ddl>> {
    for (name, sql) in CLICKHOUSE_DDL {
        match Ddl::parse(sql) {
            Some(ddl) if ddl.table == table => return Ok(Some(ddl)),
            Some(_) => {}
            None if views::View::parse(sql).is_some() => {}
            None => bail!("the shipped statement {name} is not understood"),
        }
    }
    Ok(None)
}

impl Plan {
    /// What is to be done, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What is refused and must be changed by hand.
    pub fn differences(&self) -> &[String] {
        &self.differences
    }

    /// Changes the plan to these engines, and adds the tables that read every shard.
    async fn made_as(&mut self, config: &Config, making: &Making) -> Result<()> {
        if making.engine == Engine::Replicated {
            self.steps.iter_mut().for_each(|step| step.sql = cluster::replicated(&step.sql));
        }
        let Some(name) = &making.distributed else { return Ok(()) };
        let ClickHouse { database, query_timeout, .. } = &self.settings;
        let tables = config.topics.iter().flat_map(|topic| [Some(&topic.table), topic.dead_letter_table.as_ref()]);
        let tables: BTreeSet<&String> = tables.flatten().collect();
        for table in tables {
            let ask = async |table: &str| {
                let found = describe(&self.client, database, table, *query_timeout).await;
                found.map_err(|error| self.explain(error))
            };
            let (local, all) = (ask(table).await?, ask(&format!("{table}_all")).await?);
            let changes = self.steps.iter().any(|step| step.name == *table);
            match (&local, &all) {
                (Some(local), Some(all)) if !changes && local.columns == all.columns => {
                    self.kept.push(format!("table {table}_all is as it should be"));
                }
                _ => self.steps.push(cluster::distributed(name, database, table, all.is_some())),
            }
        }
        Ok(())
    }

    /// Runs the steps in order and tells each that is done, and how far the server is where it rewrites parts; returns how
    /// many.
    ///
    /// # Errors
    /// The first step that fails; those before it stay done, and a second run goes on from there.
    pub async fn apply(&self, tell: impl Fn(&str) -> Result<()>) -> Result<usize> {
        for table in &self.rewriting {
            rewrite::finish(&self.client, &self.settings, table, &tell).await?;
        }
        for step in &self.steps {
            // The server does not hold the answer back until parts are rewritten: that is watched instead.
            let statement = self.client.query_raw(&step.sql).with_setting("alter_sync", "0").execute();
            match within(self.settings.query_timeout, statement).await {
                Ok(()) => tell(&format!("done: {}", step.what))?,
                Err(error) => return Err(self.explain(error).context(step.what.clone())),
            }
            if !step.makes {
                rewrite::finish(&self.client, &self.settings, &step.name, &tell).await?;
            }
        }
        Ok(self.steps.len())
    }

    /// The plan as an SQL script: statements, and everything else in comments.
    pub fn script(&self) -> String {
        let ClickHouse { url, database, user, .. } = &self.settings;
        let mut script = format!("-- Plan for database {database} at {url}, as user {user}.\n");
        let mut say = |mark: &str, text: &str| {
            for line in format!("{mark}{text}").lines() {
                script.push_str(&format!("-- {line}\n"));
            }
        };
        self.kept.iter().for_each(|kept| say("= ", kept));
        self.differences.iter().for_each(|difference| say("Refused: ", difference));
        if self.steps.is_empty() {
            say("", "Nothing to do.");
        }
        for Step { what, sql, .. } in &self.steps {
            script.push_str(&format!("\n-- {what}\n{sql};\n"));
        }
        script
    }

    fn makes(&self, table: &str) -> bool {
        self.steps.iter().any(|step| step.makes && step.name == table && step.sql.starts_with("CREATE TABLE"))
    }

    async fn database(&mut self) -> Result<(), Error> {
        let name = self.settings.database.clone();
        let found = self.client.query("SELECT count() FROM system.databases WHERE name = ?").bind(&name);
        if within(self.settings.query_timeout, found.fetch_one::<u64>()).await? == 0 {
            let sql = format!("CREATE DATABASE IF NOT EXISTS {}", identifier(&name));
            self.steps.push(Step::create(&name, format!("create database {name}"), sql));
        }
        Ok(())
    }

    async fn table(
        &mut self,
        name: &str,
        ddl: Option<&Ddl>,
        sends: Option<(&Topic, &[Sent])>,
        unknown: &str,
    ) -> Result<(), Error> {
        let qualified = format!("{}.{}", identifier(&self.settings.database), identifier(name));
        let found = describe(&self.client, &self.settings.database, name, self.settings.query_timeout).await?;
        let before = (self.steps.len(), self.differences.len());
        let found = match (found, ddl, sends) {
            (Some(found), ..) => found,
            (None, Some(ddl), _) => {
                let what = format!("create table {name} ({} columns)", ddl.columns.len());
                let sql = format!("CREATE TABLE IF NOT EXISTS {qualified}{}", ddl.body);
                self.steps.push(Step::create(name, what, sql));
                alter::as_made(ddl)
            }
            (None, None, Some((topic, sent))) => {
                match create::body(topic, sent) {
                    Ok(body) => {
                        let what = format!("create table {name} ({} mapped columns)", sent.len());
                        let sql = format!("CREATE TABLE IF NOT EXISTS {qualified}\n{body}");
                        self.steps.push(Step::create(name, what, sql));
                    }
                    Err(why) => self.differences.push(format!("table {name}: {why}")),
                }
                return Ok(());
            }
            (None, None, None) => {
                self.differences.push(format!(
                    "table {name} is not made, for the schema of its topic is not known ({unknown}): register one or set reader_schema, or make the table by hand"
                ));
                return Ok(());
            }
        };
        let spec = sends.map(|(topic, sent)| (&topic.spec, sent));
        let altered = alter::alterations(name, &qualified, &found, ddl, spec);
        self.steps.extend(altered.steps);
        self.differences.extend(altered.refused);
        self.kept.extend(altered.notes);
        if let Some(ddl) = ddl {
            self.indexes(name, &qualified, ddl).await?;
        }
        if let Some(parts) = rewrite::parts_to_do(&self.client, &self.settings, name).await? {
            self.kept.push(format!(
                "table {name}: an earlier ALTER is still rewriting {parts} parts; reads are right meanwhile"
            ));
            self.rewriting.push(name.to_owned());
        }
        if before == (self.steps.len(), self.differences.len()) {
            self.kept.push(format!("table {name} is as it should be"));
        }
        Ok(())
    }

    async fn indexes(&mut self, name: &str, qualified: &str, ddl: &Ddl) -> Result<(), Error> {
        if ddl.indexes.is_empty() || self.makes(name) {
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
            self.steps.push(Step::alter(
                name,
                format!("table {name}: add index {index}, for parts written from now on"),
                format!("ALTER TABLE {qualified} ADD INDEX IF NOT EXISTS {definition}"),
            ));
        }
        Ok(())
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
        for Step { what, sql, .. } in &self.steps {
            writeln!(f, "  + {what}")?;
            // A whole table is long; `--plan` prints it.
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
