//! ClickHouse's own Kafka engine and a materialized view into the same table, as `bench/peers/kafka_engine/*.sql` says.
//! It works inside the server, neither remembers ids nor enriches, and an unreadable record stalls it.

use anyhow::{Context, Result};

use super::{Job, System};
use crate::scenario::http::ClickHouse;

/// Settings as they come.
pub(crate) const VANILLA: &str = include_str!("../../../peers/kafka_engine/vanilla.sql");
/// With the settings that its users are told to change.
pub(crate) const TUNED: &str = include_str!("../../../peers/kafka_engine/tuned.sql");

/// A table with the engine, and a view that moves its rows on.
pub(crate) struct KafkaEngine {
    clickhouse: ClickHouse,
    database: String,
}

impl KafkaEngine {
    /// # Errors
    /// If ClickHouse refuses a statement.
    pub(crate) fn start(job: &Job<'_>, statements: &str) -> Result<Self> {
        let (stack, database) = (&job.world.stack, job.database.name.clone());
        let engine = Self { clickhouse: job.world.clickhouse.clone(), database };
        for statement in split(statements) {
            let statement = statement
                .replace("@BROKERS@", &stack.kafka)
                .replace("@TOPIC@", &job.source.topics.orders)
                .replace("@GROUP@", &job.group)
                .replace("@REGISTRY@", &stack.registry);
            engine.clickhouse.ask(&engine.database, &statement).context("set the Kafka engine up")?;
        }
        Ok(engine)
    }

    fn drop_tables(&self) -> Result<()> {
        for table in ["orders_mv", "orders_queue"] {
            self.clickhouse.ask(&self.database, &format!("DROP TABLE IF EXISTS {table} SYNC"))?;
        }
        Ok(())
    }
}

/// Statements without the comments; none of them holds a semicolon.
fn split(statements: &str) -> impl Iterator<Item = String> {
    let code: Vec<&str> = statements.lines().filter(|line| !line.trim_start().starts_with("--")).collect();
    let code = code.join("\n");
    code.split(';')
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect::<Vec<_>>()
        .into_iter()
}

impl System for KafkaEngine {
    fn pids(&self) -> Vec<u32> {
        Vec::new()
    }

    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<()> {
        self.drop_tables()
    }
}

impl Drop for KafkaEngine {
    fn drop(&mut self) {
        if let Err(error) = self.drop_tables() {
            eprintln!("left in ClickHouse: the Kafka engine's tables of {}: {error:#}", self.database);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_settings_make_the_same_two_objects_that_stop_drops() {
        for statements in [VANILLA, TUNED] {
            let statements: Vec<String> = split(statements).collect();
            assert_eq!(statements.len(), 2);
            assert!(statements[0].starts_with("CREATE TABLE orders_queue"));
            assert!(statements[1].starts_with("CREATE MATERIALIZED VIEW orders_mv TO orders"));
            assert!(statements[0].contains("@TOPIC@") && statements[0].contains("@GROUP@"));
        }
    }
}
