//! Remembers the last warnings and errors of each topic for the status, repeats counted. They are the log lines that were
//! written, so they hold no more than those.

use std::{
    collections::VecDeque,
    fmt::{self, Write},
    sync::{Mutex, PoisonError},
};

use serde::Serialize;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::time::{format_time, now_ms};

/// Lines remembered, over all topics.
const MOST: usize = 128;
/// Lines told of one topic.
const TOLD: usize = 20;
/// A line is cut here, in bytes.
const LONGEST: usize = 2048;

static LINES: Mutex<VecDeque<Remembered>> = Mutex::new(VecDeque::new());

/// A warning or an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When it came last, as RFC 3339.
    pub at: String,
    /// `WARN` or `ERROR`.
    pub level: &'static str,
    /// Its text and fields.
    pub message: String,
    /// How often it came besides.
    pub repeated: u64,
}

struct Remembered {
    /// `None` for what concerns the whole process.
    topic: Option<String>,
    line: Line,
}

/// The last lines about this topic or about the whole process, the latest first.
pub fn lines(topic: &str) -> Vec<Line> {
    let lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let about = |one: &&Remembered| one.topic.as_deref().is_none_or(|of| of == topic);
    lines.iter().rev().filter(about).take(TOLD).map(|one| one.line.clone()).collect()
}

/// Takes lines in; it belongs behind a filter for warnings and errors.
pub(super) struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if !event.metadata().target().starts_with("millrace_") {
            return;
        }
        let level = if *event.metadata().level() == Level::ERROR { "ERROR" } else { "WARN" };
        let mut said = Said::default();
        event.record(&mut said);
        let Said { topic, mut message, fields } = said;
        message.push_str(&fields);
        if message.len() > LONGEST {
            let end = (0..=LONGEST).rev().find(|end| message.is_char_boundary(*end)).unwrap_or(0);
            message.truncate(end);
            message.push('…');
        }
        remember(topic, Line { at: format_time(now_ms()), level, message, repeated: 0 });
    }
}

fn remember(topic: Option<String>, mut line: Line) {
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let same =
        |one: &Remembered| one.topic == topic && one.line.level == line.level && one.line.message == line.message;
    if let Some(before) = lines.iter().position(same).and_then(|at| lines.remove(at)) {
        line.repeated = before.line.repeated + 1;
    }
    if lines.len() >= MOST {
        lines.pop_front();
    }
    lines.push_back(Remembered { topic, line });
}

#[derive(Default)]
struct Said {
    topic: Option<String>,
    message: String,
    fields: String,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "topic" => self.topic = Some(value.to_owned()),
            _ => self.record_debug(field, &format_args!("{value}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A text always takes what is written to it.
        _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            // Numbers that differ each time would make each line another one.
            "attempt" | "retry_in_ms" => Ok(()),
            name => write!(self.fields, ", {name}: {value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt};

    use super::*;

    #[test]
    fn a_line_is_told_of_its_topic_once_with_its_repeats() {
        let subscriber = tracing_subscriber::registry().with(Recent.with_filter(LevelFilter::WARN));
        tracing::subscriber::with_default(subscriber, || {
            for attempt in 1..=3 {
                tracing::warn!(topic = "recent", attempt, error = "connection refused", "an insert failed");
            }
            tracing::error!(topic = "recent-other", "stopped");
            tracing::info!(topic = "recent", "not worth it");
            tracing::warn!(target: "rdkafka", topic = "recent", "of a library");
            tracing::error!(topic = "recent", "{}", "ä".repeat(2000));
        });
        let told = lines("recent");
        let [long, failed] = &told[..] else { panic!("{told:#?}") };
        assert!(long.message.len() < LONGEST + 8 && long.message.ends_with('…'));
        assert_eq!(
            (failed.level, &*failed.message, failed.repeated),
            ("WARN", "an insert failed, error: connection refused", 2)
        );
    }
}
