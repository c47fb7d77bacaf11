//! `millrace migrate`: its arguments, and what it prints.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::{Args, builder::PossibleValuesParser};

use super::{ConfigFile, Failure, password_in, print, runtime};
use crate::{
    clickhouse::{replicas::Replicas, rollups::Rollups},
    config::{Config, Secret},
    migrate::{self, Engine, Making},
};

/// Rows that were inserted so long ago are in the rollups, or in none of them: no insert takes longer, unless the configuration
/// lets it.
const SETTLED: Duration = Duration::from_secs(600);

#[derive(Args)]
pub(super) struct Migration {
    #[command(flatten)]
    config: ConfigFile,
    /// Print every statement in full, as a script that can be reviewed and run by somebody else
    #[arg(long, conflicts_with = "apply")]
    plan: bool,
    /// Run the plan
    #[arg(long)]
    apply: bool,
    /// Have rollups count the rows that were in their table before them; nothing is counted twice, and it may run beside
    /// a live pipeline
    #[arg(long, conflicts_with_all = ["plan", "apply"])]
    backfill: bool,
    #[command(flatten)]
    user: MigrateUser,
    /// Engine of the tables that are made; `replicated` for shards of several replicas, whose servers have the macros
    /// {shard} and {replica}
    #[arg(long, value_parser = PossibleValuesParser::new(["plain", "replicated"]), default_value = "plain")]
    engine: String,
    /// Also make TABLE_all for each table, which reads every shard of this cluster of the servers' own configuration;
    /// default: clickhouse.cluster, if it is set
    #[arg(long, value_name = "CLUSTER")]
    distributed: Option<String>,
}

/// A user with the right to create tables; default: the configuration's.
#[derive(Args)]
struct MigrateUser {
    /// ClickHouse user with the right to create and alter tables, instead of the configuration's
    #[arg(long)]
    user: Option<String>,
    /// File with that user's password
    #[arg(long, value_name = "FILE", requires = "user", conflicts_with = "password_env")]
    password_file: Option<PathBuf>,
    /// Environment variable with that user's password
    #[arg(long, value_name = "NAME", requires = "user")]
    password_env: Option<String>,
}

impl Migration {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let Self { config, plan, apply, backfill, user, engine, distributed } = self;
        let config = config_as(&config.path, user)?;
        if backfill {
            return fill(&config);
        }
        let engine = if engine == "replicated" { Engine::Replicated } else { Engine::Plain };
        migrate(&config, plan, apply, &Making { engine, distributed })
    }
}

/// The configuration, with another user of ClickHouse if one is named.
fn config_as(path: &Path, user: MigrateUser) -> Result<Config, Failure> {
    let mut config = Config::load(path)?;
    if let Some(name) = user.user {
        config.clickhouse.user = name;
        config.clickhouse.password = Some(match (user.password_file, user.password_env) {
            (Some(file), _) => password_in(&file)?,
            (None, Some(name)) => Secret::new(
                std::env::var(&name)
                    .with_context(|| format!("read the password of --user from the variable {name}"))?,
            ),
            (None, None) => Secret::new(""),
        });
    }
    Ok(config)
}

fn fill(config: &Config) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let (mut found, settled) = (0, SETTLED.max(2 * config.clickhouse.insert_timeout));
        for shard in 0..config.clickhouse.shard_count() {
            let servers = Replicas::of_shard_standing(&config.clickhouse, shard)?;
            for topic in &config.topics {
                let rollups = Rollups::new(servers.clone(), &config.clickhouse.database, &topic.table);
                found += rollups
                    .backfill(settled, |line| print(&format!("{line}\n")))
                    .await
                    .with_context(|| format!("count what is in table {}", topic.table))?;
            }
        }
        print(&format!(
            "{found} rollups have all that was inserted more than {} minutes ago.\n",
            settled.as_secs() / 60
        ))?;
        Ok(())
    })
}

fn migrate(config: &Config, script: bool, apply: bool, making: &Making) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let mut differences = 0;
        // Every server's plan before the first is run: one that does not answer leaves all as they are.
        for (server, plan) in migrate::plans(config, making).await?.into_iter().enumerate() {
            // And again once those before it are run: of a replicated table it then has what they have made of it.
            let plan = if apply && server > 0 { migrate::plan_anew(config, making, server).await? } else { plan };
            if script {
                print(&plan.script())?;
                continue;
            }
            print(&plan.to_string())?;
            if apply {
                let done = plan.apply(|line| print(&format!("{line}\n"))).await?;
                print(&format!("Done: {done} of {} steps.\n", plan.steps().len()))?;
            } else if !plan.is_empty() {
                print("Nothing has been done; run it with --apply.\n")?;
            }
            differences += plan.differences().len();
        }
        if apply && differences > 0 { Err(Failure::Told) } else { Ok(()) }
    })
}
