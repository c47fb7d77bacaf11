//! Every server of a cluster looked at like the one of a configuration without shards, and told by its place.

use std::time::Duration;

use super::{clickhouse, report::Part};
use crate::{
    clickhouse::table::Table,
    config::{Config, Topic},
};

/// What one server came to.
pub(super) struct Server {
    pub(super) part: Part,
    /// Each topic's table, if there is one.
    pub(super) tables: Vec<Option<Table>>,
    /// What its findings begin with; nothing for the only server.
    pub(super) place: String,
}

/// Looks at every replica of every shard, all at once.
pub(super) async fn check(config: &Config, timeout: Duration) -> Vec<Server> {
    let settings = &config.clickhouse;
    let one = async |(shard, server): (usize, crate::config::ClickHouse)| {
        let place = if settings.is_cluster() { format!("shards[{shard}], {}: ", server.url) } else { String::new() };
        let alone = Config { clickhouse: server, ..config.clone() };
        let (mut part, tables) = clickhouse::check(&alone, timeout).await;
        let replicas = settings.replicas(shard).len();
        for (topic, table) in config.topics.iter().zip(&tables) {
            table.iter().for_each(|table| replication(&mut part, topic, table, replicas, !settings.shards.is_empty()));
        }
        part.placed(&place);
        Server { part, tables, place }
    };
    futures::future::join_all(settings.servers().into_iter().map(one)).await
}

/// Whether the engine is one for so many replicas.
fn replication(part: &mut Part, topic: &Topic, table: &Table, replicas: usize, named: bool) {
    let (name, engine) = (&topic.table, &table.engine);
    if replicas > 1 && !table.is_replicated() {
        part.bad(format!(
            "table {name} is {engine}, which has its rows on one server: expected a replicated one for a shard of {replicas} replicas (`millrace migrate --engine replicated`), or one replica"
        ));
    } else if table.is_replicated() && !named {
        part.bad(format!(
            "table {name} is {engine}, which other servers may write to: name its replicas by [[clickhouse.shards]] in place of clickhouse.url (docs/shards.md)"
        ));
    }
}
