//! Lands batches: one fenced insert of one block under one deduplication token, tried until its outcome is known.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use arrow_array::RecordBatch;
use clickhouse::{Client, error::Error};
use hyper::body::Bytes;
use metrics::{counter, gauge, histogram};
use millrace_pipeline::{
    batch::Batch,
    encode::arrow_stream,
    retry::{Backoff, Breaker, BreakerState},
};

use super::{
    claims::{Claims, identifier, quote},
    errors::{ErrorClass, classify, is_connect, label},
    table::Table,
};
use crate::{
    faults::{self, Guard, Point},
    random,
    telemetry::metrics as names,
};

const BACKOFF: Backoff = Backoff { first: Duration::from_millis(100), longest: Duration::from_secs(10) };
const FAILURES_TO_OPEN: u32 = 5;
const REST: Duration = Duration::from_secs(5);

/// How long an insert that may have landed, in whole or in part, is sent again under its token. The server remembers the
/// last 10,000 tokens of a table, which is more than 160 inserts a second for that long. After it, the partitions are
/// taken over again, which reads the truth from the table.
const SETTLE_WITHIN: Duration = Duration::from_secs(60);

/// Bytes handed to the connection at once.
const CHUNK: usize = 1 << 20;

/// Inserts into one table.
pub struct Inserter {
    client: Client,
    claims: Claims,
    topic: String,
    sql_before_fence: String,
    timeout: Duration,
    breaker: Mutex<Breaker>,
    /// The error of the last attempt, until one succeeds.
    trouble: Mutex<Option<String>>,
    started: Instant,
}

/// How an insert ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every row is in the table, once.
    Durable,
    /// ClickHouse refused the rows, because a partition of the batch is claimed by somebody else. None has landed,
    /// unless by an earlier attempt whose answer was lost.
    Refused,
    /// The rows may or may not be there, and this process may not find out by trying: take the partitions over again.
    Unsettled,
}

impl Inserter {
    /// Inserts into `database`.`table`, whose columns are `description`; `columns` names those that batches have.
    pub fn new(
        client: Client,
        claims: Claims,
        topic: &str,
        qualified_table: &str,
        description: &Table,
        columns: &[String],
        timeout: Duration,
    ) -> Self {
        let list = columns.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ");
        let structure = columns
            .iter()
            .filter_map(|name| description.column(name))
            .map(|column| format!("{} {}", identifier(&column.name), column.type_))
            .collect::<Vec<_>>()
            .join(", ");
        let structure = quote(&structure);
        let sql_before_fence =
            format!("INSERT INTO {qualified_table} ({list}) SELECT {list} FROM input({structure}) WHERE ");
        Self {
            client,
            claims,
            topic: topic.to_owned(),
            sql_before_fence,
            timeout,
            breaker: Mutex::new(Breaker::new(FAILURES_TO_OPEN, REST)),
            trouble: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Inserts a batch's rows, trying again under the same token for as long as that can settle it. The rows are let go
    /// of as soon as they are encoded: a batch in flight is held once.
    pub async fn land(&self, batch: &mut Batch) -> Outcome {
        if batch.rows.num_rows() == 0 {
            return Outcome::Durable;
        }
        let body = match arrow_stream(&batch.rows) {
            Ok(body) => Bytes::from(body),
            Err(error) => {
                tracing::error!(%error, topic = self.topic, "a batch has no Arrow form; its partitions are read again");
                return Outcome::Unsettled;
            }
        };
        batch.rows = RecordBatch::new_empty(batch.rows.schema());
        let mut token = uuid::Uuid::new_v4().to_string();
        let mut attempt = 0;
        let mut unsure_since: Option<Instant> = None;
        loop {
            self.permit().await;
            let begun = Instant::now();
            let Err(error) = self.send(batch, &token, attempt, body.clone()).await else {
                self.with_breaker(|breaker, _| breaker.succeeded());
                self.set_trouble(None);
                histogram!(names::INSERT_DURATION, "topic" => self.topic.clone()).record(begun.elapsed());
                return Outcome::Durable;
            };
            let class = classify(&error);
            let labels = [("topic", self.topic.clone()), ("code", label(&error))];
            counter!(names::INSERT_FAILURES, &labels).increment(1);
            if class == ErrorClass::Fenced {
                counter!(names::FENCE_REFUSALS, "topic" => self.topic.clone()).increment(1);
                self.with_breaker(|breaker, _| breaker.succeeded());
                self.set_trouble(None);
                tracing::warn!(
                    topic = self.topic,
                    batch = batch.seq,
                    "ClickHouse refused an insert: a partition of it is claimed by another consumer"
                );
                return Outcome::Refused;
            }
            self.with_breaker(|breaker, now| breaker.failed(now));
            self.set_trouble(Some(&error));
            // Whatever the server says, some of the table's partitions may have taken their rows before it failed.
            if !is_connect(&error) && class != ErrorClass::Auth {
                unsure_since.get_or_insert_with(Instant::now);
            }
            if unsure_since.is_some_and(|since| since.elapsed() > SETTLE_WITHIN) {
                tracing::warn!(
                    topic = self.topic,
                    batch = batch.seq,
                    error = one_line(&error),
                    "an insert cannot be settled by sending it again; its partitions are taken over again"
                );
                return Outcome::Unsettled;
            }
            attempt += 1;
            if faults::without(Guard::Token) {
                token = uuid::Uuid::new_v4().to_string();
            }
            counter!(names::INSERT_RETRIES, "topic" => self.topic.clone()).increment(1);
            let delay = BACKOFF.delay(attempt, random());
            let retry_in_ms = delay.as_millis() as u64;
            let error = one_line(&error);
            if matches!(class, ErrorClass::Permanent | ErrorClass::Auth) {
                tracing::error!(
                    topic = self.topic,
                    batch = batch.seq,
                    attempt,
                    error,
                    retry_in_ms,
                    "ClickHouse refuses the rows; the topic stands until that is mended: run `millrace check`"
                );
            } else {
                tracing::warn!(
                    topic = self.topic,
                    batch = batch.seq,
                    attempt,
                    error,
                    retry_in_ms,
                    ?class,
                    "an insert failed and is tried again"
                );
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// Sends a batch once. `body` is its rows as an Arrow IPC stream; `attempt` tells this sending from others under
    /// the same token.
    ///
    /// # Errors
    /// Those of ClickHouse and of the way to it.
    pub async fn send(&self, batch: &Batch, token: &str, attempt: u32, body: Bytes) -> Result<(), Error> {
        let fence = self.claims.fence(&batch.progress);
        let mut insert = self
            .client
            .insert_formatted_with(format!("{}{fence} FORMAT ArrowStream", self.sql_before_fence))
            .with_setting("query_id", format!("millrace-{}-{token}-{attempt}", self.topic))
            .with_setting("log_comment", self.claims.comment(&batch.progress))
            .with_setting("insert_deduplication_token", token)
            .with_setting("insert_deduplicate", "1")
            .with_setting("async_insert", "0")
            // A token holds for a block: one thread and no limit below the batch's own keep the insert one block.
            .with_setting("max_insert_threads", "1")
            .with_setting("min_insert_block_size_rows", "1048449")
            .with_setting("min_insert_block_size_bytes", "268402944")
            // Late events may lie in any month; how many partitions a table has is its owner's decision.
            .with_setting("max_partitions_per_insert_block", "0")
            // The status line must tell the end of the query, not its beginning.
            .with_setting("wait_end_of_query", "1")
            .with_timeouts(Some(self.timeout), Some(self.timeout));
        let mut rest = body;
        while !rest.is_empty() {
            insert.send(rest.split_to(CHUNK.min(rest.len()))).await?;
        }
        faults::at(Point::BodySent);
        insert.end().await
    }

    /// Why ClickHouse takes no rows: the last error, once there were as many in a row as open the circuit breaker.
    pub fn trouble(&self) -> Option<String> {
        let closed = self.breaker.lock().unwrap_or_else(PoisonError::into_inner).state() == BreakerState::Closed;
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone().filter(|_| !closed)
    }

    /// ClickHouse has just answered somebody else: whoever is next may try at once, and nothing is told of earlier trouble,
    /// which nobody might disprove if nothing is left to be inserted.
    pub fn answered(&self) {
        self.with_breaker(|breaker, _| breaker.succeeded());
        self.set_trouble(None);
    }

    fn set_trouble(&self, error: Option<&Error>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = error.map(one_line);
    }

    async fn permit(&self) {
        while let Err(wait) = self.with_breaker(|breaker, now| breaker.permit(now)) {
            tokio::time::sleep(wait).await;
        }
    }

    fn with_breaker<T>(&self, act: impl FnOnce(&mut Breaker, u64) -> T) -> T {
        let now = self.started.elapsed().as_millis() as u64;
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut breaker, now);
        let state = match breaker.state() {
            BreakerState::Closed => 0.0,
            BreakerState::HalfOpen => 1.0,
            BreakerState::Open => 2.0,
        };
        gauge!(names::BREAKER_STATE, "target" => format!("clickhouse/{}", self.topic)).set(state);
        result
    }
}

fn one_line(error: &Error) -> String {
    error.to_string().replace(['\n', '\r'], " ")
}
