//! Tables of a cluster: the replicated form of a plan, and the Distributed tables that all shards are read through. Pure.

use super::Step;
use crate::clickhouse::claims::{identifier, quote};

/// Where the replicas of a table meet, by the macros that each server has of its own.
const REPLICATED: &str = "('/clickhouse/tables/{shard}/{database}/{table}', '{replica}'";

/// The engine of the tables that are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// As shipped: on one server each.
    #[default]
    Plain,
    /// On every replica of a shard, through Keeper.
    Replicated,
}

/// A statement with the replicated form of its engine, if it makes a table of the MergeTree family; else as it is.
pub(super) fn replicated(sql: &str) -> String {
    if !sql.starts_with("CREATE ") {
        return sql.to_owned();
    }
    let Some((before, engine)) = sql.split_once("ENGINE = ") else { return sql.to_owned() };
    let name = engine.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    if !name.ends_with("MergeTree") || name.starts_with("Replicated") {
        return sql.to_owned();
    }
    let rest = &engine[name.len()..];
    let rest = match rest.strip_prefix('(') {
        Some(rest) if rest.trim_start().starts_with(')') => rest.trim_start().to_owned(),
        Some(arguments) => format!(", {arguments}"),
        None => format!("){rest}"),
    };
    // The window of a replicated table has a name of its own.
    let rest = rest.replace("non_replicated_deduplication_window", "replicated_deduplication_window");
    format!("{before}ENGINE = Replicated{name}{REPLICATED}{rest}")
}

/// The table, or view, that reads the one of this name on every shard.
pub(crate) fn everywhere(name: &str) -> String {
    format!("{name}_all")
}

/// Makes `<table>_all`, through which every shard's `table` is read. It holds no rows, so it is made anew when the columns are
/// not those of the table, or the cluster is another.
pub(super) fn distributed(cluster: &str, database: &str, table: &str, is_there: bool) -> Step {
    let all = everywhere(table);
    let make = if is_there { "CREATE OR REPLACE TABLE" } else { "CREATE TABLE IF NOT EXISTS" };
    let sql = format!(
        "{make} {database}.{all} AS {database}.{local} ENGINE = Distributed({cluster}, {database_text}, {local_text})",
        all = identifier(&all),
        local = identifier(table),
        cluster = quote(cluster),
        database_text = quote(database),
        local_text = quote(table),
        database = identifier(database),
    );
    Step::create(&all, format!("create table {all}, which reads {table} of every shard of cluster {cluster}"), sql)
}

#[cfg(test)]
mod tests {
    use millrace_schemas::CLICKHOUSE_DDL;

    use super::*;

    #[test]
    fn every_shipped_table_has_a_replicated_form() {
        for (name, sql) in CLICKHOUSE_DDL {
            let Some(create) = sql.find("CREATE TABLE") else { continue };
            let made = replicated(&sql[create..]);
            assert!(
                made.contains("MergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"),
                "{name}: {made}"
            );
            assert!(made.contains("ENGINE = Replicated") && !made.contains("non_replicated"), "{name}: {made}");
        }
    }

    #[test]
    fn arguments_of_an_engine_come_after_those_of_replication() {
        let path = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'";
        let cases = [
            ("MergeTree\nORDER BY a", format!("ReplicatedMergeTree({path})\nORDER BY a")),
            ("MergeTree() ORDER BY a", format!("ReplicatedMergeTree({path}) ORDER BY a")),
            ("ReplacingMergeTree(v) ORDER BY a", format!("ReplicatedReplacingMergeTree({path}, v) ORDER BY a")),
            ("ReplicatedMergeTree ORDER BY a", "ReplicatedMergeTree ORDER BY a".to_owned()),
            ("Memory", "Memory".to_owned()),
        ];
        for (engine, expected) in cases {
            let sql = format!("CREATE TABLE t (a Int8) ENGINE = {engine}");
            assert_eq!(replicated(&sql), format!("CREATE TABLE t (a Int8) ENGINE = {expected}"));
        }
        assert_eq!(replicated("ALTER TABLE t ADD COLUMN b Int8"), "ALTER TABLE t ADD COLUMN b Int8");
    }

    #[test]
    fn a_distributed_table_reads_the_local_ones() {
        let step = distributed("main", "d", "orders", false);
        assert_eq!(
            step.sql,
            "CREATE TABLE IF NOT EXISTS `d`.`orders_all` AS `d`.`orders` ENGINE = Distributed('main', 'd', 'orders')"
        );
        assert_eq!((step.name.as_str(), step.makes), ("orders_all", true));
        assert!(distributed("main", "d", "orders", true).sql.starts_with("CREATE OR REPLACE TABLE `d`.`orders_all`"));
    }
}
