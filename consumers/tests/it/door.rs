//! A `millrace run` whose servers are all away, so that nothing but its admin API does anything.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::{
    issuer::{AUDIENCE, Issuer},
    world::{NOBODY, millrace},
};

/// A running process, killed when the test ends.
pub(crate) struct Door {
    pub(crate) port: u16,
    child: Child,
    directory: PathBuf,
    client: Client,
}

/// Its configuration, `admin` being the end of it.
pub(crate) fn config(admin: &str) -> String {
    format!(
        r#"
[kafka]
bootstrap_servers = "{NOBODY}"
[registry]
url = "http://{NOBODY}"
[clickhouse]
url = "http://{NOBODY}"
database = "millrace"
user = "millrace"
password = ""
[http]
listen = "127.0.0.1:0"
[[topics]]
name = "orders"
table = "orders"
dead_letter_topic = "orders.dead"
id = "event_id"
[topics.columns]
event_id = "event_id"
{admin}
"#
    )
}

/// The sections for tokens of `issuer`, with the roles `viewer` and `operator`.
pub(crate) fn jwt(issuer: &Issuer) -> String {
    format!(
        r#"
[admin.jwt]
issuer = "{}"
audience = "{AUDIENCE}"
leeway = "5s"
[admin.permissions]
status_read = ["viewer", "operator"]
queries_read = ["analyst"]
topics_control = ["operator"]
dead_letters_replay = ["operator"]
"#,
        issuer.url
    )
}

impl Door {
    /// Starts it; `sections` come after the keys of `[admin]`.
    pub(crate) async fn open(keys: &str, sections: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("it_door_{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&directory).unwrap();
        let file = directory.join("millrace.toml");
        fs::write(&file, config(&format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n{keys}\n{sections}"))).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(["run", "--config", file.to_str().unwrap()]);
        let log = File::create(directory.join("log")).unwrap();
        let child = command.stderr(Stdio::from(log)).spawn().unwrap();
        let door = Self { port, child, directory, client: Client::new() };
        door.until_logged("the admin API is served").await;
        door
    }

    pub(crate) async fn until_logged(&self, text: &str) {
        self.until(|log| log.contains(text), async || tokio::time::sleep(Duration::from_millis(10)).await).await;
    }

    /// Does something over and over until the log is as it should be.
    pub(crate) async fn until(&self, is: impl Fn(&str) -> bool, act: impl AsyncFn()) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is(&self.log()) {
            assert!(Instant::now() < deadline, "{}", self.log());
            act().await;
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// What `millrace check` says of the admin API, by the process's own configuration.
    pub(crate) async fn check(&self) -> String {
        let file = self.directory.join("millrace.toml");
        // The issuer answers on this thread meanwhile.
        let run = move || millrace(&["check", "--timeout", "500ms", "--config", file.to_str().unwrap()]);
        let ran = tokio::task::spawn_blocking(run).await.unwrap();
        ran.stdout.lines().filter(|line| line.contains("admin")).collect()
    }

    /// The lines of commands.
    pub(crate) fn audit(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["target"] == "millrace::audit").collect()
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://127.0.0.1:{}{path}", self.port))
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        _ = fs::remove_dir_all(&self.directory);
    }
}
