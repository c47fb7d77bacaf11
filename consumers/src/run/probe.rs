//! Freshness as a reader sees it: one row of a batch that is about to be sent is asked for by a SELECT until it is there, however
//! the insert goes. It writes nothing; where it can be wrong is told in docs/metrics.md.

use std::time::{Duration, Instant};

use arrow_array::{
    cast::AsArray,
    types::{Int32Type, Int64Type},
};
use clickhouse::error::Error;
use metrics::{counter, gauge, histogram};
use millrace_pipeline::{
    batch::Batch,
    project::{INGESTED_AT_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN},
};

use super::target::qualified;
use crate::{
    clickhouse::{client::within, replicas::Replicas},
    config::{ClickHouse, Topic},
    one_line,
    telemetry::metrics as names,
    time::now_ms,
};

/// The pause between looks is such a share of the event's age, and no shorter than this.
const PAUSES_PER_AGE: u32 = 20;
const SHORTEST_PAUSE: Duration = Duration::from_millis(20);
/// A row that has not been seen for so long is given up on.
const GIVE_UP_AFTER: Duration = Duration::from_secs(900);
/// The insert may have begun so long before the probe.
const HEAD_START_MS: i64 = 1000;

/// Asks for rows of one table.
pub(super) struct Probe {
    replicas: Replicas,
    topic: String,
    table: String,
    timeout: Duration,
    insert_timeout_ms: i64,
}

/// An event whose row is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    partition: i32,
    offset: i64,
    published_ms: i64,
}

impl Expected {
    /// The first event of a batch, which waited longest; `None` if it has none.
    pub(super) fn of(batch: &Batch) -> Option<Self> {
        let partitions = batch.rows.column_by_name(PARTITION_COLUMN)?.as_primitive_opt::<Int32Type>()?;
        let offsets = batch.rows.column_by_name(OFFSET_COLUMN)?.as_primitive_opt::<Int64Type>()?;
        let published_ms = *batch.published_ms.first()?;
        (!partitions.is_empty()).then(|| Self {
            partition: partitions.value(0),
            offset: offsets.value(0),
            published_ms,
        })
    }

    fn age(&self) -> Duration {
        Duration::from_millis(u64::try_from(now_ms() - self.published_ms).unwrap_or(0))
    }
}

impl Probe {
    pub(super) fn new(replicas: &Replicas, settings: &ClickHouse, topic: &Topic) -> Self {
        let replicas = replicas.clone();
        let (topic, table) = (topic.label(), qualified(settings, &topic.table));
        let insert_timeout_ms = settings.insert_timeout.as_millis() as i64;
        Self { replicas, topic, table, timeout: settings.query_timeout, insert_timeout_ms }
    }

    /// Looks until the row is there, and tells how old its event was then.
    pub(super) async fn watch(&self, expected: Expected) {
        let begun = Instant::now();
        let pending = gauge!(names::PROBE_PENDING, "topic" => self.topic.clone());
        let mut since = Since::default();
        let outcome = loop {
            let elapsed_ms = begun.elapsed().as_millis() as i64;
            let asked = within(self.timeout, self.look(&expected, &since, elapsed_ms)).await;
            let age = expected.age();
            match asked {
                Ok(Look { there: 1.., .. }) => {
                    histogram!(names::PROBE_FRESHNESS, "topic" => self.topic.clone()).record(age);
                    break "visible";
                }
                Ok(Look { now_ms, .. }) => since.looked(now_ms, elapsed_ms, self.insert_timeout_ms),
                Err(error) => {
                    let error = one_line(error);
                    tracing::debug!(topic = self.topic, error, "the probe has no answer");
                }
            }
            if begun.elapsed() > GIVE_UP_AFTER {
                break "given_up";
            }
            pending.set(age.as_secs_f64());
            tokio::time::sleep((age / PAUSES_PER_AGE).max(SHORTEST_PAUSE)).await;
        };
        pending.set(0.0);
        counter!(names::PROBES, "topic" => self.topic.clone(), "outcome" => outcome).increment(1);
    }

    async fn look(&self, expected: &Expected, since: &Since, elapsed_ms: i64) -> Result<Look, Error> {
        let Expected { partition, offset, .. } = expected;
        let since = since.sql(elapsed_ms);
        let sql = format!(
            "SELECT count() AS there, toUnixTimestamp64Milli(now64(3)) AS now_ms FROM {} \
             WHERE {INGESTED_AT_COLUMN} >= {since} AND {PARTITION_COLUMN} = {partition} AND {OFFSET_COLUMN} = {offset}",
            self.table
        );
        let look = self.replicas.client().query_raw(&sql).with_setting("max_threads", "1");
        look.with_setting("log_comment", r#"{"millrace":"probe"}"#).fetch_one::<Look>().await
    }
}

#[derive(clickhouse::Row, serde::Deserialize)]
struct Look {
    there: u64,
    /// By the server's clock, in milliseconds since 1970.
    now_ms: i64,
}

/// From when on rows are looked through: all by the server's clock, so that the index of that column leaves little to be
/// read. A row has the time at which its insert began, and is seen when that ends.
#[derive(Debug, Default)]
struct Since {
    /// Before the probe began, once that is known.
    ms: Option<i64>,
}

impl Since {
    /// As SQL, for a look that begins `elapsed_ms` after the probe.
    fn sql(&self, elapsed_ms: i64) -> String {
        match self.ms {
            None => format!("now64(3) - INTERVAL {} MILLISECOND", elapsed_ms + HEAD_START_MS),
            Some(ms) => format!("fromUnixTimestamp64Milli(toInt64({ms}))"),
        }
    }

    /// A look at `now_ms` by the server's clock did not find the row: it was not there, and an insert that ends later began no
    /// earlier than its timeout before.
    fn looked(&mut self, now_ms: i64, elapsed_ms: i64, insert_timeout_ms: i64) {
        let begun_ms = now_ms - elapsed_ms - HEAD_START_MS;
        self.ms = Some(self.ms.unwrap_or(begun_ms).max(now_ms - insert_timeout_ms - HEAD_START_MS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_looked_through_from_before_the_probe_on_and_no_longer_than_an_insert_may_take() {
        let mut since = Since::default();
        assert_eq!(since.sql(250), "now64(3) - INTERVAL 1250 MILLISECOND");
        since.looked(1_000_000, 250, 60_000);
        assert_eq!(since.ms, Some(998_750));
        since.looked(1_030_000, 30_250, 60_000);
        assert_eq!(since.ms, Some(998_750), "an insert that began then may go on");
        since.looked(1_100_000, 100_250, 60_000);
        assert_eq!(since.sql(100_300), "fromUnixTimestamp64Milli(toInt64(1039000))");
    }
}
