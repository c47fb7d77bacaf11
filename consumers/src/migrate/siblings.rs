//! A table that another replica of the shard has already. In Keeper it is as that one has it, and a replica whose columns are
//! others is refused (code 122), so it is made as it is there, and never as it is shipped.

use std::collections::BTreeMap;

use clickhouse::error::Error;

use crate::{
    clickhouse::{
        client::{client, within},
        table::{Table, describe},
    },
    config::ClickHouse,
    sql::blanked,
};

/// What a plan for one server has to know of the others.
#[derive(Default)]
pub(super) struct Siblings {
    /// The other replicas of its shard.
    pub(super) replicas: Vec<ClickHouse>,
    /// Replicated tables that the plan of one of them is going to make, and its URL.
    pub(super) promised: BTreeMap<String, String>,
}

/// A table on another replica.
pub(super) struct Sibling {
    pub(super) url: String,
    /// The statement that makes it here, or why there is none.
    pub(super) sql: Result<String, String>,
    pub(super) table: Table,
}

impl Siblings {
    /// The table as the first replica that has it shows it, if it is replicated there.
    ///
    /// # Errors
    /// Those of a replica, with its settings.
    pub(super) async fn table(&self, name: &str) -> Result<Option<Sibling>, (anyhow::Error, &ClickHouse)> {
        for replica in &self.replicas {
            let found = look(replica, name).await.map_err(|error| (error, replica))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

async fn look(settings: &ClickHouse, name: &str) -> anyhow::Result<Option<Sibling>> {
    let ClickHouse { database, url, query_timeout, .. } = settings;
    // The database may not be there.
    let client = client(&ClickHouse { database: super::CATALOGUE.to_owned(), ..settings.clone() })?;
    let Some(table) = describe(&client, database, name, *query_timeout).await? else { return Ok(None) };
    if !table.is_replicated() {
        return Ok(None);
    }
    let create = client
        .query("SELECT create_table_query FROM system.tables WHERE database = ? AND name = ?")
        .bind(database)
        .bind(name)
        .fetch_optional::<String>();
    let create: Result<Option<String>, Error> = within(*query_timeout, create).await;
    Ok(create?.map(|create| Sibling { url: url.clone(), sql: as_there(&create), table }))
}

/// The statement that makes a table on another replica, out of the server's own. Macros of a server are in it as macros, but for
/// those of database and table, which are the same everywhere.
fn as_there(create: &str) -> Result<String, String> {
    const ENGINE: &str = "ENGINE = Replicated";
    let unknown = || format!("its definition is not understood ({create})");
    let rest = create.strip_prefix("CREATE TABLE ").ok_or_else(unknown)?;
    let engine = blanked(create).find(ENGINE).map(|at| &create[at..]).ok_or_else(unknown)?;
    let (_, arguments) = engine.split_once('(').ok_or_else(unknown)?;
    let (path, after) = literal(arguments).ok_or_else(unknown)?;
    let (replica, _) = after.strip_prefix(", ").and_then(literal).ok_or_else(unknown)?;
    if path.contains("{uuid}") {
        return Err(format!("its path in Keeper is {path}, and each server has another {{uuid}}"));
    }
    if !replica.contains('{') {
        return Err(format!("its replica is named {replica} and not by a macro such as {{replica}}"));
    }
    Ok(format!("CREATE TABLE IF NOT EXISTS {rest}"))
}

/// The text in quotes that SQL begins with, as it is written, and what follows.
fn literal(sql: &str) -> Option<(&str, &str)> {
    let inner = sql.strip_prefix('\'')?;
    let mut is_escaped = false;
    let end = inner.find(|c| {
        let is_end = c == '\'' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end
    })?;
    Some((&inner[..end], &inner[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(engine: &str) -> String {
        format!(
            "CREATE TABLE d.t (`a` Int32 COMMENT 'it\\'s no ENGINE = ReplicatedMergeTree()') ENGINE = {engine} ORDER BY a"
        )
    }

    #[test]
    fn a_table_of_another_replica_is_made_by_its_own_definition_and_macros_stay_macros() {
        let create = created("ReplicatedMergeTree('/clickhouse/tables/{shard}/d/t', '{replica}')");
        let sql = as_there(&create).unwrap();
        assert_eq!(sql, create.replacen("CREATE TABLE d.t", "CREATE TABLE IF NOT EXISTS d.t", 1));
        assert!(sql.contains("'/clickhouse/tables/{shard}/d/t', '{replica}')"), "{sql}");
        let versioned = created("ReplicatedReplacingMergeTree('/t/{shard}', '{replica}', v)");
        assert!(as_there(&versioned).is_ok());
    }

    #[test]
    fn a_definition_that_would_make_another_table_or_the_same_replica_is_refused() {
        for (engine, words) in [
            ("ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')", "each server has another {uuid}"),
            ("ReplicatedMergeTree('/clickhouse/tables/0/t', 'clickhouse-0')", "named clickhouse-0"),
            ("ReplicatedMergeTree", "not understood"),
            ("MergeTree", "not understood"),
        ] {
            let why = as_there(&created(engine)).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
