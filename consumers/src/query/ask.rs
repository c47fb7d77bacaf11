//! Asks ClickHouse a named query: to read only, within limits of time, rows and bytes, under an id of its own. Values travel
//! as ClickHouse's own parameters, never as SQL. Of a shard any replica answers; of several shards all are read, or there is no
//! answer: one shard's share is never given for the whole.

use std::{
    fmt,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use clickhouse::{Client, error::Error, query::BytesCursor};
use serde_json::Value;
use uuid::Uuid;

use super::{
    Query,
    answer::{Answer, FORMAT, read_answer},
};
use crate::{
    clickhouse::{
        claims::quote,
        client::{client, within},
        errors::{ErrorClass, classify, code, is_connect},
    },
    config, one_line,
};

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

/// For a query over every shard: one that is away is an error, and the right side of a join is of all shards, too.
const EVERY_SHARD: &[(&str, &str)] = &[("skip_unavailable_shards", "0"), ("distributed_product_mode", "global")];

/// How many shards a cluster has by the server's own configuration, and which of the tables read another cluster.
const CLUSTER: &str = "SELECT (SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {cluster:String}), \
     arrayStringConcat(groupArray(name), ', ') FROM system.tables WHERE database = currentDatabase() \
     AND name IN splitByChar(',', {tables:String}) AND NOT startsWith(engine_full, concat('Distributed(', {quoted:String}, ','))";

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
    /// There are several shards, and they cannot be read together: an answer would be a part.
    Apart(String),
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
            Self::Apart(text) => write!(f, "an answer would be that of some shards only: {text}"),
            Self::Refused(text) => write!(f, "ClickHouse refuses the query: {text}"),
        }
    }
}

impl std::error::Error for AskError {}

/// Asks queries of one ClickHouse, or of a cluster.
pub struct Asker {
    /// The replicas of the first shard, by URL. Through any of them every shard is read.
    replicas: Vec<(String, Client)>,
    /// Which of them is asked first: the one that answered last.
    first: AtomicUsize,
    shards: usize,
    cluster: Option<String>,
    limits: Limits,
}

impl Asker {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The files of certificates cannot be used.
    pub fn new(settings: &config::ClickHouse, limits: Limits) -> anyhow::Result<Self> {
        let replica = |url: &String| Ok((url.clone(), client(&settings.at(url))?));
        Ok(Self {
            replicas: settings.replicas(0).iter().map(replica).collect::<anyhow::Result<_>>()?,
            first: AtomicUsize::new(0),
            shards: settings.shard_count(),
            cluster: settings.cluster.clone(),
            limits,
        })
    }

    /// Asks a query with values as [`super::bind`] gives them: the replica that answered last, and of those that are away the
    /// next one. Dropped half-way, the query is given up by the server too.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&self, query: &Query, values: &[(&str, String)]) -> Result<Answer, AskError> {
        let begun = Instant::now();
        let count = self.replicas.len();
        let first = self.first.load(Ordering::Relaxed);
        let mut away = Vec::new();
        for replica in (0..count).map(|next| (first + next) % count) {
            let answer = self.ask_at(replica, query, values).await;
            // One that keeps silent is not asked first again, either, whosever fault it is.
            let is_silent = matches!(answer, Err(AskError::Away(_) | AskError::Slow(_)));
            self.first.store((replica + usize::from(is_silent)) % count, Ordering::Relaxed);
            match answer {
                Err(AskError::Away(text)) if count > 1 => away.push(format!("{}: {text}", self.replicas[replica].0)),
                Err(AskError::Away(text)) => away.push(text),
                answer => return answer.map(|answer| Answer { seconds: begun.elapsed().as_secs_f64(), ..answer }),
            }
        }
        Err(AskError::Away(away.join("; ")))
    }

    /// Asks one replica: for its own rows, or for those of all shards.
    async fn ask_at(&self, replica: usize, query: &Query, values: &[(&str, String)]) -> Result<Answer, AskError> {
        if self.shards == 1 {
            return self.send(replica, &query.name, &query.sql, values).await;
        }
        self.reads_every_shard(replica, &query.everywhere.tables).await?;
        self.send(replica, &query.name, &query.everywhere.sql, values).await
    }

    /// Whether these tables are those of the configured cluster, and it has as many shards as the configuration.
    async fn reads_every_shard(&self, replica: usize, tables: &[String]) -> Result<(), AskError> {
        let apart = |text: String| Err(AskError::Apart(format!("{text} (docs/queries.md)")));
        let expected = self.shards;
        let Some(cluster) = &self.cluster else {
            return apart(format!(
                "the configuration has {expected} shards and no clickhouse.cluster, by which they are read together"
            ));
        };
        let values = [("cluster", cluster.clone()), ("tables", tables.join(",")), ("quoted", quote(cluster))];
        let answer = self.send(replica, "cluster", CLUSTER, &values).await?;
        let row = answer.rows.first().map(Vec::as_slice).unwrap_or_default();
        let (shards, others) = (row.first().and_then(Value::as_u64), row.get(1).and_then(Value::as_str));
        match (shards, others) {
            (Some(found), Some("")) if found == expected as u64 => Ok(()),
            (Some(found), Some("")) => apart(format!(
                "cluster {cluster} has {found} shards by the configuration of ClickHouse, and {expected} by that of Millrace"
            )),
            (_, others) => apart(format!(
                "{} read another cluster than {cluster}: run `millrace migrate --apply`",
                others.unwrap_or("tables")
            )),
        }
    }

    async fn send(&self, replica: usize, name: &str, sql: &str, values: &[(&str, String)]) -> Result<Answer, AskError> {
        let mut refused = None;
        // Who is read-only already may set some settings or none; then its own limits hold besides those that are seen to here.
        for settings in [self.settings(true), self.settings(false), Vec::new()] {
            let mut asked = self.replicas[replica].1.query_raw(sql);
            let id = format!("millrace-query-{name}-{}", Uuid::new_v4().simple());
            // An error that comes late is an error, and no answer that ends in one.
            for (name, value) in [("query_id", id.as_str()), ("wait_end_of_query", "1")] {
                asked = asked.with_setting(name, value);
            }
            for (name, value) in settings {
                asked = asked.with_setting(name, value);
            }
            // Never left away: a user for whom they are others, and who may not change them, gets no answer.
            for (name, value) in if self.shards > 1 { EVERY_SHARD } else { &[] } {
                asked = asked.with_setting(*name, *value);
            }
            for (name, value) in values {
                asked = asked.param(name, value);
            }
            let read = async { self.read(asked.fetch_bytes(FORMAT)?).await };
            let time = self.limits.time;
            return match within(time + (time / 2).min(ON_THE_WAY_MAX), read).await {
                Ok(Some(text)) => self.answer(&text),
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

    fn answer(&self, text: &[u8]) -> Result<Answer, AskError> {
        let (columns, rows) =
            read_answer(text).ok_or_else(|| AskError::Refused("the answer has no columns".to_owned()))?;
        if rows.len() as u64 > self.limits.rows {
            return Err(AskError::Large(format!("{} rows, at most {} are told", rows.len(), self.limits.rows)));
        }
        Ok(Answer { columns, rows, seconds: 0.0 })
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicBool};

    use serde_json::json;

    use super::*;
    use crate::{
        clickhouse::fake::Fake,
        config::{ClickHouse, Shard, example},
        query::shipped,
    };

    const LIMITS: Limits = Limits { time: Duration::from_secs(5), rows: 10, bytes: 1000, threads: 1 };

    fn asker(shards: &[&[&Fake]], cluster: Option<&str>) -> Asker {
        let shard = |fakes: &&[&Fake]| Shard { replicas: fakes.iter().map(|fake| fake.url.clone()).collect() };
        let shards: Vec<Shard> = shards.iter().map(shard).collect();
        let clickhouse = example(|text| text).clickhouse;
        let settings = ClickHouse { shards, cluster: cluster.map(str::to_owned), ..clickhouse };
        Asker::new(&settings, LIMITS).unwrap()
    }

    fn one() -> Result<String, u32> {
        Ok("a\nUInt8\n1\n".to_owned())
    }

    #[tokio::test]
    async fn the_replica_that_answered_last_is_asked_first_and_the_others_in_order_if_it_is_away() {
        // Code 242: it is read-only for now.
        let is_away = Arc::new(AtomicBool::new(true));
        let switched = Arc::clone(&is_away);
        let first = Fake::start(move |_| if switched.load(Ordering::Relaxed) { Err(242) } else { one() }).await;
        let second = Fake::start(|_| Err(497)).await;
        let third = Fake::start(|_| one()).await;
        let query = &shipped()[0];

        let two = asker(&[&[&first, &third]], None);
        for _ in 0..2 {
            assert_eq!(two.ask(query, &[]).await.unwrap().rows, [vec![json!(1)]]);
        }
        assert_eq!((first.asked().len(), third.asked().len()), (1, 2));
        assert!(first.statements()[0].starts_with(&query.sql), "{:?}", first.asked());

        // What is refused is refused: another replica would not say anything else.
        let refusing = asker(&[&[&first, &second, &third]], None);
        assert!(matches!(refusing.ask(query, &[]).await, Err(AskError::Denied(_))));
        assert_eq!((first.asked().len(), second.asked().len(), third.asked().len()), (2, 1, 2));

        let away = asker(&[&[&first]], None);
        assert!(matches!(away.ask(query, &[]).await, Err(AskError::Away(_))));
        is_away.store(false, Ordering::Relaxed);
        assert!(away.ask(query, &[]).await.is_ok());
    }

    #[tokio::test]
    async fn one_shard_never_answers_for_several() {
        let other = Fake::start(|_| panic!("the second shard is not asked from here")).await;
        let query = &shipped()[0];
        let lone = Fake::start(|_| panic!("nobody is asked")).await;
        let refused = asker(&[&[&lone], &[&other]], None).ask(query, &[]).await.unwrap_err();
        assert!(matches!(&refused, AskError::Apart(text) if text.contains("clickhouse.cluster")), "{refused}");

        // What a server says of the cluster: its shards, and tables of another one.
        for (told, words) in [
            ("2\t", None),
            ("1\t", Some("cluster both has 1 shards")),
            ("0\t", Some("cluster both has 0 shards")),
            ("2\torders_all", Some("orders_all read another cluster than both")),
        ] {
            let server = Fake::start(move |sql| match sql.contains("system.clusters") {
                true => Ok(format!("n\to\nUInt64\tString\n{told}\n")),
                false => one(),
            })
            .await;
            let answer = asker(&[&[&server], &[&other]], Some("both")).ask(query, &[]).await;
            match words {
                None => {
                    assert_eq!(answer.unwrap().rows, [vec![json!(1)]]);
                    let asked = &server.asked()[1];
                    assert!(asked.starts_with(&query.everywhere.sql), "{asked}");
                    assert!(asked.contains("skip_unavailable_shards=0"), "{asked}");
                }
                Some(words) => {
                    assert!(matches!(&answer, Err(AskError::Apart(text)) if text.contains(words)), "{answer:?}");
                    assert_eq!(server.asked().len(), 1);
                }
            }
        }
    }
}
