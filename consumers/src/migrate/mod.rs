//! `millrace migrate`: brings tables to what the schemas and the mapping ask for. Shipped tables are made as they are
//! shipped, others out of the schema. The plan comes first; it never drops or narrows anything, and what it does not do it
//! tells.

mod across;
mod alter;
mod apply;
mod cluster;
mod create;
mod ddl;
#[cfg(test)]
mod dictionary;
mod rewrite;
mod siblings;
mod tell;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use clickhouse::{Client, error::Error};
use millrace_schemas::CLICKHOUSE_DDL;

pub use self::cluster::Engine;
pub(crate) use self::cluster::everywhere;
use self::{
    ddl::Ddl,
    siblings::{Sibling, Siblings},
    tell::explained,
};
use crate::{
    check::{fields::Sent, fit, registry},
    clickhouse::{
        claims::identifier,
        client::{client, within},
        errors::{ErrorClass, classify},
        table::{Table, describe},
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
    engine: Engine,
    siblings: Siblings,
    /// Tables that are replicated, or will be when they are made.
    replicated: BTreeSet<String>,
    /// Tables that are made as an earlier replica has them by then: their statements are not known yet.
    following: Vec<(String, String)>,
    kept: Vec<String>,
    differences: Vec<String>,
}

/// How tables are made, besides what the schemas ask for.
#[derive(Clone, Debug, Default)]
pub struct Making {
    /// Engine of new tables.
    pub engine: Engine,
    /// Cluster of the servers' own configuration, for Distributed tables that read every shard, instead of the configured one.
    pub distributed: Option<String>,
}

/// The plan for every server of the configuration, in the order of the shards; of one server it is [`plan`]. A replicated
/// table that an earlier replica of a shard is going to make is only named: see [`plan_anew`].
///
/// # Errors
/// As [`plan`], for the first server of which it fails.
pub async fn plans(config: &Config, making: &Making) -> Result<Vec<Plan>> {
    let mut plans: Vec<(usize, Plan)> = Vec::new();
    for (at, (shard, _)) in config.clickhouse.servers().iter().enumerate() {
        let promised = plans.iter().filter(|(of, _)| of == shard).flat_map(|(_, plan)| plan.promises()).collect();
        plans.push((*shard, plan_of(config, making, at, promised).await?));
    }
    Ok(plans.into_iter().map(|(_, plan)| plan).collect())
}

/// The plan for one server alone, by its position among all of them: with what others of its shard have by now.
///
/// # Errors
/// As [`plan`].
pub async fn plan_anew(config: &Config, making: &Making, server: usize) -> Result<Plan> {
    plan_of(config, making, server, BTreeMap::new()).await
}

async fn plan_of(config: &Config, making: &Making, server: usize, promised: BTreeMap<String, String>) -> Result<Plan> {
    let servers = config.clickhouse.servers();
    let (shard, settings) = servers.get(server).context("there is no such server")?;
    let replicas = servers.iter().filter(|(of, other)| of == shard && other.url != settings.url);
    let siblings = Siblings { replicas: replicas.map(|(_, other)| other.clone()).collect(), promised };
    let alone = Config { clickhouse: settings.clone(), ..config.clone() };
    let planned = async {
        let mut plan = planned(&alone, making.engine, siblings).await?;
        if let Some(cluster) = making.distributed.as_ref().or(config.clickhouse.cluster.as_ref()) {
            plan.across(config, cluster).await?;
        }
        anyhow::Ok(plan)
    };
    let place = || format!("clickhouse.shards[{shard}], {}", settings.url);
    planned.await.map_err(|error| if config.clickhouse.is_cluster() { error.context(place()) } else { error })
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
    planned(config, Engine::Plain, Siblings::default()).await
}

async fn planned(config: &Config, engine: Engine, siblings: Siblings) -> Result<Plan> {
    let mut plan = Plan::new(&config.clickhouse, engine, siblings)?;
    plan.database().await.map_err(|error| plan.explain(error))?;
    let claims = shipped(CLAIMS)?.context("read the shipped statement of the claims table")?;
    let name = plan.settings.claims_table.clone();
    plan.table(&name, Some(&claims), None, "").await?;
    let dead_letters = shipped(DEAD_LETTERS)?.context("read the shipped statement of the table of dead letters")?;
    let named: BTreeSet<&str> = config.topics.iter().filter_map(|topic| topic.dead_letter_table.as_deref()).collect();
    for name in named {
        plan.table(name, Some(&dead_letters), None, "").await?;
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
        plan.table(&topic.table, ddl.as_ref(), sends, &why).await?;
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
    fn new(settings: &ClickHouse, engine: Engine, siblings: Siblings) -> Result<Self> {
        Ok(Self {
            client: client(&ClickHouse { database: CATALOGUE.to_owned(), ..settings.clone() })?,
            settings: settings.clone(),
            steps: Vec::new(),
            rewriting: Vec::new(),
            engine,
            siblings,
            replicated: BTreeSet::new(),
            following: Vec::new(),
            kept: Vec::new(),
            differences: Vec::new(),
        })
    }

    /// What is to be done, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What is refused and must be changed by hand.
    pub fn differences(&self) -> &[String] {
        &self.differences
    }

    /// Whether there is nothing to be done, now or later.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.following.is_empty()
    }

    /// Replicated tables that this plan makes, each with the server's URL.
    fn promises(&self) -> impl Iterator<Item = (String, String)> {
        let made = self.steps.iter().filter(|step| step.makes && self.replicated.contains(&step.name));
        made.map(|step| (step.name.clone(), self.settings.url.clone()))
    }

    fn follows(&self, table: &str) -> bool {
        self.following.iter().any(|(name, _)| name == table)
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
    ) -> Result<()> {
        let qualified = format!("{}.{}", identifier(&self.settings.database), identifier(name));
        let found = describe(&self.client, &self.settings.database, name, self.settings.query_timeout);
        let found = found.await.map_err(|error| self.explain(error))?;
        let before = (self.steps.len(), self.differences.len());
        let found = match found {
            Some(found) => found,
            None => match self.missing(name, &qualified, ddl, sends, unknown).await? {
                Some(made) => made,
                None => return Ok(()),
            },
        };
        if found.is_replicated() {
            self.replicated.insert(name.to_owned());
        }
        let spec = sends.map(|(topic, sent)| (&topic.spec, sent));
        let altered = alter::alterations(name, &qualified, &found, ddl, spec);
        self.steps.extend(altered.steps);
        self.differences.extend(altered.refused);
        self.kept.extend(altered.notes);
        if let Some(ddl) = ddl {
            self.indexes(name, &qualified, ddl).await.map_err(|error| self.explain(error))?;
        }
        let parts = rewrite::parts_to_do(&self.client, &self.settings, name).await;
        if let Some(parts) = parts.map_err(|error| self.explain(error))? {
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

    /// How a table that is not there is made, and what it looks like then; `None` if that is not known, or it is not made.
    async fn missing(
        &mut self,
        name: &str,
        qualified: &str,
        ddl: Option<&Ddl>,
        sends: Option<(&Topic, &[Sent])>,
        unknown: &str,
    ) -> Result<Option<Table>> {
        let sibling = self.siblings.table(name).await.map_err(|(error, replica)| explained(error, replica))?;
        if let Some(Sibling { url, sql, table }) = sibling {
            return Ok(match sql {
                Ok(sql) => {
                    self.steps.push(Step::create(name, format!("create table {name} as {url} has it"), sql));
                    Some(table)
                }
                Err(why) => {
                    self.differences.push(format!("table {name} is not made as {url} has it, for {why}"));
                    None
                }
            });
        }
        if let Some(url) = self.siblings.promised.get(name) {
            self.following.push((name.to_owned(), url.clone()));
            return Ok(None);
        }
        let (what, body, made) = match (ddl, sends) {
            (Some(ddl), _) => (
                format!("create table {name} ({} columns)", ddl.columns.len()),
                ddl.body.clone(),
                Some(alter::as_made(ddl)),
            ),
            (None, Some((topic, sent))) => match create::body(topic, sent) {
                Ok(body) => (format!("create table {name} ({} mapped columns)", sent.len()), format!("\n{body}"), None),
                Err(why) => {
                    self.differences.push(format!("table {name}: {why}"));
                    return Ok(None);
                }
            },
            (None, None) => {
                self.differences.push(format!(
                    "table {name} is not made, for the schema of its topic is not known ({unknown}): register one or set reader_schema, or make the table by hand"
                ));
                return Ok(None);
            }
        };
        let mut sql = format!("CREATE TABLE IF NOT EXISTS {qualified}{body}");
        if self.engine == Engine::Replicated {
            sql = cluster::replicated(&sql);
            self.replicated.insert(name.to_owned());
        }
        self.steps.push(Step::create(name, what, sql));
        Ok(made)
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
        explained(error.into(), &self.settings)
    }
}
