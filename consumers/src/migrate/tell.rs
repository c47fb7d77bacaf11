//! A plan in words, or as a script, and errors of servers in words.

use std::fmt;

use clickhouse::error::Error;

use super::{Plan, Step};
use crate::{
    clickhouse::errors::{ErrorClass, classify, code, is_connect},
    config::ClickHouse,
};

/// `REPLICA_ALREADY_EXISTS`.
const REPLICA_ALREADY_EXISTS: u32 = 253;

impl Plan {
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
        for (table, url) in &self.following {
            say("Later: ", &format!("table {table} is made as {url} has it when its plan was run; plan again then"));
        }
        if self.is_empty() {
            say("", "Nothing to do.");
        }
        for Step { what, sql, .. } in &self.steps {
            script.push_str(&format!("\n-- {what}\n{sql};\n"));
        }
        script
    }
}

/// What an error of a server is about, and what can be done.
pub(super) fn explained(error: anyhow::Error, ClickHouse { url, user, .. }: &ClickHouse) -> anyhow::Error {
    let advice = match error.downcast_ref::<Error>() {
        Some(error) if is_connect(error) => {
            format!("{url} cannot be reached: is it running, and is clickhouse.url right?")
        }
        Some(error) if classify(error) == ErrorClass::Auth => {
            format!("ClickHouse refuses user {user}: name one that may do it with --user and --password-file")
        }
        Some(error) if code(error) == Some(REPLICA_ALREADY_EXISTS) => format!(
            "Keeper knows this replica still, of before {url} lost the table: run SYSTEM DROP REPLICA on another one first (docs/shards.md)"
        ),
        _ => format!("ClickHouse at {url} refuses"),
    };
    error.context(advice)
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
        for (table, url) in &self.following {
            writeln!(f, "  + make table {table} as {url} has it by then")?;
        }
        for difference in &self.differences {
            writeln!(f, "  ! {difference}")?;
        }
        if self.is_empty() {
            writeln!(f, "Nothing to do.")?;
        }
        Ok(())
    }
}
