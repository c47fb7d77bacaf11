//! ClickHouse: its users and their passwords, its configuration, and the question whether every user gets an answer.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::http;
use super::layout::{DataDir, hex, random_hex, read_if_there, write_atomically};
use super::part::{Launch, Part};
use super::ports::Ports;
use super::process;
use crate::clickhouse_serve::DISKS;

pub(crate) const DATABASE: &str = "millrace";

/// Its name in ClickHouse, and the environment variable through which `assets/users.xml` gets its password's hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User {
    pub(crate) name: &'static str,
    sha256_variable: &'static str,
}

/// May do everything.
pub(crate) const ADMIN: User = User { name: "admin", sha256_variable: "MILLRACE_ADMIN_SHA256" };
/// What `millrace run` needs, and no more.
pub(crate) const PIPELINE: User = User { name: "millrace", sha256_variable: "MILLRACE_PIPELINE_SHA256" };
/// Reads, within limits.
pub(crate) const ANALYST: User = User { name: "analyst", sha256_variable: "MILLRACE_ANALYST_SHA256" };
const USERS: [User; 3] = [ADMIN, PIPELINE, ANALYST];

pub(crate) fn url(ports: &Ports) -> String {
    format!("http://127.0.0.1:{}", ports.clickhouse_http)
}

/// Folder in which a table may have a disk of its own.
pub(crate) fn disks(dir: &DataDir) -> PathBuf {
    dir.data(Part::ClickHouse).join(DISKS)
}

/// # Errors
/// If configuration or passwords cannot be written.
pub(crate) fn prepare(dir: &DataDir, ports: &Ports, library: &Path) -> Result<Launch> {
    let files = [
        ("clickhouse.xml", include_str!("../../assets/clickhouse.xml")),
        ("users.xml", include_str!("../../assets/users.xml")),
    ];
    for (name, content) in files {
        write_atomically(&dir.config(name), content.as_bytes(), 0o644)?;
    }
    let mut env = std::collections::BTreeMap::new();
    for user in USERS {
        let hash = hex(&Sha256::digest(password(dir, user)?));
        env.insert(user.sha256_variable, hash.into());
    }
    let args = vec![
        "clickhouse-serve".into(),
        "--library".into(),
        library.into(),
        "--config".into(),
        dir.config("clickhouse.xml").into(),
        "--users".into(),
        dir.config("users.xml").into(),
        "--data".into(),
        dir.data(Part::ClickHouse).into(),
        "--http-port".into(),
        ports.clickhouse_http.to_string().into(),
        "--tcp-port".into(),
        ports.clickhouse_tcp.to_string().into(),
    ];
    Ok(Launch {
        part: Part::ClickHouse,
        program: process::own_program()?,
        args,
        env,
        config: files.map(|(_, content)| content.to_owned()).into(),
    })
}

/// Gives all users of one instance the passwords that they have at another.
///
/// # Errors
/// If passwords cannot be read or written.
pub(super) fn copy_passwords(from: &DataDir, to: &DataDir) -> Result<()> {
    for user in USERS {
        write_atomically(&to.password(user.name), password(from, user)?.as_bytes(), 0o600)?;
    }
    Ok(())
}

/// The password of a user of this instance; made up the first time it is asked for.
fn password(dir: &DataDir, user: User) -> Result<String> {
    let path = dir.password(user.name);
    if let Some(password) = read_if_there(&path)?.filter(|content| !content.is_empty()) {
        return Ok(password);
    }
    let password = random_hex(16)?;
    write_atomically(&path, password.as_bytes(), 0o600)?;
    Ok(password)
}

/// # Errors
/// Until every user gets an answer to a query.
pub(crate) fn probe(dir: &DataDir, ports: &Ports) -> Result<()> {
    for user in USERS {
        http::clickhouse(&url(ports), user.name, &password(dir, user)?, "SELECT 1")?;
    }
    Ok(())
}

/// # Errors
/// If ClickHouse refuses.
pub(crate) fn create_database(dir: &DataDir, ports: &Ports) -> Result<()> {
    let statement = format!("CREATE DATABASE IF NOT EXISTS {DATABASE}");
    http::clickhouse(&url(ports), ADMIN.name, &password(dir, ADMIN)?, &statement)
        .map(drop)
        .context("cannot create the database")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn every_user_has_its_hash_from_the_environment_and_no_password_stands_in_the_file() {
        let users = include_str!("../../assets/users.xml");
        for user in USERS {
            let expected = format!("<password_sha256_hex from_env=\"{}\"/>", user.sha256_variable);
            assert!(users.contains(&expected), "{}", user.name);
            assert!(users.contains(&format!("<{}>", user.name)));
        }
        assert!(!users.contains("<password>"));
        assert_eq!(users.matches("<no_password/>").count(), 1, "only libchdb's own session");
    }

    #[test]
    fn a_password_is_made_once_and_only_its_owner_can_read_it() {
        let root = std::env::temp_dir().join(format!("millrace-passwords-{}", std::process::id()));
        let dir = DataDir::open(&root).unwrap();
        let first = password(&dir, ADMIN).unwrap();
        assert_eq!(first.len(), 32);
        assert_eq!(password(&dir, ADMIN).unwrap(), first);
        assert_ne!(password(&dir, ANALYST).unwrap(), first);
        let mode = dir.password("admin").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::remove_dir_all(root).unwrap();
    }
}
