//! The configuration file: TOML in, validated values out, every problem at once. It connects to nothing; besides the
//! file itself it reads only the environment variables and files that the configuration names for secrets.

mod admin;
mod connections;
mod kafka;
mod problem;
mod reader;
mod retry;
mod routes;
mod security;
mod shards;
#[cfg(test)]
mod tests;
mod topics;
mod traces;
mod units;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_pipeline::{decode::DecodeLimits, share::ShareLimit, spec::TopicSpec};
use toml::de::DeTable;

pub use millrace_identity::Secret;

pub(crate) use self::{
    admin::is_loopback,
    problem::{did_you_mean, nearest},
    units::{parse_duration, parse_size},
};
pub use self::{
    admin::{Admin, AdminTls, Jwt, Permission, SignatureAlgorithm, TokenType},
    kafka::{Kafka, SecurityProtocol},
    problem::{ConfigErrors, Position, Problem},
    retry::Retry,
    security::{PasswordMechanism, Sasl, Tls, TlsFiles, TokenSource},
    shards::Shard,
    traces::Traces,
};

use self::reader::{Context, Section};

/// The commented default that `millrace config` prints.
pub const DEFAULT: &str = include_str!("../../assets/millrace.toml");

/// A whole configuration, validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// How to reach the schema registry.
    pub registry: Registry,
    /// How to reach ClickHouse, and how to insert.
    pub clickhouse: ClickHouse,
    /// When something that failed is tried again.
    pub retry: Retry,
    /// The port for metrics and health.
    pub http: Http,
    /// The listener for status and commands, if there is one.
    pub admin: Option<Admin>,
    /// Log lines.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
    /// Leaving.
    pub shutdown: Shutdown,
    /// At least one; no two write the same table, or read the same records.
    pub topics: Vec<Topic>,
    /// What is allowed but should be known, such as a check of host names that is switched off; for the log.
    pub warnings: Vec<String>,
}

/// How to reach the schema registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Base URL of its Confluent-compatible API, without a slash at the end and without credentials.
    pub url: String,
    /// Who we are, besides a certificate.
    pub credentials: Option<Credentials>,
    /// Read only if the URL begins with https.
    pub tls: TlsFiles,
    /// Longest wait for one answer.
    pub request_timeout: Duration,
}

/// Who we are for the schema registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// User and password, by HTTP basic authentication.
    Password(String, Secret),
    /// A bearer token.
    Token(Secret),
}

/// How to reach ClickHouse, and how to insert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClickHouse {
    /// URL of the HTTP interface, without a slash at the end and without credentials; with shards that of the first replica
    /// of the first of them.
    pub url: String,
    /// The shards of a cluster, if they are named; none for one server.
    pub shards: Vec<Shard>,
    /// The cluster of the servers' own configuration that has the same shards; through its tables they are read together.
    pub cluster: Option<String>,
    /// Database of all tables; a plain identifier.
    pub database: String,
    /// User.
    pub user: String,
    /// Password, perhaps empty; without one the user is known by the client's certificate.
    pub password: Option<Secret>,
    /// Read only if the URL begins with https.
    pub tls: TlsFiles,
    /// Table of the claims; a plain identifier.
    pub claims_table: String,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for the answer to an insert; after it the outcome is unknown.
    pub insert_timeout: Duration,
    /// Longest wait for the answer to any other query.
    pub query_timeout: Duration,
    /// Inserts of one topic that may run at once.
    pub inserts_in_flight: usize,
    /// Of insert bodies.
    pub compression: Compression,
}

/// Compression of insert bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None: least work; right on a fast network.
    None,
    /// LZ4: less network for some work at both ends.
    Lz4,
}

/// The port for metrics and health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http {
    /// Address and port; port 0 takes any free one.
    pub listen: SocketAddr,
}

/// Log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Their form.
    pub format: LogFormat,
    /// The least important that are written.
    pub level: LogLevel,
    /// Warnings and errors that say the same of the same are written so often at most; always if 0.
    pub repeat_interval: Duration,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Importance of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// What may need somebody.
    Warn,
    /// What happens.
    Info,
    /// For finding a fault.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The names of all levels, as in the configuration.
    pub const NAMES: &[(&str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}

/// Leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// How long batches in flight may take to land after SIGTERM.
    pub drain_timeout: Duration,
    /// How long metrics and readiness are served after the last topic has stopped for a person to decide.
    pub stay_stopped: Duration,
}

/// One topic, its table, and the way between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// What the pure part is told.
    pub spec: TopicSpec,
    /// ClickHouse table; a plain identifier.
    pub table: String,
    /// Where events go that cannot be read.
    pub dead_letter_topic: String,
    /// How large a share of the events may go there before the topic is stopped.
    pub dead_letter_limit: ShareLimit,
    /// ClickHouse table that they go to as well; a plain identifier.
    pub dead_letter_table: Option<String>,
    /// The table's column that [`TopicSpec::id`] goes to; ids are read back from it.
    pub id_column: String,
    /// What an event may be and become; one beyond it goes to the dead letters.
    pub limits: DecodeLimits,
    /// Avro schema file to read with, instead of the latest version of subject `<topic>-value`.
    pub reader_schema: Option<PathBuf>,
    /// Where a partition starts that has no committed offset.
    pub start: StartOffset,
    /// What happens when the group's offset cannot be used.
    pub on_lost_position: LostPosition,
    /// Whether `run` makes the table if it is not there.
    pub auto_create: bool,
    /// How often the freshness of a row is measured by a SELECT; `None` for never.
    pub probe_interval: Option<Duration>,
}

impl Topic {
    /// What claims, metrics and log lines call it: the topic, and the table where several sections share the topic. No
    /// topic has a slash in its name.
    pub fn label(&self) -> String {
        match self.spec.route {
            None => self.spec.topic.clone(),
            Some(_) => format!("{}/{}", self.spec.topic, self.table),
        }
    }

    /// How it is read: sections that share a topic each read all of it, as a group each.
    pub fn kafka(&self, kafka: &Kafka) -> Kafka {
        let mut kafka = kafka.clone();
        if self.spec.route.is_some() {
            kafka.group_id = format!("{}.{}", kafka.group_id, self.table);
        }
        kafka
    }
}

/// What happens when the group's offset of a partition cannot be used: retention has passed it, the topic was made
/// anew, or it has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostPosition {
    /// The partition is read from its oldest event.
    Resume,
    /// The topic stops with an error, and commits nothing of the partition.
    Stop,
}

/// Where a partition starts that has no committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOffset {
    /// With the oldest event that Kafka still has.
    Earliest,
    /// With the events that come after the start.
    Latest,
}

/// What a configuration may refer to outside its own text: the process's, or a test's.
pub struct Outside<'a> {
    /// Directory that relative paths are relative to.
    pub directory: &'a Path,
    /// Reads an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file.
    pub file: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, or everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read(path)
            .map_err(|error| why_unreadable(path, &error))
            .and_then(|bytes| String::from_utf8(bytes).map_err(|error| why_not_text(error.utf8_error().valid_up_to())))
            .map_err(|message| ConfigErrors {
                file: path.to_owned(),
                problems: vec![Problem { at: None, key: String::new(), message }],
            })?;
        let outside = Outside {
            directory: path.parent().unwrap_or(Path::new("")),
            variable: &|name| std::env::var(name).ok(),
            file: &|path| std::fs::read_to_string(path),
        };
        let (config, _) = parse(&text, &outside);
        config.map_err(|problems| ConfigErrors { file: path.to_owned(), problems })
    }
}

/// Reads a text; also tells every key that it could have had.
///
/// # Errors
/// Everything that is wrong in it.
pub fn parse(text: &str, outside: &Outside<'_>) -> (Result<Config, Vec<Problem>>, BTreeSet<String>) {
    let context = Context::new(text);
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    for error in &syntax_errors {
        context.report(error.span(), "", format!("not valid TOML: {}", error.message()));
    }
    // What follows a broken line is guesswork, so nothing else is said until the syntax is right.
    let config = if syntax_errors.is_empty() { read(Section::root(&context, table.get_ref()), outside) } else { None };
    let (problems, known) = context.into_findings();
    match config {
        Some(config) if problems.is_empty() => (Ok(config), known),
        _ => (Err(problems), known),
    }
}

fn read(mut root: Section<'_, '_>, outside: &Outside<'_>) -> Option<Config> {
    let mut warnings = Vec::new();
    let kafka = kafka::read(root.table("kafka"), outside, &mut warnings);
    let registry = connections::registry(root.table("registry"), outside, &mut warnings);
    let clickhouse = connections::clickhouse(root.table("clickhouse"), outside, &mut warnings);
    let retry = retry::read(root.table("retry"));
    let http = connections::http(root.table("http"));
    let admin = admin::read(root.table("admin"), outside, &mut warnings);
    let log = connections::log(root.table("log"));
    let traces = traces::read(root.table("traces"), outside);
    let shutdown = connections::shutdown(root.table("shutdown"));
    let topics = topics::read(&mut root, outside);
    root.finish();
    Some(Config {
        kafka: kafka?,
        registry: registry?,
        clickhouse: clickhouse?,
        retry: retry?,
        http: http?,
        admin: admin?,
        log: log?,
        traces: traces?,
        shutdown: shutdown?,
        topics: topics?,
        warnings,
    })
}

/// The printed default, changed by a test.
#[cfg(test)]
pub(crate) fn example(change: impl FnOnce(String) -> String) -> Config {
    let text = change(DEFAULT.to_owned());
    let outside =
        Outside { directory: Path::new(""), variable: &|_| None, file: &|_| Ok("password of a test".to_owned()) };
    parse(&text, &outside).0.unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn why_unreadable(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "no such file; make one with `millrace config > FILE`, edit it and name it with --config".to_owned()
        }
        _ if path.is_dir() => "is a directory; name the file in it".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "this process may not read it; give its user the right to (or run as another user)".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}

fn why_not_text(valid_bytes: usize) -> String {
    format!("not UTF-8 text from byte {valid_bytes} on; is this the configuration file? Save it as UTF-8")
}
