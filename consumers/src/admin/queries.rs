//! Named queries over the API: which there are, and the answer of one. A caller gives values, never SQL, and what all of them
//! together may cost ClickHouse is bounded.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Path, RawQuery, State, rejection::PathRejection},
    http::StatusCode,
    response::Response,
};
use reqwest::Url;
use serde_json::json;
use tokio::sync::Semaphore;

use super::{
    api::{Api, json_of},
    problem::Problem,
};
use crate::{
    config,
    query::{self, AskError, Asker, Given, Limits},
};

/// Queries under way; more wait for a tenth of the time that a request may take.
const AT_ONCE: usize = 2;
const MOST_ROWS: u64 = 10_000;
const LONGEST_ANSWER: usize = 8 << 20;
const THREADS: u8 = 2;
/// What values begin with in the query string.
const PARAMETER: &str = "param_";

/// Asks them, a few at a time.
pub(super) struct Queries {
    asker: Asker,
    free: Semaphore,
    patience: Duration,
}

impl Queries {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// The files of ClickHouse's certificates cannot be used.
    pub(super) fn new(clickhouse: &config::ClickHouse, request_timeout: Duration) -> anyhow::Result<Self> {
        let limits = Limits { time: request_timeout / 2, rows: MOST_ROWS, bytes: LONGEST_ANSWER, threads: THREADS };
        let asker = Asker::new(clickhouse, limits)?;
        Ok(Self { asker, free: Semaphore::new(AT_ONCE), patience: request_timeout / 10 })
    }

    async fn answer(&self, name: &str, given: &[Given]) -> Result<query::Answer, Problem> {
        let query = query::named(name).map_err(|text| Problem::new(StatusCode::NOT_FOUND, "no_such_query", text))?;
        let invalid = |text: String| Problem::new(StatusCode::BAD_REQUEST, "parameter_invalid", text);
        let values = query::bind(query, given).map_err(|error| invalid(error.to_string()))?;
        let Ok(Ok(_permit)) = tokio::time::timeout(self.patience, self.free.acquire()).await else {
            let detail = format!("{AT_ONCE} queries are under way, which is all that there may be; try again");
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "queries_busy", detail).retry_after(1));
        };
        self.asker.ask(query, &values).await.map_err(|error| problem(name, &error))
    }
}

fn problem(name: &str, error: &AskError) -> Problem {
    match error {
        AskError::Slow(limit) => {
            let detail =
                format!("no answer within {limit:?}; ask for less, such as fewer minutes, or use `millrace query`");
            Problem::new(StatusCode::GATEWAY_TIMEOUT, "query_too_slow", detail)
        }
        AskError::Large(_) => {
            let detail = format!("the answer has more than {MOST_ROWS} rows; ask for less, or use `millrace query`");
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "answer_too_large", detail)
        }
        AskError::Value(_) => {
            let detail = "a value is not of its parameter's type; GET /v1/queries tells the types";
            Problem::new(StatusCode::BAD_REQUEST, "parameter_invalid", detail)
        }
        AskError::Missing(text) => {
            tracing::debug!(query = name, error = text, "a table of a query is missing");
            let detail = "a table or column of the query is not there; `millrace migrate --apply` makes those that the configuration names";
            Problem::new(StatusCode::CONFLICT, "table_missing", detail)
        }
        AskError::Denied(text) => {
            tracing::warn!(query = name, error = text, "the user of [clickhouse] may not read what a query reads");
            let detail = "the user of [clickhouse] may not read a table of the query and needs GRANT SELECT on it";
            Problem::new(StatusCode::BAD_GATEWAY, "query_denied", detail)
        }
        AskError::Away(text) => {
            tracing::debug!(query = name, error = text, "ClickHouse cannot be asked a query");
            let detail = "ClickHouse cannot be asked now; GET /v1/status tells of its breakers";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "clickhouse_unavailable", detail).retry_after(5)
        }
        AskError::Apart(_) => Problem::new(StatusCode::CONFLICT, "shards_apart", error.to_string()),
        AskError::Refused(text) => {
            tracing::warn!(query = name, error = text, "ClickHouse refused a query of the admin API");
            let detail = "ClickHouse refuses the query; the log of this process has its words";
            Problem::new(StatusCode::BAD_GATEWAY, "query_refused", detail)
        }
    }
}

pub(super) async fn list() -> Response {
    json_of(StatusCode::OK, &json!({ "queries": query::shipped() }))
}

pub(super) async fn ask(
    State(api): State<Arc<Api>>,
    name: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    // A name that is no UTF-8 is nobody's.
    let name = name.map_or_else(|_| String::new(), |Path(name)| name);
    let given = given(query.as_deref().unwrap_or_default())
        .map_err(|text| Problem::new(StatusCode::BAD_REQUEST, "parameter_invalid", text))?;
    Ok(json_of(StatusCode::OK, &api.queries().answer(&name, &given).await?))
}

/// The values of a query string.
fn given(query: &str) -> Result<Vec<Given>, String> {
    // The host is of no matter; it makes a URL of it.
    let url =
        Url::parse(&format!("http://localhost/?{query}")).map_err(|_| "the query string cannot be read".to_owned())?;
    let pair = |(name, value): (std::borrow::Cow<'_, str>, std::borrow::Cow<'_, str>)| {
        let name = name
            .strip_prefix(PARAMETER)
            .ok_or_else(|| "expected only parameters of the query, as param_NAME=VALUE".to_owned())?;
        Ok((name.to_owned(), value.into_owned()))
    };
    url.query_pairs().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClickHouse, Shard, example};

    #[tokio::test]
    async fn a_query_that_takes_too_long_and_one_too_many_are_told_as_that() {
        // It takes requests and never answers.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let settings = ClickHouse { url, ..example(|text| text).clickhouse };
        let queries = Queries::new(&settings, Duration::from_secs(4)).unwrap();
        let ask = || queries.answer("freshness", &[]);
        let (first, second, third) = tokio::join!(ask(), ask(), ask());
        let told =
            |answer: Result<query::Answer, Problem>| answer.map_err(|problem| (problem.status.as_u16(), problem.code));
        assert_eq!(told(first), Err((504, "query_too_slow")));
        assert_eq!(told(second), Err((504, "query_too_slow")));
        assert_eq!(told(third), Err((429, "queries_busy")));
    }

    #[tokio::test]
    async fn several_shards_without_a_cluster_are_refused_in_words_and_not_asked() {
        let shard = |url: &str| Shard { replicas: vec![url.to_owned()] };
        let shards = vec![shard("http://127.0.0.1:1"), shard("http://127.0.0.1:2")];
        let settings = ClickHouse { shards, ..example(|text| text).clickhouse };
        let queries = Queries::new(&settings, Duration::from_secs(4)).unwrap();
        let problem = queries.answer("freshness", &[]).await.unwrap_err();
        assert_eq!((problem.status.as_u16(), problem.code), (409, "shards_apart"));
        let words = ["of some shards only", "2 shards", "clickhouse.cluster"];
        assert!(words.iter().all(|words| problem.detail.contains(words)), "{}", problem.detail);
    }

    #[test]
    fn values_are_read_from_the_query_string_and_nothing_else_is() {
        let pairs = [("minutes", "5"), ("country", "a b&c=d'é")];
        let expected = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(given("param_minutes=5&param_country=a+b%26c%3Dd%27%C3%A9").unwrap(), expected);
        assert_eq!(given("").unwrap(), []);
        for other in ["minutes=5", "query=SELECT+1", "readonly=0", "param_minutes=5&database=system", "=x"] {
            assert!(given(other).unwrap_err().contains("param_NAME"), "{other}");
        }
    }
}
