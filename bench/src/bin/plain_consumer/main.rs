//! `millrace-plain-consumer`: the peer that most teams run, as a good engineer writes it in an afternoon. rdkafka's
//! `StreamConsumer`, apache-avro's serde path straight into a struct, the clickhouse crate's `Row` inserts of 100,000
//! rows or one second, offsets committed after the insert. All settings that are not named are the libraries' defaults.
//!
//! What it does not do is what it is compared for: it drops no duplicates, enriches nothing, keeps no dead letters (a
//! record that it cannot read is counted and skipped), and doubles rows when it is killed between insert and commit.

#![allow(clippy::print_stderr, reason = "a command line talks to its user")]

mod event;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use clap::Parser;
use clickhouse::Client;
use clickhouse::insert::Insert;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::{ClientConfig, Message};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_id};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use event::{OrderEvent, OrderRow};

const MAX_ROWS: u64 = 100_000;
const MAX_AGE: Duration = Duration::from_secs(1);

/// Lands order events in ClickHouse, at least once, until SIGTERM
#[derive(Parser)]
#[command(name = "millrace-plain-consumer", version)]
struct Options {
    /// Kafka brokers, host:port
    #[arg(long)]
    brokers: String,
    /// Topic
    #[arg(long)]
    topic: String,
    /// Consumer group
    #[arg(long)]
    group: String,
    /// Schema registry
    #[arg(long)]
    registry: String,
    /// ClickHouse, HTTP address
    #[arg(long)]
    clickhouse: String,
    /// ClickHouse user
    #[arg(long)]
    user: String,
    /// File that holds the user's password
    #[arg(long)]
    password_file: PathBuf,
    /// Database
    #[arg(long)]
    database: String,
    /// Table
    #[arg(long)]
    table: String,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let password = std::fs::read_to_string(&options.password_file).context("read the password file")?;
    let clickhouse = Client::default()
        .with_url(&options.clickhouse)
        .with_user(&options.user)
        .with_password(password.trim_end())
        .with_database(&options.database)
        // With it the crate wants a field for every column without a default, and the enriched ones are not filled.
        .with_validation(false);
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .set("group.id", &options.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[&options.topic])?;

    let mut schemas = Schemas { registry: SrSettings::new(options.registry.clone()), readers: HashMap::new() };
    let mut batch = Batch { client: clickhouse, table: options.table, insert: None, rows: 0, due: Instant::now() };
    let (mut landed, mut skipped, mut uncommitted) = (0_u64, 0_u64, false);
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            message = consumer.recv() => {
                let message = message?;
                uncommitted = true;
                match schemas.decode(message.payload().unwrap_or_default()).await? {
                    Some(event) => batch.write(&event.row(message.partition(), message.offset())).await?,
                    None => skipped += 1,
                }
            }
            () = tokio::time::sleep_until(batch.due), if batch.insert.is_some() => {}
            _ = terminate.recv() => break,
        }
        if batch.is_due() {
            landed += batch.end().await?;
            consumer.commit_consumer_state(CommitMode::Async)?;
            uncommitted = false;
        }
    }
    landed += batch.end().await?;
    if uncommitted {
        consumer.commit_consumer_state(CommitMode::Sync)?;
    }
    eprintln!("{{\"rows\":{landed},\"skipped\":{skipped}}}");
    Ok(())
}

/// The insert under way, which streams to ClickHouse while it is filled.
struct Batch {
    client: Client,
    table: String,
    insert: Option<Insert<OrderRow<'static>>>,
    rows: u64,
    due: Instant,
}

impl Batch {
    async fn write(&mut self, row: &OrderRow<'_>) -> Result<()> {
        let insert = match &mut self.insert {
            Some(insert) => insert,
            none => {
                self.due = Instant::now() + MAX_AGE;
                none.insert(self.client.insert::<OrderRow<'static>>(&self.table).await?)
            }
        };
        insert.write(row).await?;
        self.rows += 1;
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.insert.is_some() && (self.rows >= MAX_ROWS || Instant::now() >= self.due)
    }

    async fn end(&mut self) -> Result<u64> {
        if let Some(insert) = self.insert.take() {
            insert.end().await.context("insert into ClickHouse")?;
        }
        Ok(std::mem::take(&mut self.rows))
    }
}

/// Readers by schema id; none for an id that the registry does not know.
struct Schemas {
    registry: SrSettings,
    readers: HashMap<u32, Option<GenericDatumReader<'static>>>,
}

impl Schemas {
    /// The event of a value in Confluent wire format, or none if it cannot be read.
    async fn decode(&mut self, value: &[u8]) -> Result<Option<OrderEvent>> {
        let [0, a, b, c, d, datum @ ..] = value else { return Ok(None) };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        let reader = match self.readers.get(&id) {
            Some(reader) => reader,
            None => {
                let reader = self.reader(id).await?;
                self.readers.entry(id).or_insert(reader)
            }
        };
        let mut rest = datum;
        let event = reader.as_ref().and_then(|reader| reader.read_deser(&mut rest).ok());
        Ok(event.filter(|_| rest.is_empty()))
    }

    async fn reader(&self, id: u32) -> Result<Option<GenericDatumReader<'static>>> {
        let registered = match get_schema_by_id(id, &self.registry).await {
            Ok(registered) => registered,
            Err(error) if error.retriable => return Err(error).context("ask the schema registry"),
            Err(_) => return Ok(None),
        };
        // A reader borrows its schema, and there are few: they live as long as the process.
        let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(&registered.schema)?));
        Ok(Some(GenericDatumReader::builder(schema).human_readable(false).build()?))
    }
}
