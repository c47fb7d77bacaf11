//! Lands batches: one fenced insert of one block under one deduplication token, tried until its outcome is known.

use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use clickhouse::error::Error;
use hyper::body::Bytes;
use metrics::{counter, histogram};
use millrace_pipeline::{batch::Batch, encode::arrow_stream};

use super::{
    claims::{Claims, Lease},
    errors::{ErrorClass, classify, is_connect, label},
    replicas::Replicas,
    replication::Replication,
    shape::{Look, Shape, Watch},
    table::Table,
};
use crate::{
    config::Retry,
    faults::{self, Guard, Point},
    one_line,
    retry::{Status, Target},
    telemetry::{
        metrics as names, spans,
        stages::{Stage, Stages},
    },
};

/// How long an insert that may have landed, in whole or in part, is sent again under its token, at most. After it, the
/// partitions are taken over again, which reads the truth from the table.
const SETTLE_WITHIN: Duration = Duration::from_secs(20);

/// The server remembers the last so many tokens of a table, its deduplication window, one for each table partition that
/// an insert touches. All writers of the table together are assumed to use no more of them in a second than this.
const TOKENS_PER_SECOND: u64 = 250;

/// Bytes handed to the connection at once.
const CHUNK: usize = 1 << 20;

/// Inserts into one table.
pub struct Inserter {
    replicas: Replicas,
    claims: Claims,
    topic: String,
    shape: Shape,
    timeout: Duration,
    settle_within: Duration,
    target: Target,
    stages: Stages,
    /// For spans, if there are to be any.
    spans: Option<spans::Target>,
}

/// How an insert ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every row is in the table, once.
    Durable,
    /// ClickHouse refused the rows, because a partition of the batch is claimed by somebody else. None has landed,
    /// unless by an earlier attempt whose answer was lost.
    Refused,
    /// The rows may or may not be there, and this process may not find out by trying: take the partitions over again.
    Unsettled,
    /// The table was altered and does not take the rows any more; in what way, and what to do. As unsettled otherwise.
    Drifted(String),
}

impl Inserter {
    /// Inserts into `database`.`table`, whose columns are `description`; `columns` names those that batches have.
    pub fn new(
        servers: impl Into<Replicas>,
        claims: Claims,
        topic: &str,
        qualified_table: &str,
        description: &Table,
        columns: &[String],
        timeout: Duration,
    ) -> Self {
        let target = Target::new(target(topic, claims.shard), &Retry::default());
        Self {
            replicas: servers.into(),
            claims,
            topic: topic.to_owned(),
            shape: Shape::new(qualified_table, columns, description),
            timeout,
            settle_within: settle_within(description.deduplication_window),
            target,
            stages: Stages::new(topic),
            spans: None,
        }
    }

    /// Has every attempt make a span of its own, within that of its batch.
    #[must_use]
    pub(crate) fn traced(self, spans: spans::Target) -> Self {
        Self { spans: Some(spans), ..self }
    }

    /// Tries again by these rules and not by the default ones.
    #[must_use]
    pub fn retrying(self, retry: &Retry) -> Self {
        let target = Target::new(self.target.status().target, retry);
        Self { target, ..self }
    }

    /// Has every insert refuse itself if the table is not as described any more, so that nothing is written into a column
    /// that was narrowed; what is still taken is written on, and what is not ends in [`Outcome::Drifted`].
    #[must_use]
    pub fn watching(self, watch: Watch) -> Self {
        Self { shape: self.shape.watched(watch), ..self }
    }

    /// Inserts a batch's rows, trying again under the same token for as long as that can settle it. A batch in
    /// flight is held once, in the body's pieces, and is let go of when this returns, whatever becomes of `batch`.
    pub async fn land(&self, batch: &mut Batch) -> Outcome {
        if batch.rows.num_rows() == 0 {
            return Outcome::Durable;
        }
        let (rows, encoding) = (batch.rows.num_rows(), Instant::now());
        let body = match body(&batch.rows) {
            Ok(body) => body,
            Err(error) => {
                self.stages.failed(Stage::Encode, "no_arrow_form", 1);
                tracing::error!(%error, topic = self.topic, "a batch has no Arrow form; its partitions are read again");
                return Outcome::Unsettled;
            }
        };
        self.stages.passed(Stage::Encode, rows, encoding.elapsed());
        batch.rows = RecordBatch::new_empty(batch.rows.schema());
        let mut token = uuid::Uuid::new_v4().to_string();
        let mut attempt = 0;
        let mut unsure_since: Option<Instant> = None;
        let mut lease = None;
        loop {
            let call = self.target.permit().await;
            if unsure_since.is_some_and(|since| since.elapsed() > self.settle_within) {
                tracing::warn!(
                    topic = self.topic,
                    batch = batch.seq,
                    settle_within_ms = self.settle_within.as_millis() as u64,
                    "an insert cannot be settled by sending it again: its token may be forgotten by now"
                );
                return Outcome::Unsettled;
            }
            if self.claims.are_left() {
                // The breaker is told of nothing: nobody was called.
                tracing::warn!(
                    topic = self.topic,
                    batch = batch.seq,
                    "another replica is written to now: the partitions of the batch are taken over again"
                );
                return Outcome::Unsettled;
            }
            let begun = Instant::now();
            if unsure_since.is_none() {
                lease = self.claims.lease();
            }
            let shape = self.shape.number();
            let span = self.spans.as_ref().map(|target| target.attempt(rows, attempt));
            let replica = lease.map_or_else(|| self.replicas.current(), |lease| lease.replica);
            let limit = attempt_within(self.timeout, self.settle_within, unsure_since.map(|since| since.elapsed()));
            let sent = self.send_within(limit, batch, (&token, attempt), lease, &body).await;
            span.into_iter().for_each(|span| span.ended(&sent));
            self.stages.took(Stage::Insert, begun.elapsed());
            let Err(error) = sent else {
                call.succeeded();
                self.replicas.answered(replica);
                self.stages.came(Stage::Insert, rows as u64);
                histogram!(names::INSERT_DURATION, "topic" => self.topic.clone()).record(begun.elapsed());
                return Outcome::Durable;
            };
            let class = classify(&error);
            let labels = [("topic", self.topic.clone()), ("code", label(&error))];
            counter!(names::INSERT_FAILURES, &labels).increment(1);
            self.stages.failed(Stage::Insert, label(&error), 1);
            if class == ErrorClass::Fenced {
                counter!(names::FENCE_REFUSALS, "topic" => self.topic.clone()).increment(1);
                call.succeeded();
                tracing::warn!(
                    topic = self.topic,
                    batch = batch.seq,
                    "ClickHouse refused an insert: a partition of it is claimed by another consumer"
                );
                return Outcome::Refused;
            }
            if class == ErrorClass::TooLate {
                call.succeeded();
                tracing::warn!(
                    topic = self.topic,
                    batch = batch.seq,
                    "ClickHouse was started anew, its clock was set, or an insert was long on its way: its partitions are taken over again"
                );
                return Outcome::Unsettled;
            }
            if matches!(class, ErrorClass::Altered | ErrorClass::Permanent) {
                match self.shape.look_again(self.replicas.at(replica), shape).await {
                    Look::Fits if class == ErrorClass::Altered => {
                        call.succeeded();
                        continue;
                    }
                    Look::Drifted(why) => return Outcome::Drifted(why),
                    Look::Fits | Look::Same | Look::Unknown => {}
                }
            }
            call.failed(one_line(&error));
            if self.replicas.failed(replica) {
                return Outcome::Unsettled;
            }
            // Whatever the server says, some of the table's partitions may have taken their rows before it failed.
            if !is_connect(&error) && !matches!(class, ErrorClass::Auth | ErrorClass::Altered) {
                unsure_since.get_or_insert(begun);
            }
            attempt += 1;
            if faults::without(Guard::Token) {
                token = uuid::Uuid::new_v4().to_string();
            }
            counter!(names::INSERT_RETRIES, "topic" => self.topic.clone()).increment(1);
            let delay = self.target.delay(attempt);
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

    /// Sends a batch once. `body` is that of its rows; `attempt` tells this sending from others under the same token, and
    /// `lease` is what it was given when it was sent first.
    ///
    /// # Errors
    /// Those of ClickHouse and of the way to it.
    pub async fn send(
        &self,
        batch: &Batch,
        token: &str,
        attempt: u32,
        lease: Option<Lease>,
        body: &[Bytes],
    ) -> Result<(), Error> {
        self.send_within(self.timeout, batch, (token, attempt), lease, body).await
    }

    async fn send_within(
        &self,
        limit: Duration,
        batch: &Batch,
        (token, attempt): (&str, u32),
        lease: Option<Lease>,
        body: &[Bytes],
    ) -> Result<(), Error> {
        let fence = self.claims.fence(&batch.progress, lease);
        let replica = lease.map_or_else(|| self.replicas.current(), |lease| lease.replica);
        let mut insert = self
            .replicas
            .at(replica)
            .insert_formatted_with(self.shape.statement(&fence))
            .with_setting("query_id", format!("millrace-{}-{token}-{attempt}", self.topic))
            .with_setting("log_comment", self.claims.comment(&batch.progress))
            .with_setting("insert_deduplication_token", token)
            .with_setting("insert_deduplicate", "1")
            .with_setting("async_insert", "0")
            // A rollup counts a repetition that the table drops, unless it has the token too; docs/analytics.md.
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
            // A token holds for a block: one thread and no limit below the batch's own keep the insert one block.
            .with_setting("max_insert_threads", "1")
            .with_setting("min_insert_block_size_rows", "1048449")
            .with_setting("min_insert_block_size_bytes", "268402944")
            // Late events may lie in any month; how many partitions a table has is its owner's decision.
            .with_setting("max_partitions_per_insert_block", "0")
            // The fence may throw with a code of its own; and what began in time has to end in time.
            .with_setting("allow_custom_error_code_in_throwif", "1")
            .with_setting("max_execution_time", limit.as_secs().max(1).to_string())
            // The status line must tell the end of the query, not its beginning.
            .with_setting("wait_end_of_query", "1")
            .with_timeouts(Some(limit), Some(limit));
        if self.claims.replication.is_some() {
            // An insert that waits for its quorum holds up whoever waits for it to end.
            insert = insert.with_setting("insert_quorum_timeout", self.timeout.as_millis().to_string());
            for (name, value) in Replication::INSERTED {
                insert = insert.with_setting(*name, *value);
            }
        }
        for piece in body {
            let mut rest = piece.clone();
            while !rest.is_empty() {
                insert.send(rest.split_to(CHUNK.min(rest.len()))).await?;
            }
        }
        faults::at(Point::BodySent);
        insert.end().await
    }

    /// Why ClickHouse takes no rows: the last error, once there were as many in a row as open the circuit breaker.
    pub fn trouble(&self) -> Option<String> {
        self.target.trouble()
    }

    /// ClickHouse has just answered somebody else, as [`Target::answered`].
    pub fn answered(&self) {
        self.target.answered();
    }

    /// How its breaker is.
    pub fn status(&self) -> Status {
        self.target.status()
    }
}

/// Name of the circuit breaker of a topic's inserts, into one of several shards or the only one.
fn target(topic: &str, shard: Option<usize>) -> String {
    shard.map_or_else(|| format!("clickhouse/{topic}"), |shard| format!("clickhouse/{topic}/{shard}"))
}

/// Rows as an Arrow IPC stream, in pieces that lie in memory once.
///
/// # Errors
/// When a column's type has no Arrow form.
pub fn body(rows: &RecordBatch) -> Result<Vec<Bytes>, ArrowError> {
    Ok(arrow_stream(rows)?.into_iter().map(Bytes::from_owner).collect())
}

/// How long a token is sure to be remembered after the first attempt began: half of the window's tokens, since the other
/// half may be used while the last attempt runs. Without a window there are no tokens.
fn settle_within(deduplication_window: u64) -> Duration {
    Duration::from_millis(deduplication_window.saturating_mul(500) / TOKENS_PER_SECOND).min(SETTLE_WITHIN)
}

/// Longest that an attempt may take, `unsure_for` so long after the first that may have landed began: a repetition has to end while
/// its token is still remembered.
fn attempt_within(timeout: Duration, settle_within: Duration, unsure_for: Option<Duration>) -> Duration {
    let left = |unsure_for| (2 * settle_within).saturating_sub(unsure_for).max(Duration::from_secs(1));
    unsure_for.map_or(timeout, |unsure_for| timeout.min(left(unsure_for)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_ends_while_its_token_is_remembered() {
        let s = Duration::from_secs;
        assert_eq!(attempt_within(s(60), s(20), None), s(60));
        assert_eq!(attempt_within(s(60), s(20), Some(s(1))), s(39));
        assert_eq!(attempt_within(s(60), s(20), Some(s(20))), s(20));
        assert_eq!(attempt_within(s(10), s(20), Some(s(20))), s(10));
        assert_eq!(attempt_within(s(60), s(0), Some(s(0))), s(1));
    }

    #[test]
    fn the_breaker_of_one_shard_of_several_is_told_apart() {
        assert_eq!([target("orders", None), target("orders", Some(1))], ["clickhouse/orders", "clickhouse/orders/1"]);
    }

    #[test]
    fn a_token_is_trusted_for_as_long_as_the_window_is_sure_to_hold_it() {
        assert_eq!(settle_within(0), Duration::ZERO);
        assert_eq!(settle_within(100), Duration::from_millis(200));
        assert_eq!(settle_within(10_000), Duration::from_secs(20));
        assert_eq!(settle_within(u64::MAX), SETTLE_WITHIN);
    }
}
