//! Sets up log lines: text for people, JSON for machines, on stderr. Secrets never reach it, because the libraries that
//! see them (HTTP, TLS) are held at warnings whatever the level.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
};

use crate::config::{Log, LogFormat, LogLevel};

/// Libraries whose finer lines show headers and URLs of requests, credentials among them.
const HELD_AT_WARNINGS: &[&str] = &["clickhouse", "hyper", "hyper_util", "reqwest", "native_tls", "h2"];

/// Sends this process's log lines to stderr, once.
///
/// # Errors
/// Somebody has set up log lines before.
pub fn init(log: &Log) -> Result<()> {
    let subscriber = subscriber(log, io::stderr().is_terminal(), io::stderr);
    tracing::subscriber::set_global_default(subscriber).context("set up log lines")
}

fn subscriber<W>(log: &Log, terminal: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = match log.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let held = LevelFilter::from_level(level.min(Level::WARN));
    let targets = HELD_AT_WARNINGS
        .iter()
        .fold(Targets::new().with_default(level), |targets, library| targets.with_target(*library, held));
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
        Box::new(lines.json().flatten_event(true).with_span_list(false).with_filter(targets))
    } else {
        Box::new(lines.with_ansi(terminal).with_filter(targets))
    };
    tracing_subscriber::registry().with(lines)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, level: LogLevel, write: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = subscriber(&Log { format, level }, false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, write);
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_json_line_has_its_time_level_target_and_fields() {
        let line = written(LogFormat::Auto, LogLevel::Info, || {
            tracing::info!(topic = "orders", rows = 3, "batch landed");
            tracing::debug!("not at this level");
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["level"], &line["message"]), (&"INFO".into(), &"batch landed".into()));
        assert_eq!((&line["topic"], &line["rows"]), (&"orders".into(), &3.into()));
        assert!(line["timestamp"].is_string() && line["target"].as_str().unwrap().contains("logs"));
    }

    #[test]
    fn libraries_that_see_credentials_stay_at_warnings() {
        let lines = written(LogFormat::Text, LogLevel::Trace, || {
            tracing::trace!(target: "hyper_util::client", "x-clickhouse-key: hunter2");
            tracing::warn!(target: "hyper_util::client", "broken pipe");
            tracing::trace!("ours");
        });
        assert!(!lines.contains("hunter2") && lines.contains("broken pipe") && lines.contains("ours"), "{lines}");
    }

    #[test]
    fn text_off_a_terminal_has_no_colours() {
        let line = written(LogFormat::Text, LogLevel::Info, || tracing::info!("plain"));
        assert!(!line.contains('\u{1b}') && line.trim_end().ends_with("plain"), "{line:?}");
    }
}
