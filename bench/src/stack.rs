//! Where the parts of a stack listen: reads the file that `cargo xtask stack up` writes. It never starts anything.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

/// Addresses and users of a running stack. Fields that the bench has no use for are passed over.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// Kafka broker, host:port.
    pub kafka: String,
    /// Schema registry, base address.
    pub registry: String,
    /// ClickHouse, HTTP address; of several servers, the first.
    pub clickhouse: String,
    /// HTTP addresses of all servers, each of which has the rows of some partitions; empty if there is one.
    #[serde(default)]
    pub clickhouse_servers: Vec<String>,
    /// ClickHouse database.
    pub database: String,
    /// A user who may read everything.
    pub admin: User,
    /// A user who may do what a consumer needs.
    pub pipeline: User,
}

/// A user of ClickHouse.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Name.
    pub user: String,
    /// File that holds the password.
    pub password_file: PathBuf,
}

impl User {
    /// The password.
    pub fn password(&self) -> Result<String> {
        let text = std::fs::read_to_string(&self.password_file)
            .with_context(|| format!("read the password of {} from {}", self.user, self.password_file.display()))?;
        Ok(text.trim_end().to_owned())
    }
}

impl Stack {
    /// HTTP address of each server of ClickHouse.
    pub fn servers(&self) -> &[String] {
        if self.clickhouse_servers.is_empty() {
            std::slice::from_ref(&self.clickhouse)
        } else {
            &self.clickhouse_servers
        }
    }

    /// Reads the file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("read {}; is the stack up? `cargo xtask stack up` writes it", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("read {}", file.display()))
    }
}

/// Names of the topics of a run.
#[derive(Clone, Debug)]
pub struct Topics {
    /// Order events.
    pub orders: String,
    /// Their dead letters.
    pub dead_letters: String,
    /// Customers.
    pub customers: String,
    /// Products.
    pub products: String,
}

impl Topics {
    /// The usual names behind a prefix, which is empty but for tests.
    pub fn new(prefix: &str) -> Self {
        Self {
            orders: format!("{prefix}orders"),
            dead_letters: format!("{prefix}orders.dead"),
            customers: format!("{prefix}customers"),
            products: format!("{prefix}products"),
        }
    }
}

/// Names of the topics of a run with payments.
#[derive(Clone, Debug)]
pub struct PaymentTopics {
    /// Payments.
    pub payments: String,
    /// Their dead letters.
    pub dead_letters: String,
    /// Payment methods.
    pub methods: String,
}

impl PaymentTopics {
    /// The usual names behind a prefix, which is empty but for tests.
    pub fn new(prefix: &str) -> Self {
        Self {
            payments: format!("{prefix}payments"),
            dead_letters: format!("{prefix}payments.dead"),
            methods: format!("{prefix}payment_methods"),
        }
    }
}
