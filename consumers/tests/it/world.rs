//! A database, topics and subjects of a test's own on the running stack, a configuration for them, and the binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use clickhouse::Client;
use millrace_schemas::{CUSTOMER_V1, ORDER_EVENT_V1, PRODUCT_V1};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use serde::Deserialize;

/// An address on which nothing listens.
pub(crate) const NOBODY: &str = "127.0.0.1:1";

#[derive(Deserialize)]
pub(crate) struct Stack {
    pub(crate) kafka: String,
    pub(crate) registry: String,
    pub(crate) clickhouse: String,
    pub(crate) admin: User,
    pub(crate) pipeline: User,
    pub(crate) analyst: User,
    pub(crate) secured: crate::secured::Doors,
}

#[derive(Deserialize)]
pub(crate) struct User {
    pub(crate) user: String,
    pub(crate) password_file: PathBuf,
}

pub(crate) struct World {
    pub(crate) stack: Stack,
    pub(crate) database: String,
    pub(crate) client: Client,
    pub(crate) directory: PathBuf,
    /// The default configuration with this world's addresses and names.
    pub(crate) config: String,
}

/// What a run of the binary came to.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl World {
    pub(crate) async fn new() -> Self {
        let file = std::env::var("MILLRACE_STACK").expect(
            "these tests need a running stack: `cargo xtask stack up`, then set MILLRACE_STACK to its stack.json \
             (`cargo xtask test` does both)",
        );
        let stack: Stack = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let name = format!("it_consumers_{}", uuid::Uuid::new_v4().simple());
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory).unwrap();
        let client = Client::default()
            .with_url(&stack.clickhouse)
            .with_user(&stack.admin.user)
            .with_password(fs::read_to_string(&stack.admin.password_file).unwrap().trim_end());
        make_topics(&stack, &name).await;
        for (topic, schema) in [("orders", ORDER_EVENT_V1), ("customers", CUSTOMER_V1), ("products", PRODUCT_V1)] {
            register(&stack.registry, &format!("{name}.{topic}-value"), schema).await;
        }
        let config = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/millrace.toml"))
            .unwrap()
            // A stop is known by the end of the process.
            .replace("#stay_stopped = \"5m\"", "stay_stopped = \"0s\"")
            .replace("localhost:9092", &stack.kafka)
            .replace("http://localhost:8081", &stack.registry)
            .replace("http://localhost:8123", &stack.clickhouse)
            .replace("database = \"millrace\"", &format!("database = \"{name}\""))
            .replace("user = \"millrace\"", &format!("user = \"{}\"", stack.admin.user))
            .replace("/run/secrets/clickhouse", &stack.admin.password_file.to_string_lossy())
            .replace("name = \"orders\"", &format!("name = \"{name}.orders\""))
            .replace("\"orders.dead\"", &format!("\"{name}.dead\""))
            .replace("topic = \"customers\"", &format!("topic = \"{name}.customers\""))
            .replace("topic = \"products\"", &format!("topic = \"{name}.products\""));
        Self { stack, database: name, client, directory, config }
    }

    /// With the shipped tables.
    pub(crate) async fn migrated() -> Self {
        let world = Self::new().await;
        let ran = world.millrace("migrate", &["--apply"], &world.config);
        assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
        world
    }

    /// Runs `millrace <command> --config <a file with this text>`.
    pub(crate) fn millrace(&self, command: &str, arguments: &[&str], config: &str) -> Ran {
        millrace(&[&[command, "--config", &self.write(config)], arguments].concat())
    }

    /// Writes a configuration, and returns the file's name. A process that was started just before reads the old one or the
    /// new one, never half of it.
    pub(crate) fn write(&self, config: &str) -> String {
        let file = self.directory.join("millrace.toml");
        let draft = self.directory.join("millrace.toml.draft");
        fs::write(&draft, config).unwrap();
        fs::rename(&draft, &file).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// `millrace check`, with a wait of 3 s for each answer.
    pub(crate) fn check(&self, config: &str) -> Ran {
        self.millrace("check", &["--timeout", "3s"], config)
    }

    /// Runs a statement as administrator; `{db}` stands for this world's database.
    pub(crate) async fn sql(&self, statement: &str) {
        self.client.query_raw(&statement.replace("{db}", &self.database)).execute().await.unwrap();
    }

    pub(crate) async fn clean_up(self) {
        self.sql("DROP DATABASE IF EXISTS {db}").await;
        let admin = admin(&self.stack);
        let topics = ["orders", "dead", "customers", "products"].map(|topic| format!("{}.{topic}", self.database));
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        admin.delete_topics(&topics, &AdminOptions::new()).await.unwrap();
        fs::remove_dir_all(&self.directory).unwrap();
    }
}

pub(crate) fn millrace(arguments: &[&str]) -> Ran {
    let begun = Instant::now();
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_millrace")).args(arguments).output().unwrap();
    let ran = Ran {
        status: status.code().expect("millrace ends by itself"),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
        took: begun.elapsed(),
    };
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    ran
}

impl Ran {
    /// The lines of problems, without their marks.
    pub(crate) fn problems(&self) -> Vec<&str> {
        self.stdout.lines().filter_map(|line| line.strip_prefix("✗ ")).collect()
    }

    pub(crate) fn tells(&self, part: &str, words: &[&str]) {
        let told = |line: &&str| line.starts_with(part) && words.iter().all(|word| line.contains(word));
        assert!(
            self.problems().iter().any(told),
            "no problem of {part} with {words:?} in\n{}{}",
            self.stdout,
            self.stderr
        );
    }
}

fn admin(stack: &Stack) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &stack.kafka).create().unwrap()
}

async fn make_topics(stack: &Stack, name: &str) {
    let names = ["orders", "dead", "customers", "products"].map(|topic| format!("{name}.{topic}"));
    let topics = names.iter().map(|name| {
        let topic = NewTopic::new(name, 1, TopicReplication::Fixed(1));
        let compacted = name.ends_with("customers") || name.ends_with("products");
        if compacted { topic.set("cleanup.policy", "compact") } else { topic }
    });
    let topics: Vec<NewTopic<'_>> = topics.collect();
    for result in admin(stack).create_topics(&topics, &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

/// The id that the registry gives the schema.
pub(crate) async fn register(registry: &str, subject: &str, schema: &str) -> u32 {
    register_with(registry, subject, schema, &serde_json::json!([])).await
}

/// As [`register`], for a schema with references to others.
pub(crate) async fn register_with(registry: &str, subject: &str, schema: &str, references: &serde_json::Value) -> u32 {
    #[derive(Deserialize)]
    struct Registered {
        id: u32,
    }
    let answer = reqwest::Client::new()
        .post(format!("{registry}/subjects/{subject}/versions"))
        .header("content-type", "application/vnd.schemaregistry.v1+json")
        .body(serde_json::json!({ "schema": schema, "references": references }).to_string())
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{subject}: {}", answer.status());
    answer.json::<Registered>().await.unwrap().id
}
