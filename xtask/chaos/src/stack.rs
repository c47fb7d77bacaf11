//! The running stack, its parts as an administrator asks them, and the programs under test. It starts nothing.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

/// A running stack, as its stack.json tells.
#[derive(Clone, Debug, Deserialize)]
pub struct Stack {
    /// Bootstrap server.
    pub kafka: String,
    /// The broker's second door, which tells clients to come to `kafka_proxy`.
    pub kafka_proxied: String,
    /// Where nobody listens, so that a way to `kafka_proxied` can.
    pub kafka_proxy: String,
    /// URL.
    pub registry: String,
    /// URL; of several servers, the first.
    pub clickhouse: String,
    /// URLs of all servers of ClickHouse, each of which has the rows of some partitions; empty if there is one.
    #[serde(default)]
    pub clickhouse_servers: Vec<String>,
    /// Folder in which a table of ClickHouse may have a disk of its own.
    pub clickhouse_disks: PathBuf,
    /// May do everything in ClickHouse.
    pub admin: User,
    /// May do what the pipeline needs.
    pub pipeline: User,
}

/// A user of ClickHouse.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Name.
    pub user: String,
    /// Holds the password.
    pub password_file: PathBuf,
}

impl User {
    fn password(&self) -> String {
        fs::read_to_string(&self.password_file).unwrap().trim_end().to_owned()
    }
}

impl Stack {
    /// The stack that `MILLRACE_STACK` names, and its file as it is.
    pub fn running() -> (Self, Value) {
        let file = env::var("MILLRACE_STACK").expect(
            "these tests need a running stack: `cargo xtask stack up`, then set MILLRACE_STACK to its stack.json \
             (`cargo xtask test` does both)",
        );
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("read MILLRACE_STACK={file}: {error}"));
        let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("read {file}: {error}"));
        (serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("read {file}: {error}")), json)
    }

    /// Each server of ClickHouse with the other parts.
    pub fn servers(&self) -> Vec<Self> {
        if self.clickhouse_servers.is_empty() {
            return vec![self.clone()];
        }
        let one = |url: &String| Self { clickhouse: url.clone(), clickhouse_servers: Vec::new(), ..self.clone() };
        self.clickhouse_servers.iter().map(one).collect()
    }

    /// What ClickHouse answers the administrator, as TabSeparated.
    pub fn sql(&self, statement: &str) -> String {
        self.ask(&self.admin, statement).unwrap_or_else(|error| panic!("{statement}\n{error}"))
    }

    /// A number that ClickHouse answers the administrator.
    pub fn count(&self, statement: &str) -> u64 {
        let answer = self.sql(statement);
        answer.parse().unwrap_or_else(|_| panic!("{statement}\nanswers {answer:?}"))
    }

    /// What ClickHouse answers a user, as TabSeparated; its own words if it refuses.
    pub fn ask(&self, user: &User, statement: &str) -> Result<String, String> {
        let mut response = agent()
            .post(&self.clickhouse)
            .header("X-ClickHouse-User", &user.user)
            .header("X-ClickHouse-Key", user.password())
            .send(statement)
            .map_err(|error| error.to_string())?;
        let body = response.body_mut().read_to_string().unwrap().trim_end().to_owned();
        if response.status() == 200 { Ok(body) } else { Err(body) }
    }

    /// Registers a schema; its id.
    pub fn register(&self, subject: &str, schema: &Value) -> u32 {
        let body = serde_json::json!({ "schema": schema.to_string() }).to_string();
        let request = agent()
            .post(format!("{}/subjects/{subject}/versions", self.registry))
            .header("Content-Type", "application/vnd.schemaregistry.v1+json");
        let answer = request.send(body).unwrap().body_mut().read_to_string().unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        u32::try_from(answer["id"].as_u64().unwrap_or_else(|| panic!("{subject}: {answer}"))).unwrap()
    }

    /// The latest schema of a subject.
    pub fn latest_schema(&self, subject: &str) -> Value {
        let (status, body) = get(&format!("{}/subjects/{subject}/versions/latest", self.registry)).unwrap();
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        serde_json::from_str(answer["schema"].as_str().unwrap()).unwrap()
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(20)));
    config.http_status_as_error(false).proxy(None).build().into()
}

/// Status and body of a GET; `None` without an answer.
pub fn get(url: &str) -> Option<(u16, String)> {
    let mut response = agent().get(url).call().ok()?;
    let body = response.body_mut().read_to_string().ok()?;
    Some((response.status().as_u16(), body))
}

/// A built program.
pub fn program(name: &str) -> PathBuf {
    let folder = env::var_os("MILLRACE_BIN").map_or_else(beside_this_test, PathBuf::from);
    let program = folder.join(name);
    assert!(
        program.is_file(),
        "{} is not there: `cargo build --release -p millrace-consumers -p millrace-bench`, or set MILLRACE_BIN",
        program.display()
    );
    program
}

/// A test is built into `<target>/<profile>/deps`.
fn beside_this_test() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(2).map(Path::to_path_buf).unwrap()
}

/// Asks again and again until it is so.
pub fn until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < patience, "waited {patience:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(30));
    }
}
