//! What a table looks like, as the server tells it to this user. It changes nothing.

use std::time::Duration;

use clickhouse::{Client, Row, error::Error};
use serde::Deserialize;

use super::client::within;

/// `replicated_deduplication_window` where nobody set it: 10,000 since 25.10, and this before.
const REPLICATED_WINDOW: u64 = 1000;

/// A table as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// In the order of the table.
    pub columns: Vec<Column>,
    /// Such as `MergeTree`.
    pub engine: String,
    /// Expression; empty if there is none.
    pub partition_key: String,
    /// Expression; empty if there is none.
    pub sorting_key: String,
    /// `non_replicated_deduplication_window`, in blocks; 0 is off, and is the default of ClickHouse. Of a replicated table
    /// `replicated_deduplication_window`.
    pub deduplication_window: u64,
}

/// A column as it is.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct Column {
    /// `items.sku` for a column of a `Nested`.
    pub name: String,
    /// Type as the server writes it.
    #[serde(rename = "type")]
    pub type_: String,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, `EPHEMERAL`, or empty.
    pub default_kind: String,
}

#[derive(Row, Deserialize)]
struct Engine {
    engine: String,
    engine_full: String,
    partition_key: String,
    sorting_key: String,
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Whether rows are sorted or partitioned by the column: its name stands in one of the two expressions.
    pub fn is_key(&self, name: &str) -> bool {
        let names = |expression: &str| {
            let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
            expression.split(|c| !plain(c)).any(|word| word == name)
        };
        names(&self.sorting_key) || names(&self.partition_key)
    }

    /// Whether the table is replicated, in which case deduplication by token is on by default.
    pub fn is_replicated(&self) -> bool {
        is_replicated(&self.engine)
    }
}

/// Looks a table up; `None` if there is none, or if this user may see nothing of it.
///
/// # Errors
/// Those of the server and of the way to it.
pub async fn describe(client: &Client, database: &str, table: &str, timeout: Duration) -> Result<Option<Table>, Error> {
    let engine = client
        .query(
            "SELECT engine, engine_full, partition_key, sorting_key FROM system.tables WHERE database = ? AND name = ?",
        )
        .bind(database)
        .bind(table)
        .fetch_optional::<Engine>();
    let Some(engine) = within(timeout, engine).await? else {
        return Ok(None);
    };
    let columns = client
        .query("SELECT name, type, default_kind FROM system.columns WHERE database = ? AND table = ? ORDER BY position")
        .bind(database)
        .bind(table)
        .fetch_all::<Column>();
    Ok(Some(Table {
        columns: within(timeout, columns).await?,
        deduplication_window: deduplication_window(&engine.engine, &engine.engine_full),
        engine: engine.engine,
        partition_key: engine.partition_key,
        sorting_key: engine.sorting_key,
    }))
}

fn deduplication_window(engine: &str, engine_full: &str) -> u64 {
    if is_replicated(engine) {
        setting(engine_full, "replicated_deduplication_window").unwrap_or(REPLICATED_WINDOW)
    } else {
        setting(engine_full, "non_replicated_deduplication_window").unwrap_or(0)
    }
}

fn is_replicated(engine: &str) -> bool {
    engine.starts_with("Replicated") || engine.starts_with("Shared")
}

/// A numeric setting out of the `SETTINGS` at the end of an engine's definition, as the server formats it.
fn setting(engine_full: &str, name: &str) -> Option<u64> {
    let (_, settings) = engine_full.rsplit_once("SETTINGS ")?;
    settings.split(", ").find_map(|pair| {
        let (key, value) = pair.split_once(" = ")?;
        (key == name).then(|| value.trim_matches('\'').parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_key_are_found_in_its_expression() {
        let table = Table {
            columns: Vec::new(),
            engine: "MergeTree".into(),
            partition_key: "toYYYYMM(timestamp)".into(),
            sorting_key: "(toStartOfHour(timestamp), event_type, `items.sku`)".into(),
            deduplication_window: 0,
        };
        assert!(["timestamp", "event_type", "items.sku"].iter().all(|name| table.is_key(name)));
        assert!(!table.is_key("event") && !table.is_key("sku"));
    }

    #[test]
    fn the_deduplication_window_is_read_from_the_engine() {
        let engine = "MergeTree PARTITION BY toYYYYMM(timestamp) ORDER BY event_type SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 10000";
        assert_eq!(setting(engine, "non_replicated_deduplication_window"), Some(10_000));
        assert_eq!(setting(engine, "deduplication_window"), None);
        assert_eq!(deduplication_window("MergeTree", engine), 10_000);
        assert_eq!(deduplication_window("ReplicatedMergeTree", engine), REPLICATED_WINDOW);
        assert_eq!(setting("Memory", "non_replicated_deduplication_window"), None);
    }
}
