//! The table of dead letters, for SQL: what their Kafka topic holds, with the originals untouched.
//!
//! At least once, and before the offset is committed: the table's key is the source of a letter, so one that is written
//! again replaces itself. It takes no part in the claims: a letter of a consumer that has lost its partition is as true as
//! any other.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use arrow_array::{
    ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt32Array,
    builder::{BinaryBuilder, ListBuilder, StringBuilder, StructBuilder},
};
use arrow_schema::{ArrowError, DataType, Field, Fields};
use clickhouse::error::Error;
use hyper::body::Bytes;
use metrics::counter;
use millrace_pipeline::{record::DeadLetter, wire};

use super::{
    claims::identifier,
    client::within,
    errors::{ErrorClass, classify, label},
    insert::body,
    replicas::Replicas,
    table::Table,
};
use crate::{
    config::{ClickHouse, Retry},
    one_line,
    retry::{Status, Target},
    telemetry::{
        metrics as names,
        stages::{Stage, Stages},
    },
};

/// Bytes handed to the connection at once.
const CHUNK: usize = 1 << 20;
/// 1900-01-01 to the end of 2299 in milliseconds since 1970, the range of `DateTime64(3)`. A timestamp is the producer's
/// word and may be anything.
const TIMES_MS: std::ops::RangeInclusive<i64> = -2_208_988_800_000..=10_413_791_999_999;

/// The columns that are written, and the types that keep what is written.
pub const COLUMNS: &[(&str, &[&str])] = &[
    ("source_topic", &["LowCardinality(String)", "String"]),
    ("source_partition", &["Int32"]),
    ("source_offset", &["Int64"]),
    ("source_timestamp", &["DateTime64"]),
    ("reason", &["LowCardinality(String)", "String"]),
    ("error", &["String"]),
    ("schema_id", &["Nullable(UInt32)"]),
    ("key", &["Nullable(String)"]),
    ("value", &["Nullable(String)"]),
    ("headers", &["Array(Tuple(name String, value Nullable(String)))"]),
    ("version", &["LowCardinality(String)", "String"]),
];

/// Writes one topic's dead letters into its table.
pub struct DeadLetterTable {
    replicas: Replicas,
    topic: String,
    table: String,
    sql: String,
    timeout: Duration,
    target: Target,
    stages: Stages,
}

impl DeadLetterTable {
    /// A writer into `table`, as it was `found`, for events of `topic`, which metrics call `label`, and its breaker `target`.
    ///
    /// # Errors
    /// The outer error says that ClickHouse could not tell of the table, which is worth another try; the inner one what is
    /// wrong with it.
    pub fn open(
        replicas: &Replicas,
        settings: &ClickHouse,
        topic: &str,
        (label, target): (&str, &str),
        retry: &Retry,
        table: &str,
        found: Result<Option<Table>, Error>,
    ) -> Result<Result<Self>> {
        let ClickHouse { database, user, url, .. } = settings;
        let make = "make it with `millrace migrate --apply`, or take `table` out of [topics.dead_letters]";
        let found = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Ok(Err(anyhow!(
                    "ClickHouse shows user {user} no table of dead letters {database}.{table}: {make}"
                )));
            }
            Err(error) => {
                let is_final = matches!(classify(&error), ErrorClass::Auth | ErrorClass::Permanent);
                let error = anyhow!(error).context(format!("describe table {database}.{table} at {url}"));
                return if is_final { Ok(Err(error)) } else { Err(error) };
            }
        };
        let columns: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
        if let Some(missing) = columns.iter().find(|name| found.column(name).is_none()) {
            return Ok(Err(anyhow!("table of dead letters {database}.{table} has no column {missing}: {make}")));
        }
        let qualified = format!("{}.{}", identifier(database), identifier(table));
        Ok(Ok(Self {
            replicas: replicas.clone(),
            topic: topic.to_owned(),
            sql: format!("INSERT INTO {qualified} ({}) FORMAT ArrowStream", columns.join(", ")),
            table: format!("{database}.{table}"),
            timeout: settings.insert_timeout,
            target: Target::new(format!("dead_letter_table/{target}"), retry),
            stages: Stages::new(label),
        }))
    }

    /// Writes all of them and waits for the acknowledgement, trying again for as long as it takes.
    pub async fn write(&self, letters: &[DeadLetter]) {
        if letters.is_empty() {
            return;
        }
        let body = match rows(&self.topic, letters).and_then(|rows| body(&rows)) {
            Ok(body) => body,
            Err(error) => unreachable!("dead letters of one batch fit into arrays: {error}"),
        };
        let mut attempt = 0;
        loop {
            let call = self.target.permit().await;
            let replica = self.replicas.current();
            let Err(error) = within(self.timeout, self.send(replica, &body)).await else {
                call.succeeded();
                return;
            };
            attempt += 1;
            // No claim is asked, and a letter that is written again replaces itself: any replica will do.
            self.replicas.failed(replica);
            self.stages.failed(Stage::DeadLetter, label(&error), 1);
            let labels = [("topic", self.topic.clone()), ("code", label(&error))];
            counter!(names::INSERT_FAILURES, &labels).increment(1);
            let told = one_line(&error);
            let (topic, table) = (&self.topic, &self.table);
            if matches!(classify(&error), ErrorClass::Permanent | ErrorClass::Auth) {
                tracing::error!(
                    topic,
                    table,
                    attempt,
                    error = told,
                    "dead letters were not inserted; offsets wait for them"
                );
            } else {
                tracing::warn!(
                    topic,
                    table,
                    attempt,
                    error = told,
                    "dead letters were not inserted; offsets wait for them"
                );
            }
            call.failed(format!("dead letters do not get into {table}: {told}"));
            tokio::time::sleep(self.target.delay(attempt)).await;
        }
    }

    /// Why the table takes no dead letters, if the last attempt failed.
    pub fn trouble(&self) -> Option<String> {
        self.target.last_error()
    }

    /// How its breaker is.
    pub fn status(&self) -> Status {
        self.target.status()
    }

    async fn send(&self, replica: usize, body: &[Bytes]) -> Result<(), Error> {
        let mut insert = self
            .replicas
            .at(replica)
            .insert_formatted_with(self.sql.clone())
            .with_setting("async_insert", "0")
            // The status line must tell the end of the query, not its beginning.
            .with_setting("wait_end_of_query", "1")
            .with_timeouts(Some(self.timeout), Some(self.timeout));
        for piece in body {
            let mut rest = piece.clone();
            while !rest.is_empty() {
                insert.send(rest.split_to(CHUNK.min(rest.len()))).await?;
            }
        }
        insert.end().await
    }
}

/// The rows of letters, with the columns of [`COLUMNS`].
///
/// # Errors
/// When the letters together exceed what one Arrow array can hold.
fn rows(topic: &str, letters: &[DeadLetter]) -> Result<RecordBatch, ArrowError> {
    let bytes = |bytes: &dyn Fn(&DeadLetter) -> Option<&[u8]>| -> ArrayRef {
        let mut builder = BinaryBuilder::new();
        letters.iter().for_each(|letter| builder.append_option(bytes(letter)));
        Arc::new(builder.finish())
    };
    let times = letters.iter().map(|letter| letter.timestamp_ms.clamp(*TIMES_MS.start(), *TIMES_MS.end()));
    let schema_ids = letters.iter().map(|letter| wire::split(letter.value.as_deref()).ok().map(|(id, _)| id));
    let columns: [ArrayRef; 11] = [
        texts(letters.iter().map(|_| topic)),
        Arc::new(letters.iter().map(|letter| letter.partition).collect::<Int32Array>()),
        Arc::new(letters.iter().map(|letter| letter.offset).collect::<Int64Array>()),
        Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC")),
        texts(letters.iter().map(|letter| letter.rejection.reason.code())),
        texts(letters.iter().map(|letter| letter.rejection.detail.as_str())),
        Arc::new(schema_ids.collect::<UInt32Array>()),
        bytes(&|letter| letter.key.as_deref()),
        bytes(&|letter| letter.value.as_deref()),
        headers(letters),
        texts(letters.iter().map(|_| env!("CARGO_PKG_VERSION"))),
    ];
    RecordBatch::try_from_iter_with_nullable(
        COLUMNS.iter().zip(columns).map(|((name, _), column)| (*name, column, true)),
    )
}

fn texts<'t>(texts: impl Iterator<Item = &'t str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(texts))
}

/// List of (name, value) for each letter.
fn headers(letters: &[DeadLetter]) -> ArrayRef {
    let fields =
        Fields::from(vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Binary, true)]);
    let pair = StructBuilder::new(fields, vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())]);
    let mut lists = ListBuilder::new(pair);
    for letter in letters {
        for (name, value) in &letter.headers {
            let pair = lists.values();
            pair.field_builder::<StringBuilder>(0).into_iter().for_each(|names| names.append_value(name));
            pair.field_builder::<BinaryBuilder>(1)
                .into_iter()
                .for_each(|values| values.append_option(value.as_deref()));
            pair.append(true);
        }
        lists.append(true);
    }
    Arc::new(lists.finish())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, cast::AsArray, types::TimestampMillisecondType};
    use millrace_pipeline::reason::{Reason, Rejection};

    use super::*;

    #[test]
    fn letters_become_rows_with_their_bytes_as_they_were() {
        let letter = DeadLetter {
            partition: 3,
            offset: 1234,
            timestamp_ms: i64::MAX,
            key: None,
            value: Some(vec![0, 0, 0, 1, 2, 0xff]),
            headers: vec![("trace".into(), Some(vec![0xfe])), ("trace".into(), None)],
            rejection: Rejection::new(Reason::Truncated, "breaks at byte 1"),
        };
        let tombstone = DeadLetter { value: None, headers: Vec::new(), ..letter.clone() };
        let rows = rows("orders", &[letter, tombstone]).unwrap();
        let column = |name: &str| rows.column_by_name(name).unwrap();
        assert_eq!(column("reason").as_string::<i32>().value(0), "truncated");
        assert_eq!(column("value").as_binary::<i32>().value(0), [0, 0, 0, 1, 2, 0xff]);
        assert!(column("key").is_null(0) && column("value").is_null(1) && column("schema_id").is_null(1));
        assert_eq!(column("schema_id").as_primitive::<arrow_array::types::UInt32Type>().value(0), 258);
        assert_eq!(column("source_timestamp").as_primitive::<TimestampMillisecondType>().value(0), *TIMES_MS.end());
        let headers = column("headers").as_list::<i32>();
        assert_eq!((headers.value_length(0), headers.value_length(1)), (2, 0));
        let pairs = headers.value(0);
        let values = pairs.as_struct().column(1).as_binary::<i32>();
        assert_eq!((values.value(0), values.is_null(1)), (&[0xfe][..], true));
    }

    #[test]
    fn the_columns_are_those_of_the_shipped_table() {
        let (_, sql) =
            millrace_schemas::CLICKHOUSE_DDL.iter().find(|(name, _)| name.ends_with("dead_letters")).unwrap();
        for (name, types) in COLUMNS {
            let shipped = types.iter().any(|shipped| sql.contains(&format!("\n    {name} {shipped}")));
            assert!(shipped, "{name} {types:?}");
        }
    }
}
