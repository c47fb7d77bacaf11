//! A second ClickHouse beside the stack's: the same program, users and passwords, with data and ports of its own.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clickhouse::Client;
use serde::Deserialize;

use crate::world::World;

const SOON: Duration = Duration::from_secs(60);

/// A server that is killed when the test ends.
pub(crate) struct Second {
    pub(crate) url: String,
    pub(crate) client: Client,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    running: Option<Child>,
}

/// A port on which nothing listens now.
pub(crate) fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

#[derive(Deserialize)]
struct Record {
    pid: u32,
}

impl Second {
    pub(crate) async fn start(world: &World) -> Self {
        Self::start_as(world, "second-clickhouse", &free_port(), "").await
    }

    /// Under a name, with a port for the native protocol, and with more in its configuration.
    pub(crate) async fn start_as(world: &World, name: &str, tcp: &str, more: &str) -> Self {
        let stack = PathBuf::from(std::env::var("MILLRACE_STACK").unwrap());
        let record = fs::read_to_string(stack.parent().unwrap().join("run/clickhouse.json")).unwrap();
        let Record { pid } = serde_json::from_str(&record).unwrap();
        let of_process = |what: &str| {
            let text = fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap();
            text.split_terminator('\0').map(str::to_owned).collect::<Vec<String>>()
        };
        let data = world.directory.join(name);
        let http = free_port();
        let mut arguments = of_process("cmdline");
        // The program may have been built anew meanwhile, so it is not named by its path.
        arguments[0] = format!("/proc/{pid}/exe");
        let place = |arguments: &[String], name: &str| arguments.iter().position(|one| one == name).unwrap() + 1;
        for (name, value) in [("--data", data.to_str().unwrap()), ("--http-port", &http), ("--tcp-port", tcp)] {
            let at = place(&arguments, name);
            arguments[at] = value.to_owned();
        }
        if !more.is_empty() {
            let at = place(&arguments, "--config");
            let config = fs::read_to_string(&arguments[at]).unwrap();
            let file = world.directory.join(format!("{name}.xml"));
            fs::write(&file, config.replace("</clickhouse>", &format!("{more}\n</clickhouse>"))).unwrap();
            arguments[at] = file.to_str().unwrap().to_owned();
        }
        let environment = of_process("environ");
        let environment = environment.iter().filter_map(|pair| pair.split_once('='));
        let url = format!("http://127.0.0.1:{http}");
        let mut second = Self {
            client: world.client.clone().with_url(&url),
            url,
            arguments,
            environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            running: None,
        };
        second.up().await;
        second
    }

    /// Starts it, or starts it again with the data that it had.
    pub(crate) async fn up(&mut self) {
        let mut command = Command::new(&self.arguments[0]);
        command.args(&self.arguments[1..]).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(command.spawn().unwrap());
        let deadline = Instant::now() + SOON;
        while self.client.query("SELECT 1").fetch_one::<u8>().await.is_err() {
            assert!(Instant::now() < deadline, "the second ClickHouse does not answer at {}", self.url);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// SIGKILL to its supervisor, with which the server dies.
    pub(crate) async fn kill(&mut self) {
        self.killed();
        let deadline = Instant::now() + SOON;
        while self.client.query("SELECT 1").fetch_one::<u8>().await.is_ok() {
            assert!(Instant::now() < deadline, "the second ClickHouse still answers at {}", self.url);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn killed(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.killed();
    }
}
