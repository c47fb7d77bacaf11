//! Log lines: JSON for machines, short text for people. WARN and ERROR lines that repeat are written once per interval,
//! with the number of those left out in `repeated`; others always.
//!
//! `{"timestamp", "level", "service_name", "trace_id"?, "span_id"?, "message", …the event's fields, "repeated"?, "target"}`,
//! one object a line. Trace and span are those of the OpenTelemetry context in which the line is written.

use std::{
    fmt::{self, Write},
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use opentelemetry::{
    Context,
    trace::{SpanContext, TraceContextExt},
};
use serde_json::Value;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::limiter::Limiter;

/// Characters that messages are filled up to on a terminal, so that fields begin below each other.
const MESSAGE_WIDTH: usize = 44;

/// Libraries whose finer lines show headers and URLs of requests, credentials among them.
const HELD_AT_WARNINGS: &[&str] = &["clickhouse", "hyper", "hyper_util", "reqwest", "native_tls", "h2"];

/// What is written at a level: libraries that see secrets at warnings only, whatever the level.
pub fn held(level: Level) -> Targets {
    let held = LevelFilter::from_level(level.min(Level::WARN));
    let all = Targets::new().with_default(level);
    HELD_AT_WARNINGS.iter().fold(all, |targets, library| targets.with_target(*library, held))
}

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON object a line.
    Json,
    /// Time of day in local time (in colours, for a terminal) or the whole time in UTC; level, message and fields.
    Text,
}

/// Writes events as lines; for [`tracing_subscriber::fmt::Layer::event_format`].
#[derive(Debug)]
pub struct Lines {
    form: Form,
    service: String,
    limiter: Limiter,
    started: Instant,
}

impl Lines {
    /// Lines of the program `service`; WARN and ERROR lines with the same message, topic and partition at most once per
    /// `repeat_interval_ms`.
    pub fn new(form: Form, service: impl Into<String>, repeat_interval_ms: u64) -> Self {
        Self { form, service: service.into(), limiter: Limiter::new(repeat_interval_ms), started: Instant::now() }
    }

    /// Whether a line is to be written, and how many like it were left out before.
    fn admit(&self, metadata: &Metadata<'_>, fields: &Fields) -> Option<u64> {
        if *metadata.level() > Level::WARN {
            return Some(0);
        }
        let mut kind = DefaultHasher::new();
        metadata.callsite().hash(&mut kind);
        fields.message.split(' ').filter(|word| !is_duration(word)).for_each(|word| word.hash(&mut kind));
        for name in ["topic", "partition"] {
            fields.others.iter().find(|(other, _)| *other == name).map(|(_, value)| value.to_string()).hash(&mut kind);
        }
        self.limiter.admit(kind.finish(), self.started.elapsed().as_millis() as u64)
    }

    fn json(&self, metadata: &Metadata<'_>, fields: Fields, repeated: u64) -> String {
        let mut line: Vec<(&str, Value)> = vec![
            ("timestamp", chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true).into()),
            ("level", metadata.level().as_str().into()),
            ("service_name", self.service.as_str().into()),
        ];
        if let Some(span) = current_span() {
            line.push(("trace_id", span.trace_id().to_string().into()));
            line.push(("span_id", span.span_id().to_string().into()));
        }
        line.push(("message", fields.message.into()));
        for (name, value) in fields.others {
            // An event must not overwrite what tells who wrote it and when.
            if line.iter().all(|(taken, _)| *taken != name) && !["repeated", "target"].contains(&name) {
                line.push((name, value));
            }
        }
        if repeated > 0 {
            line.push(("repeated", repeated.into()));
        }
        line.push(("target", metadata.target().into()));
        let members: Vec<String> =
            line.into_iter().map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
        format!("{{{}}}", members.join(","))
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let Some(repeated) = self.admit(metadata, &fields) else { return Ok(()) };
        match self.form {
            Form::Json => writeln!(writer, "{}", self.json(metadata, fields, repeated)),
            Form::Text => text(&mut writer, metadata, &fields, repeated),
        }
    }
}

fn text(writer: &mut Writer<'_>, metadata: &Metadata<'_>, fields: &Fields, repeated: u64) -> fmt::Result {
    let colours = writer.has_ansi_escapes();
    let mut painted = |colour: &str, text: &str| {
        if colours { write!(writer, "\x1b[{colour}m{text}\x1b[0m") } else { writer.write_str(text) }
    };
    let level = *metadata.level();
    let colour = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "34",
    };
    let now = chrono::Utc::now();
    let time = match colours {
        true => now.with_timezone(&chrono::Local).format("%H:%M:%S%.3f").to_string(),
        // Not on a terminal: whoever reads it may do so on another day, in another place.
        false => now.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    };
    painted("2", &time)?;
    painted(colour, &format!(" {:<5} ", level.as_str()))?;
    let fieldless = fields.others.is_empty() && repeated == 0;
    let message = one_line(&fields.message);
    painted("0", &if fieldless { message } else { format!("{message:<MESSAGE_WIDTH$}") })?;
    for (name, value) in &fields.others {
        painted("2", &format!(" {name}="))?;
        let value = match value {
            Value::String(text) if !text.is_empty() && !text.contains([' ', '"']) => one_line(text),
            other => one_line(&other.to_string()),
        };
        painted("0", &value)?;
    }
    if repeated > 0 {
        painted("2", &format!(" repeated={repeated}"))?;
    }
    if let Some(span) = current_span() {
        painted("2", &format!(" trace_id={}", span.trace_id()))?;
    }
    writeln!(writer)
}

/// Somebody else's text must not begin a line of its own, nor move the cursor.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Such as `12ms`, by which librdkafka tells apart what is otherwise the same.
fn is_duration(word: &str) -> bool {
    let number = word.trim_end_matches([',', ')']).strip_suffix("ms");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn current_span() -> Option<SpanContext> {
    Context::map_current(|context| {
        let span = context.span().span_context().clone();
        span.is_valid().then_some(span)
    })
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            // What the `log` facade adds.
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.others.push((name.strip_prefix("r#").unwrap_or(name), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Whoever fails to describe itself is shown as far as it came.
        _ = write!(text, "{value:?}");
        self.put(field, text.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests;
