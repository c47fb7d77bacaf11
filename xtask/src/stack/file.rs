//! `stack.json`: where the parts are and who may use them, for every other program (`millrace-bench --stack FILE`).

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::clickhouse::{self, User};
use super::layout::{DataDir, write_atomically};
use super::ports::Ports;
use super::registry;
use super::secured::{Doors, Secured};

/// The content of the file. Passwords stay in files of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StackFile {
    /// Bootstrap server, host and port.
    pub(crate) kafka: String,
    /// The broker's second door, and the address at which it tells clients of that door to find it: a proxy between the two
    /// makes their way to Kafka fail.
    pub(crate) kafka_proxied: String,
    pub(crate) kafka_proxy: String,
    pub(crate) registry: String,
    pub(crate) clickhouse: String,
    /// Folder in which a table of ClickHouse may have a disk of its own.
    pub(crate) clickhouse_disks: PathBuf,
    pub(crate) database: String,
    pub(crate) admin: Login,
    pub(crate) pipeline: Login,
    pub(crate) analyst: Login,
    /// The doors with encryption or passwords.
    pub(crate) secured: Doors,
    /// `None` if it is not installed.
    pub(crate) prometheus: Option<String>,
}

/// A user of ClickHouse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password_file: PathBuf,
}

impl StackFile {
    pub(crate) fn new(dir: &DataDir, ports: &Ports, prometheus: bool) -> Self {
        let login = |user: User| Login { user: user.name.to_owned(), password_file: dir.password(user.name) };
        Self {
            kafka: format!("127.0.0.1:{}", ports.kafka),
            kafka_proxied: format!("127.0.0.1:{}", ports.kafka_proxied),
            kafka_proxy: format!("127.0.0.1:{}", ports.kafka_proxy),
            registry: registry::url(ports),
            clickhouse: clickhouse::url(ports),
            clickhouse_disks: clickhouse::disks(dir),
            database: clickhouse::DATABASE.to_owned(),
            admin: login(clickhouse::ADMIN),
            pipeline: login(clickhouse::PIPELINE),
            analyst: login(clickhouse::ANALYST),
            secured: Secured::doors(dir, ports),
            prometheus: prometheus.then(|| format!("http://127.0.0.1:{}", ports.prometheus)),
        }
    }

    pub(crate) fn save(&self, dir: &DataDir) -> Result<()> {
        let mut content = serde_json::to_vec_pretty(self).context("cannot encode stack.json")?;
        content.push(b'\n');
        write_atomically(&dir.stack_file(), &content, 0o644)
    }
}
