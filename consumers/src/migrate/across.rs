//! What reads every shard: a Distributed table beside each table and rollup. A plain view has none: over all shards ClickHouse
//! groups before it looks at a condition, so that one order would cost the whole table.

use std::collections::BTreeSet;

use anyhow::Result;
use clickhouse::error::Error;

use super::{
    Plan,
    cluster::{distributed, everywhere},
    views::views_of,
};
use crate::{
    clickhouse::{
        claims::quote,
        client::within,
        errors::{ErrorClass, classify},
        table::describe,
    },
    config::Config,
};

impl Plan {
    /// Adds what reads every shard of a cluster, and tells if that one has not the shards of the configuration.
    pub(super) async fn across(&mut self, config: &Config, cluster: &str) -> Result<()> {
        self.shards_of(config, cluster).await.map_err(|error| self.explain(error))?;
        let mut tables = BTreeSet::new();
        for topic in &config.topics {
            tables.insert(topic.table.clone());
            tables.extend(topic.dead_letter_table.clone());
            tables.extend(views_of(&topic.table)?.into_iter().filter_map(|view| view.target));
        }
        for table in tables {
            self.distributed(cluster, &table).await.map_err(|error| self.explain(error))?;
        }
        Ok(())
    }

    async fn distributed(&mut self, cluster: &str, table: &str) -> Result<(), Error> {
        let (database, timeout) = (self.settings.database.clone(), self.settings.query_timeout);
        let all = everywhere(table);
        let local = describe(&self.client, &database, table, timeout).await?;
        let found = describe(&self.client, &database, &all, timeout).await?;
        let is_changed = self.steps.iter().any(|step| step.name == table);
        if local.is_none() && !is_changed && !self.follows(table) {
            // Why it is not made has been told.
            return Ok(());
        }
        let same_columns = match (&local, &found) {
            (Some(local), Some(found)) => !is_changed && local.columns == found.columns,
            _ => false,
        };
        if same_columns && self.is_of(cluster, &all).await? {
            self.kept.push(format!("table {all} is as it should be"));
        } else {
            self.steps.push(distributed(cluster, &database, table, found.is_some()));
        }
        Ok(())
    }

    async fn is_of(&self, cluster: &str, all: &str) -> Result<bool, Error> {
        let sql = "SELECT count() FROM system.tables WHERE database = ? AND name = ? AND startsWith(engine_full, ?)";
        let begins = format!("Distributed({},", quote(cluster));
        let found = self.client.query(sql).bind(&self.settings.database).bind(all).bind(begins).fetch_one::<u64>();
        Ok(within(self.settings.query_timeout, found).await? > 0)
    }

    /// A cluster of other shards would give a part for the whole.
    async fn shards_of(&mut self, config: &Config, cluster: &str) -> Result<(), Error> {
        let sql = "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = ?";
        let found = self.client.query(sql).bind(cluster).fetch_one::<u64>();
        let expected = config.clickhouse.shard_count();
        match within(self.settings.query_timeout, found).await {
            // Who may not ask is not told; a query asks again.
            Err(error) if classify(&error) == ErrorClass::Auth => {}
            Ok(found) if found == expected as u64 => {}
            Ok(found) => self.differences.push(format!(
                "cluster {cluster} has {found} shards by the configuration of ClickHouse (remote_servers), and {expected} by that of Millrace"
            )),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
