//! `millrace-publish`: order events as JSON lines from standard input to Kafka. It never changes an event, and never
//! stops at a bad line: it names it, goes on, and says so with its exit status.

#![allow(clippy::print_stderr, clippy::print_stdout, reason = "a command line talks to its user")]

use std::collections::VecDeque;
use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use millrace_producers::{
    Cause, Compression, DeliveryFuture, EventPublisher, PublisherConfig, Sasl, Secret, Security, Tls,
};
use millrace_schemas::OrderEvent;
use millrace_telemetry::lines::{Form, Lines, held};
use millrace_telemetry::traces::{Headers, Settings, Traces};
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Publishes order events, one JSON object per line of standard input, to Kafka in Confluent's Avro format.
///
/// Exit status: 0 every line was published; 1 some were not (each is named on standard error); 2 nothing was tried.
#[derive(Parser)]
#[command(name = "millrace-publish", version)]
struct Options {
    /// Kafka brokers, host:port, separated by commas
    #[arg(long, env = "MILLRACE_BOOTSTRAP_SERVERS", default_value = "localhost:9092")]
    bootstrap_servers: String,
    /// Schema registry
    #[arg(long, env = "MILLRACE_REGISTRY_URL", default_value = "http://localhost:8081")]
    registry: String,
    /// User for the registry; its password comes from MILLRACE_REGISTRY_PASSWORD
    #[arg(long)]
    registry_user: Option<String>,
    /// Topic
    #[arg(long, default_value = "orders")]
    topic: String,
    /// Connect to the brokers with TLS
    #[arg(long)]
    tls: bool,
    /// PEM file with the certificate authorities to trust
    #[arg(long, requires = "tls")]
    tls_ca: Option<std::path::PathBuf>,
    /// PEM file with the client's certificate, where brokers ask for one
    #[arg(long, requires = "tls", requires = "tls_key")]
    tls_certificate: Option<std::path::PathBuf>,
    /// PEM file with its key
    #[arg(long, requires = "tls_certificate")]
    tls_key: Option<std::path::PathBuf>,
    /// PEM file with the certificate authorities to trust for the registry
    #[arg(long)]
    registry_ca: Option<std::path::PathBuf>,
    /// SASL user; its password comes from MILLRACE_SASL_PASSWORD
    #[arg(long)]
    sasl_user: Option<String>,
    /// SASL mechanism
    #[arg(long, default_value = "SCRAM-SHA-512")]
    sasl_mechanism: String,
    /// Give an event up after so many seconds
    #[arg(long, default_value_t = 120)]
    delivery_timeout_seconds: u32,
    /// Do not compress batches
    #[arg(long)]
    no_compression: bool,
    /// OTLP receiver of traces (HTTP with protobuf), such as http://localhost:4318; each event is traced by its share. Headers
    /// of the requests come from MILLRACE_TRACES_HEADERS, `name: value` in each line
    #[arg(long, env = "MILLRACE_TRACES_ENDPOINT")]
    traces_endpoint: Option<String>,
    /// Share of the events that are traced, 0 to 1
    #[arg(long, default_value_t = 0.01)]
    traces_ratio: f64,
    /// Form of log lines on standard error; RUST_LOG says which are written
    #[arg(long, value_enum, default_value_t = LogForm::Auto)]
    log_format: LogForm,
    /// Print partition and offset of each event
    #[arg(long, short)]
    verbose: bool,
}

/// Form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogForm {
    /// Text on a terminal, JSON elsewhere
    Auto,
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

const SERVICE: &str = "millrace-publish";
/// A warning or error that repeats is written so often at most.
const REPEAT_INTERVAL_MS: u64 = 10_000;
/// Longest wait for the receiver of traces and its answers.
const TRACES_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let options = Options::parse();
    options.log_format.init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return not_started(&error),
    };
    runtime.block_on(run(&options))
}

async fn run(options: &Options) -> ExitCode {
    let traces = match options.traces() {
        Ok(traces) => traces,
        Err(error) => return not_started(&error),
    };
    let status = publish(options).await;
    if let Some(traces) = traces {
        traces.close(TRACES_TIMEOUT).await;
    }
    status
}

async fn publish(options: &Options) -> ExitCode {
    let publisher = match options.config() {
        Ok(config) => match EventPublisher::connect(config).await {
            Ok(publisher) => publisher,
            Err(error) => return not_started(&error),
        },
        Err(error) => return not_started(&error),
    };
    let mut tally = Tally { verbose: options.verbose, ..Tally::default() };
    let lines = std::io::stdin().lock().lines().zip(1_u64..);
    for (line, number) in lines {
        let event = match line {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => serde_json::from_str::<OrderEvent>(&line).map_err(|error| error.to_string()),
            // Not text, or standard input broke: both end with this line named.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(error.to_string()),
            Err(error) => {
                tally.bad(number, &format!("standard input cannot be read: {error}"));
                break;
            }
        };
        match event {
            Err(why) => tally.bad(number, &format!("not an order event: {why}")),
            Ok(event) => match publisher.send(&event).await {
                Ok(answer) => tally.sent(number, answer).await,
                Err(error) => {
                    tally.bad(number, &error.to_string());
                    if error.cause == Cause::Fatal {
                        break;
                    }
                }
            },
        }
    }
    tally.finish().await;
    if let Err(error) = publisher.close(Duration::from_secs(5)).await {
        eprintln!("millrace-publish: {error}");
        tally.failed += 1;
    }
    eprintln!("millrace-publish: {} published, {} not", tally.published, tally.failed);
    if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn not_started(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("millrace-publish: {error}");
    ExitCode::from(2)
}

impl LogForm {
    fn init(self) {
        let terminal = std::io::stderr().is_terminal();
        let form = match self {
            Self::Text => Form::Text,
            Self::Auto if terminal => Form::Text,
            Self::Auto | Self::Json => Form::Json,
        };
        let wanted = EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
        let lines = tracing_subscriber::fmt::layer()
            .event_format(Lines::new(form, SERVICE, REPEAT_INTERVAL_MS))
            .with_ansi(terminal && form == Form::Text)
            .with_writer(std::io::stderr)
            .with_filter(wanted.and(held(tracing::Level::TRACE)));
        tracing_subscriber::registry().with(lines).init();
    }
}

impl Options {
    fn traces(&self) -> Result<Option<Traces>, String> {
        let Some(endpoint) = &self.traces_endpoint else { return Ok(None) };
        let headers = std::env::var("MILLRACE_TRACES_HEADERS").unwrap_or_default();
        let header = |line: &str| line.split_once(':').map(|(name, value)| (name.trim().into(), value.trim().into()));
        let lines = headers.lines().filter(|line| !line.trim().is_empty());
        let headers = lines.map(header).collect::<Option<Vec<(String, String)>>>();
        let settings = Settings {
            endpoint: format!("{}/v1/traces", endpoint.trim_end_matches('/')),
            // The publisher chooses which events begin a trace.
            sample_ratio: 1.0,
            headers: Headers(headers.ok_or("MILLRACE_TRACES_HEADERS: expected `name: value` in each line")?),
            authorities: None,
            timeout: TRACES_TIMEOUT,
            service_name: SERVICE.into(),
            service_version: env!("CARGO_PKG_VERSION").into(),
        };
        let traces = Traces::start(settings, &tokio::runtime::Handle::current());
        traces.map(Some).map_err(|error| format!("{error:#}"))
    }

    fn config(&self) -> Result<PublisherConfig, String> {
        let mut config = PublisherConfig::new(&self.bootstrap_servers, &self.registry, &self.topic);
        config.client_id = "millrace-publish".into();
        config.trace_ratio = self.traces_ratio;
        config.delivery_timeout_ms = self.delivery_timeout_seconds.saturating_mul(1000);
        if self.no_compression {
            config.compression = Compression::None;
        }
        config.registry.username = self.registry_user.clone();
        config.registry.password = std::env::var("MILLRACE_REGISTRY_PASSWORD").ok().map(Secret::new);
        let sasl = match &self.sasl_user {
            None => None,
            Some(username) => {
                let password = std::env::var("MILLRACE_SASL_PASSWORD")
                    .map_err(|_| "--sasl-user needs the password in MILLRACE_SASL_PASSWORD".to_owned())?;
                Some(Sasl::new(&self.sasl_mechanism, username, password))
            }
        };
        let tls = Tls {
            ca_file: self.tls_ca.clone(),
            certificate_file: self.tls_certificate.clone(),
            key_file: self.tls_key.clone(),
            key_password: None,
        };
        config.registry.tls.ca_file = self.registry_ca.clone();
        config.security = match (sasl, self.tls) {
            (None, false) => Security::Plaintext,
            (None, true) => Security::Ssl { tls },
            (Some(sasl), false) => Security::SaslPlaintext { sasl },
            (Some(sasl), true) => Security::SaslSsl { sasl, tls },
        };
        Ok(config)
    }
}

/// Answers that are still awaited, oldest first, and the count of those that came.
#[derive(Default)]
struct Tally {
    waiting: VecDeque<(u64, DeliveryFuture)>,
    published: u64,
    failed: u64,
    verbose: bool,
}

impl Tally {
    /// As many answers as are kept before the oldest is waited for.
    const WINDOW: usize = 10_000;

    fn bad(&mut self, line: u64, why: &str) {
        eprintln!("line {line}: {why}");
        self.failed += 1;
    }

    async fn sent(&mut self, line: u64, answer: DeliveryFuture) {
        self.waiting.push_back((line, answer));
        if self.waiting.len() > Self::WINDOW {
            self.settle_oldest().await;
        }
    }

    async fn finish(&mut self) {
        while !self.waiting.is_empty() {
            self.settle_oldest().await;
        }
    }

    async fn settle_oldest(&mut self) {
        let Some((line, answer)) = self.waiting.pop_front() else {
            return;
        };
        match answer.await {
            Ok(delivered) => {
                self.published += 1;
                if self.verbose {
                    println!("line {line}: partition {}, offset {}", delivered.partition, delivered.offset);
                }
            }
            Err(error) => self.bad(line, &error.to_string()),
        }
    }
}
