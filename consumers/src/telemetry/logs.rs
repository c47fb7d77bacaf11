//! Sets up log lines: text for people, JSON for machines, on stderr, as [`millrace_telemetry::lines`] says. Secrets never
//! reach it, because the libraries that see them (HTTP, TLS) are held at warnings whatever the level.

use std::{
    io::{self, IsTerminal},
    sync::{Mutex, OnceLock, PoisonError},
};

use anyhow::{Context, Result};
use millrace_telemetry::lines::{Form, Lines, held};
use tracing::{Level, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    fmt::MakeWriter,
    layer::SubscriberExt,
    reload::{self, Handle},
};

use super::recent::Recent;
use crate::config::{Log, LogFormat, LogLevel};

/// Commands and who gave them: written whatever the level.
pub const AUDIT: &str = "millrace::audit";

/// The filter of this process's log lines, and its level.
static LEVEL: OnceLock<(Handle<Targets, Registry>, Mutex<LogLevel>)> = OnceLock::new();

/// Sends the log lines of this process, called `service` in them, to stderr, once.
///
/// # Errors
/// Somebody has set up log lines before.
pub fn init(log: &Log, service: &str) -> Result<()> {
    let (subscriber, filter) = subscriber(log, service, io::stderr().is_terminal(), io::stderr);
    tracing::subscriber::set_global_default(subscriber).context("set up log lines")?;
    // Who has set the subscriber is the first here too.
    _ = LEVEL.set((filter, Mutex::new(log.level)));
    Ok(())
}

/// The least important log lines that are written.
pub fn level() -> Option<LogLevel> {
    LEVEL.get().map(|(_, level)| *level.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Writes log lines from this importance on; what it was before.
///
/// # Errors
/// Log lines were never set up.
pub fn set_level(to: LogLevel) -> Result<LogLevel> {
    let (filter, level) = LEVEL.get().context("log lines were never set up")?;
    let mut level = level.lock().unwrap_or_else(PoisonError::into_inner);
    filter.reload(targets(to)).context("set the log level")?;
    Ok(std::mem::replace(&mut *level, to))
}

fn targets(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    held(level).with_target(AUDIT, level.max(Level::INFO))
}

fn subscriber<W>(
    log: &Log,
    service: &str,
    terminal: bool,
    writer: W,
) -> (impl Subscriber + Send + Sync + use<W>, Handle<Targets, Registry>)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (targets, filter) = reload::Layer::new(targets(log.level));
    let form = match log.format {
        LogFormat::Json => Form::Json,
        LogFormat::Text => Form::Text,
        LogFormat::Auto if terminal => Form::Text,
        LogFormat::Auto => Form::Json,
    };
    let repeat_interval_ms = u64::try_from(log.repeat_interval.as_millis()).unwrap_or(u64::MAX);
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines::new(form, service, repeat_interval_ms))
        .with_ansi(terminal && form == Form::Text)
        .with_writer(writer)
        .with_filter(targets);
    (tracing_subscriber::registry().with(lines).with(Recent.with_filter(LevelFilter::WARN)), filter)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

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
        let log = Log { format, level, repeat_interval: Duration::ZERO };
        let (subscriber, _filter) = subscriber(&log, "millrace", false, move || writer.clone());
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
        assert_eq!(line["service_name"], "millrace");
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
    fn a_level_can_be_changed_while_libraries_stay_at_warnings_and_commands_are_always_told() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = Log { format: LogFormat::Json, level: LogLevel::Error, repeat_interval: Duration::ZERO };
        let (subscriber, filter) = subscriber(&log, "millrace", false, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            for level in [LogLevel::Error, LogLevel::Debug, LogLevel::Warn] {
                filter.reload(targets(level)).unwrap();
                tracing::debug!("ours at {level:?}");
                tracing::debug!(target: "reqwest::connect", "hunter2");
                tracing::info!(target: AUDIT, "command at {level:?}");
            }
        });
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let message =
            |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].as_str().unwrap().to_owned();
        let said: Vec<String> = lines.lines().map(message).collect();
        assert_eq!(said, ["command at Error", "ours at Debug", "command at Debug", "command at Warn"], "{lines}");
    }

    #[test]
    fn text_off_a_terminal_has_no_colours() {
        let line = written(LogFormat::Text, LogLevel::Info, || tracing::info!("plain"));
        assert!(!line.contains('\u{1b}') && line.trim_end().ends_with("plain"), "{line:?}");
    }
}
