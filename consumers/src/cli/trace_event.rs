//! The command line of `millrace trace-event`.

use std::time::Duration;

use clap::Args;

use super::{ConfigFile, Failure, duration, print, runtime, section};
use crate::{
    audit::{Place, progress::Progress},
    config::Config,
    trace_event::{Wanted, trace},
};

#[derive(Args)]
pub(super) struct TraceEvent {
    #[command(flatten)]
    config: ConfigFile,
    /// Its topic; needed if there are several
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// The section of the topic that writes this table, where several share a topic
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Kafka partition of the event
    #[arg(long, value_name = "N", requires = "offset", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// Its offset
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Its id, instead; without a row of this id the whole topic is read
    #[arg(long, value_name = "UUID", conflicts_with_all = ["partition", "offset"], required_unless_present = "partition")]
    id: Option<uuid::Uuid>,
    /// Longest silence of a server, with its unit
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// One line of JSON instead of text
    #[arg(long)]
    json: bool,
}

impl TraceEvent {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = Config::load(&self.config.path)?;
        let topic = section(&config, self.topic.as_deref(), self.table.as_deref(), &self.config.path)?;
        let wanted = match (self.id, self.partition, self.offset) {
            (Some(id), ..) => Wanted::Id(id.as_u128()),
            (None, Some(partition), Some(offset)) => Wanted::At(Place { partition, offset }),
            _ => return Err(Failure::Usage("which event? Name --partition and --offset, or --id".to_owned())),
        };
        let runtime = runtime()?;
        let progress = Progress::default();
        let telling = runtime.spawn({
            let progress = progress.clone();
            async move { progress.tell().await }
        });
        let report = trace(&config, topic, wanted, self.timeout, &progress, runtime.handle());
        // What it told last is wiped before anything else is said.
        telling.abort();
        _ = runtime.block_on(telling);
        runtime.shutdown_background();
        let report = report?;
        print(&if self.json { format!("{}\n", report.to_json()) } else { report.to_string() })?;
        if report.verdict().0.is_problem() { Err(Failure::Told) } else { Ok(()) }
    }
}
