//! `millrace dead show`: one letter with all that is known of it: where it came from, its value decoded as far as it goes,
//! the bytes around the break, and whether it could be read by now.

use std::fmt::{self, Write as _};

use anyhow::{Result, bail};
use apache_avro::Schema;
use millrace_pipeline::{
    decode::DecodeLimits,
    record::Record,
    route::{Routed, RoutedDecoder},
    spec::RouteSpec,
    wire::{self, HEADER_LEN},
};
use rdkafka::message::BorrowedMessage;
use serde_json::{Value, json};

use super::{
    DeadLetterReader,
    letter::{Letter, Place},
    walk::{End, Field, Walk, walk},
};
use crate::{
    config::{Config, Topic},
    one_line,
    registry::{Answer, Registry},
    time::format_time,
};

/// Bytes of a line of the dump.
const LINE: usize = 16;
/// Lines of the dump before the break and behind it.
const LINES_AROUND: usize = 4;
/// Characters of a text that are shown.
const TEXT_SHOWN: usize = 200;

/// Everything that is known of a letter.
#[derive(Debug)]
pub struct Shown {
    /// Where the record was read.
    pub place: Place,
    /// The letter; of a record of the source topic, without what only a dead letter says.
    pub letter: Letter,
    /// Name of the schema it was written with, or why that is not known.
    pub schema: Result<String, String>,
    /// Its value, if its schema is known.
    pub walk: Option<Walk>,
    /// What the pipeline would say of it by now: `Ok` if it would read it.
    pub now: Result<(), String>,
}

/// Reads the record at a place, of the dead-letter topic or, with `of_source`, of the topic of events. Blocks.
///
/// # Errors
/// When there is no such record, or Kafka does not answer.
pub fn find(reader: &DeadLetterReader, topic: &Topic, partition: i32, offset: i64, of_source: bool) -> Result<Letter> {
    let name = if of_source { &topic.spec.topic } else { &topic.dead_letter_topic };
    let make = |message: &BorrowedMessage<'_>| if of_source { Letter::of_source(message) } else { Letter::of(message) };
    let place = Place { topic: name.clone(), partition, offset };
    let hint = if of_source {
        "; if retention has deleted it, its dead letter may still be there: look for it with `millrace dead list`"
    } else {
        "; `millrace dead list` shows what there is, and --source takes coordinates of the topic of events"
    };
    match reader.at(topic, &place, make)? {
        Some(letter) => Ok(letter),
        None => bail!("there is no record at {place}{hint}"),
    }
}

/// Finds out what can be known of a letter.
pub async fn explain(config: &Config, topic: &Topic, place: Place, letter: Letter) -> Shown {
    let schemas = async {
        let registry = Registry::new(&config.registry)?.patient(&config.retry);
        let reader = registry.to_read_with(topic).await?;
        let writer = match wire::split(letter.value.as_deref()) {
            Ok((id, _)) => Some((id, registry.by_id(id).await?)),
            Err(_) => None,
        };
        anyhow::Ok((reader, writer))
    };
    let schemas = schemas.await.map_err(|error| one_line(format!("{error:#}")));
    judge(schemas, topic.spec.route.clone(), topic.limits, place, letter)
}

/// The reader's schema, and the id and answer for the writer's if the value has a whole header.
type Schemas = (String, Option<(u32, Answer)>);

fn judge(
    schemas: Result<Schemas, String>,
    route: Option<RouteSpec>,
    limits: DecodeLimits,
    place: Place,
    letter: Letter,
) -> Shown {
    let (reader, writer) = match schemas {
        Ok(schemas) => schemas,
        Err(error) => return Shown { place, letter, schema: Err(error.clone()), walk: None, now: Err(error) },
    };
    let value = letter.value.as_deref();
    let now = by_now(&reader, writer.as_ref(), route, limits, value);
    let parsed = match &writer {
        None => Err("the value has no whole header".to_owned()),
        Some((id, Answer::Absent)) => Err(format!("{id}: the registry has no schema of this id")),
        Some((id, Answer::Schema(text))) => match Schema::parse_str(text) {
            Ok(schema) => Ok((*id, schema)),
            Err(error) => Err(format!("{id}: it cannot be parsed: {error}")),
        },
    };
    let (schema, walk) = match parsed {
        Ok((id, schema)) => {
            let name = schema.name().map_or_else(|| "without a name".to_owned(), ToString::to_string);
            (Ok(format!("{id}: {name}")), wire::split(value).ok().map(|(_, datum)| walk(&schema, datum)))
        }
        Err(why) => (Err(why), None),
    };
    Shown { place, schema, walk, now, letter }
}

/// What the pipeline would say of a value: `Ok` if it would read it.
fn by_now(
    reader: &str,
    writer: Option<&(u32, Answer)>,
    route: Option<RouteSpec>,
    limits: DecodeLimits,
    value: Option<&[u8]>,
) -> Result<(), String> {
    let own = route.as_ref().map(|route| route.record.clone()).unwrap_or_default();
    let mut decoder = RoutedDecoder::new(reader, route, limits).map_err(|error| error.to_string())?;
    match writer {
        Some((id, Answer::Schema(schema))) => decoder.learn(*id, schema),
        Some((id, Answer::Absent)) => decoder.learn_absent(*id),
        None => {}
    }
    let Routed { decoded, passed_over } = decoder.decode(&[Record { partition: 0, offset: 0, timestamp_ms: 0, value }]);
    if !passed_over.is_empty() {
        return Err(format!(
            "passed over: this section is for `{own}`; another section is for it (--table), or it is ignored"
        ));
    }
    decoded.rejected.into_iter().next().map_or(Ok(()), |(_, rejection)| Err(rejection.to_string()))
}

impl Shown {
    /// One object:
    ///
    /// ```text
    /// {"place":{"topic","partition","offset"}, "source":{…}|null, "source_timestamp":time|null, "written":time|null, "reason",
    ///  "error", "version", "key":text|null, "headers":[{"name","value":text|null}], "schema", "readable_now":bool, "now":text|null,
    ///  "fields":[{"path","at":n,"value"}], "broken_at":n|null, "broken_path":text|null, "value_hex":text|null}
    /// ```
    ///
    /// Texts that are no UTF-8 are in hexadecimal and begin with `0x`; `at` and `broken_at` count bytes of the datum.
    pub fn to_json(&self) -> String {
        let place =
            |place: &Place| json!({ "topic": place.topic, "partition": place.partition, "offset": place.offset });
        let header =
            |(name, value): &(String, Option<Vec<u8>>)| json!({ "name": name, "value": value.as_deref().map(text) });
        let fields = self.walk.iter().flat_map(|walk| &walk.fields);
        let letter = &self.letter;
        let (broken_at, broken_path) = match self.walk.as_ref().map(|walk| &walk.end) {
            Some(End::Broken { at, path, .. }) => (Some(at), Some(path)),
            Some(End::TrailingBytes { at }) => (Some(at), None),
            _ => (None, None),
        };
        json!({
            "place": place(&self.place),
            "source": letter.source.as_ref().map(place),
            "source_timestamp": letter.source_timestamp_ms.map(format_time),
            "written": (letter.written_ms != 0).then(|| format_time(letter.written_ms)),
            "reason": letter.reason,
            "error": letter.error,
            "version": letter.version,
            "key": letter.key.as_deref().map(text),
            "headers": letter.headers.iter().map(header).collect::<Vec<Value>>(),
            "schema": self.schema.as_ref().unwrap_or_else(|why| why),
            "readable_now": self.now.is_ok(),
            "now": self.now.as_ref().err(),
            "fields": fields
                .map(|Field { path, at, value }| json!({ "path": path, "at": at, "value": value }))
                .collect::<Vec<Value>>(),
            "broken_at": broken_at,
            "broken_path": broken_path,
            "value_hex": letter.value.as_deref().map(hex),
        })
        .to_string()
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = &self.letter;
        writeln!(f, "{}", self.place)?;
        let mut line = |name: &str, text: &str| writeln!(f, "  {name:<10} {text}");
        if let Some(source) = letter.source.as_ref().filter(|source| **source != self.place) {
            line("source", &source.to_string())?;
        }
        if let Some(time_ms) = letter.source_timestamp_ms {
            line("published", &format_time(time_ms))?;
        }
        if letter.written_ms != 0 {
            let by = if letter.version.is_empty() { String::new() } else { format!(" by Millrace {}", letter.version) };
            line("written", &format!("{}{by}", format_time(letter.written_ms)))?;
        }
        if !letter.reason.is_empty() {
            line("reason", &format!("{}: {}", letter.reason, letter.error))?;
        }
        match &self.now {
            Ok(()) => line("now", "it can be read: replayed, it would land or be dropped as a duplicate")?,
            Err(why) => line("now", why)?,
        }
        line("schema", self.schema.as_ref().unwrap_or_else(|why| why))?;
        line("key", &letter.key.as_deref().map_or_else(|| "none".to_owned(), quoted))?;
        for (name, value) in &letter.headers {
            line("header", &format!("{name} = {}", value.as_deref().map_or_else(|| "null".to_owned(), quoted)))?;
        }
        let Some(value) = &letter.value else {
            return line("value", "none: a tombstone");
        };
        line("value", &format!("{} bytes; the datum begins at byte {HEADER_LEN} of it", value.len()))?;
        writeln!(f)?;
        let Some(Walk { fields, end }) = &self.walk else {
            if let Ok(text) = std::str::from_utf8(value) {
                writeln!(f, "It is text: {}\n", quoted(text.as_bytes()))?;
            }
            return f.write_str(&dump(value, None));
        };
        let width = fields.iter().map(|field| field.path.chars().count()).max().unwrap_or(0).min(48);
        for Field { path, at, value } in fields {
            writeln!(f, "  {at:>6}  {path:<width$}  {value}")?;
        }
        let broken = match end {
            End::Whole => return writeln!(f, "The datum is whole."),
            End::Shortened { at } => return writeln!(f, "… the rest, from byte {at} on, is not shown."),
            End::TrailingBytes { at } => {
                writeln!(f, "✗ {at:>6}  the datum ends here, and bytes are left")?;
                *at
            }
            End::Broken { from, at, path, reason } => {
                writeln!(f, "✗ {from:>6}  {path:<width$}  breaks at byte {at}: {reason}")?;
                *at
            }
        };
        writeln!(f, "\nByte {broken} of the datum is byte {} of the value:", HEADER_LEN + broken)?;
        f.write_str(&dump(value, Some(HEADER_LEN + broken)))
    }
}

/// Lines of 16 bytes in hexadecimal and as text: those around a byte, which stands in brackets, or the first.
fn dump(value: &[u8], around: Option<usize>) -> String {
    let mut text = String::new();
    let middle = around.unwrap_or(0) / LINE;
    let first = middle.saturating_sub(LINES_AROUND);
    let last = middle + if around.is_some() { LINES_AROUND } else { 2 * LINES_AROUND };
    for (number, line) in value.chunks(LINE).enumerate().skip(first).take(last - first + 1) {
        let at = number * LINE;
        _ = write!(text, "  {at:06x} ");
        for place in at..=at + LINE {
            // A bracket takes the place of the gap.
            text.push(match around {
                Some(around) if around == place && place < at + LINE => '[',
                Some(around) if around + 1 == place && place > at => ']',
                _ => ' ',
            });
            match line.get(place - at) {
                Some(byte) => _ = write!(text, "{byte:02x}"),
                None => text.push_str("  "),
            }
        }
        let shown: String =
            line.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        _ = writeln!(text, "{shown}");
    }
    if around.is_some_and(|at| at >= value.len()) {
        text.push_str("  the value ends before that byte\n");
    }
    text
}

/// Text as it is, or bytes in hexadecimal.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), str::to_owned)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold("0x".to_owned(), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// In quotes and with escapes, cut if it is long.
fn quoted(bytes: &[u8]) -> String {
    let (all, quoted) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), true),
        Err(_) => (hex(bytes), false),
    };
    let cut: String = all.chars().take(TEXT_SHOWN).collect();
    let more = if cut.len() < all.len() { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    if quoted { format!("{}{more}", json!(cut)) } else { format!("{cut}{more}") }
}

#[cfg(test)]
mod tests;
