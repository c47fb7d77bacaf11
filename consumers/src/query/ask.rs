//! Asks ClickHouse a named query: to read only, within limits of time, rows and bytes, under an id of its own. Values travel
//! as ClickHouse's own parameters, never as SQL.

use std::{
    fmt,
    time::{Duration, Instant},
};

use clickhouse::{Client, error::Error, query::BytesCursor};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::Query;
use crate::{
    clickhouse::{
        client::{client, within},
        errors::{ErrorClass, classify, code, is_connect},
    },
    config, one_line,
};

/// Names and types first, text escaped, null apart from any text; it needs no setting, which a read-only user may not set.
const FORMAT: &str = "TabSeparatedWithNamesAndTypes";
/// How much longer than the query its answer may take, at most.
const ON_THE_WAY_MAX: Duration = Duration::from_secs(1);

/// `TIMEOUT_EXCEEDED`, `TOO_SLOW`.
const SLOW: [u32; 2] = [159, 160];
/// `TOO_MANY_ROWS`, `TOO_MANY_BYTES`, `TOO_MANY_ROWS_OR_BYTES`.
const LARGE: [u32; 3] = [158, 307, 396];
/// `BAD_QUERY_PARAMETER` and what cannot be read as a number, text, date, time or UUID.
const VALUE: [u32; 7] = [457, 6, 27, 38, 41, 72, 376];
/// `UNKNOWN_TABLE`, `UNKNOWN_IDENTIFIER`, `UNKNOWN_DATABASE`.
const MISSING: [u32; 3] = [60, 47, 81];
/// `ACCESS_DENIED`.
const DENIED: u32 = 497;
/// `READONLY`: the user may not change this setting.
const READONLY: u32 = 164;

/// What a query may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time that ClickHouse works on it.
    pub time: Duration,
    /// Most rows of the answer.
    pub rows: u64,
    /// Longest answer on the wire, in bytes.
    pub bytes: usize,
    /// Threads of ClickHouse.
    pub threads: u8,
}

/// The answer of a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answer {
    /// In order.
    pub columns: Vec<Column>,
    /// A value for each column: a number for integers and floats (null if not finite), a boolean, null, or else the text as
    /// ClickHouse writes it. Decimals are texts, so that no cent is lost.
    pub rows: Vec<Vec<Value>>,
    /// How long it took, as seen from here.
    pub seconds: f64,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type in ClickHouse.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Why there is no answer, with ClickHouse's own words on one line where it said something.
#[derive(Debug)]
pub enum AskError {
    /// It took longer than allowed.
    Slow(Duration),
    /// The answer has more rows or bytes than allowed.
    Large(String),
    /// A value is none of its parameter's type.
    Value(String),
    /// A table or column is not there.
    Missing(String),
    /// The user may not read what the query reads.
    Denied(String),
    /// ClickHouse cannot be reached, or takes no queries now.
    Away(String),
    /// Anything else.
    Refused(String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(limit) => write!(f, "no answer within {limit:?}; ask for less, such as fewer minutes"),
            Self::Large(text) => write!(f, "the answer is too large; ask for less: {text}"),
            Self::Value(text) => write!(f, "a value is not of its parameter's type: {text}"),
            Self::Missing(text) => {
                write!(
                    f,
                    "a table or column of the query is not there; `millrace migrate --apply` makes those that the configuration names: {text}"
                )
            }
            Self::Denied(text) => write!(f, "the user may not read all of it and needs GRANT SELECT: {text}"),
            Self::Away(text) => write!(f, "ClickHouse cannot be asked now: {text}"),
            Self::Refused(text) => write!(f, "ClickHouse refuses the query: {text}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Asks queries of one ClickHouse.
pub struct Asker {
    client: Client,
    limits: Limits,
}

impl Asker {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The files of certificates cannot be used.
    pub fn new(settings: &config::ClickHouse, limits: Limits) -> anyhow::Result<Self> {
        Ok(Self { client: client(settings)?, limits })
    }

    /// Asks a query with values as [`super::bind`] gives them. Dropped half-way, the query is given up by the server too.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, query: &Query, values: &[(&str, String)]) -> Result<Answer, AskError> {
        let begun = Instant::now();
        let mut refused = None;
        // Who is read-only already may set some settings or none; then its own limits hold besides those that are seen to here.
        for settings in [self.settings(true), self.settings(false), Vec::new()] {
            let mut asked = self.client.query_raw(&query.sql);
            let id = format!("millrace-query-{}-{}", query.name, Uuid::new_v4().simple());
            // An error that comes late is an error, and no answer that ends in one.
            for (name, value) in [("query_id", id.as_str()), ("wait_end_of_query", "1")] {
                asked = asked.with_setting(name, value);
            }
            for (name, value) in settings {
                asked = asked.with_setting(name, value);
            }
            for (name, value) in values {
                asked = asked.param(name, value);
            }
            let read = async { self.read(asked.fetch_bytes(FORMAT)?).await };
            let time = self.limits.time;
            return match within(time + (time / 2).min(ON_THE_WAY_MAX), read).await {
                Ok(Some(text)) => self.answer(&text, begun),
                Ok(None) => Err(AskError::Large(format!("more than {} bytes", self.limits.bytes))),
                Err(error) if code(&error) == Some(READONLY) => {
                    refused = Some(error);
                    continue;
                }
                Err(error) => Err(self.why(&error)),
            };
        }
        Err(AskError::Refused(refused.map(one_line).unwrap_or_default()))
    }

    fn settings(&self, readonly: bool) -> Vec<(&'static str, String)> {
        let Limits { time, rows, threads, .. } = self.limits;
        let mut settings = vec![
            ("max_execution_time", time.as_secs_f64().to_string()),
            ("timeout_overflow_mode", "throw".to_owned()),
            ("max_result_rows", rows.to_string()),
            ("result_overflow_mode", "throw".to_owned()),
            ("max_threads", threads.to_string()),
            // `4300.70`, not `4300.7`.
            ("output_format_decimal_trailing_zeros", "1".to_owned()),
            ("cancel_http_readonly_queries_on_client_close", "1".to_owned()),
        ];
        if readonly {
            settings.push(("readonly", "1".to_owned()));
        }
        settings
    }

    /// `None` if it is too long.
    async fn read(&self, mut cursor: BytesCursor) -> Result<Option<Vec<u8>>, Error> {
        let mut text = Vec::new();
        while let Some(bytes) = cursor.next().await? {
            if text.len() + bytes.len() > self.limits.bytes {
                return Ok(None);
            }
            text.extend_from_slice(&bytes);
        }
        Ok(Some(text))
    }

    fn answer(&self, text: &[u8], begun: Instant) -> Result<Answer, AskError> {
        let (columns, rows) =
            read_answer(text).ok_or_else(|| AskError::Refused("the answer has no columns".to_owned()))?;
        if rows.len() as u64 > self.limits.rows {
            return Err(AskError::Large(format!("{} rows, at most {} are told", rows.len(), self.limits.rows)));
        }
        Ok(Answer { columns, rows, seconds: begun.elapsed().as_secs_f64() })
    }

    fn why(&self, error: &Error) -> AskError {
        let text = one_line(error);
        match code(error) {
            Some(code) if SLOW.contains(&code) => AskError::Slow(self.limits.time),
            Some(code) if LARGE.contains(&code) => AskError::Large(text),
            Some(code) if VALUE.contains(&code) => AskError::Value(text),
            Some(DENIED) => AskError::Denied(text),
            Some(code) if MISSING.contains(&code) => AskError::Missing(text),
            None if matches!(error, Error::TimedOut) => AskError::Slow(self.limits.time),
            None if is_connect(error) => AskError::Away("connection refused or not made in time".to_owned()),
            _ if matches!(classify(error), ErrorClass::Retry | ErrorClass::UnknownOutcome) => AskError::Away(text),
            _ => AskError::Refused(text),
        }
    }
}

/// Columns and rows of the format [`FORMAT`].
fn read_answer(text: &[u8]) -> Option<(Vec<Column>, Vec<Vec<Value>>)> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.split_terminator('\n');
    let (names, kinds) = (lines.next()?, lines.next()?);
    let column = |(name, kind)| Column { name: unescaped(name), kind: unescaped(kind) };
    let columns: Vec<Column> = names.split('\t').zip(kinds.split('\t')).map(column).collect();
    let row = |line: &str| line.split('\t').zip(&columns).map(|(field, of)| value(field, &of.kind)).collect();
    let rows = lines.map(row).collect();
    Some((columns, rows))
}

fn value(field: &str, kind: &str) -> Value {
    if field == "\\N" {
        return Value::Null;
    }
    let number = match plain_kind(kind) {
        "UInt8" | "UInt16" | "UInt32" | "UInt64" => field.parse::<u64>().ok().map(Value::from),
        "Int8" | "Int16" | "Int32" | "Int64" => field.parse::<i64>().ok().map(Value::from),
        "Float32" | "Float64" => field.parse::<f64>().ok().map(Value::from),
        "Bool" => field.parse::<bool>().ok().map(Value::from),
        _ => None,
    };
    number.unwrap_or_else(|| Value::from(unescaped(field)))
}

/// A type without what says only whether it may be null and how it is stored.
pub(super) fn plain_kind(kind: &str) -> &str {
    let mut kind = kind;
    for wrapper in ["LowCardinality(", "Nullable("] {
        kind = kind.strip_prefix(wrapper).and_then(|inner| inner.strip_suffix(')')).unwrap_or(kind);
    }
    kind
}

/// As [the format](https://clickhouse.com/docs/interfaces/formats/TabSeparated) escapes text.
fn unescaped(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut characters = field.chars();
    while let Some(one) = characters.next() {
        if one != '\\' {
            text.push(one);
            continue;
        }
        match characters.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('0') => text.push('\0'),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_keeps_decimals_nulls_and_odd_texts_apart() {
        let text =
            b"n\tamount\tname\tshare\tok\nUInt64\tDecimal(18, 2)\tLowCardinality(Nullable(String))\tFloat64\tBool\n\
            18446744073709551615\t12345678901234567.89\ta\\tb\\\\N\t0.5\ttrue\n0\t-0.01\t\\N\tnan\tfalse\n";
        let (columns, rows) = read_answer(text).unwrap();
        assert_eq!(columns[2], Column { name: "name".into(), kind: "LowCardinality(Nullable(String))".into() });
        assert_eq!(
            rows[0],
            [json!(u64::MAX), json!("12345678901234567.89"), json!("a\tb\\N"), json!(0.5), json!(true)]
        );
        assert_eq!(rows[1], [json!(0), json!("-0.01"), Value::Null, Value::Null, json!(false)]);
        assert!(read_answer(b"a\n").is_none());
        assert_eq!(read_answer(b"a\nUInt8\n").unwrap().1.len(), 0);
    }
}
