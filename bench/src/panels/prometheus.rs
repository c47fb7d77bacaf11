//! What Prometheus answers to range queries, by its HTTP API.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Values of a curve at most.
const STEPS: f64 = 240.0;

/// A Prometheus.
#[derive(Debug)]
pub(super) struct Prometheus {
    agent: ureq::Agent,
    url: String,
}

/// A span of time, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) from: f64,
    pub(super) until: f64,
    pub(super) step: f64,
}

/// A curve: its name, and values at times.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Found>,
}

#[derive(Deserialize)]
struct Found {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

/// Seconds since 1970.
///
/// # Errors
/// The clock stands before 1970.
pub(super) fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("tell the time")?.as_secs_f64())
}

impl Range {
    /// # Errors
    /// It is empty.
    pub(super) fn new(until: f64, seconds: u32) -> Result<Self> {
        ensure!(seconds > 0, "--seconds 0 leaves nothing to draw; expected at least 1");
        let seconds = f64::from(seconds);
        Ok(Self { from: until - seconds, until, step: (seconds / STEPS).ceil().max(1.0) })
    }
}

impl Prometheus {
    pub(super) fn new(url: &str) -> Self {
        let config =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None);
        Self { agent: config.build().into(), url: url.trim_end_matches('/').to_owned() }
    }

    /// The curves of an expression, named as `legend` says, which is in Grafana's words: `{{label}}`.
    ///
    /// # Errors
    /// No answer, or Prometheus refuses the expression, in its words.
    pub(super) fn range(&self, expression: &str, legend: &str, range: Range) -> Result<Vec<Series>> {
        let url = format!("{}/api/v1/query_range", self.url);
        let request = self.agent.get(&url).query("query", expression).query("start", range.from.to_string());
        let request = request.query("end", range.until.to_string()).query("step", range.step.to_string());
        let mut response = request.call().with_context(|| format!("no answer from {url}"))?;
        let body = response.body_mut().read_to_string().with_context(|| format!("read what {url} answers"))?;
        let answer: Answer = serde_json::from_str(&body).with_context(|| format!("{url} answers {body:.200}"))?;
        let Some(data) = answer.data else { bail!("Prometheus refuses {expression}: {}", answer.error) };
        Ok(data.result.into_iter().map(|found| found.series(legend)).collect())
    }
}

impl Found {
    fn series(self, legend: &str) -> Series {
        let mut name = legend.to_owned();
        for (label, value) in &self.metric {
            name = name.replace(&format!("{{{{{label}}}}}"), value);
        }
        // As in Grafana, a label that is not there is nothing.
        while let Some((before, rest)) = name.split_once("{{") {
            let behind = rest.split_once("}}").map_or("", |(_, behind)| behind);
            name = format!("{before}{behind}");
        }
        let name = name.trim().to_owned();
        let value = |(at, text): (f64, String)| Some((at, text.parse::<f64>().ok()?));
        let points = self.values.into_iter().filter_map(value).filter(|(_, value)| value.is_finite()).collect();
        Series { name, points }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_named_by_their_labels_and_values_that_are_no_numbers_are_left_out() {
        let answer = r#"{"metric":{"stage":"decode"},"values":[[1.5,"2"],[2.5,"NaN"],[3.5,"4"]]}"#;
        let found: Found = serde_json::from_str(answer).unwrap();
        let series = found.series("{{stage}} {{reason}}");
        assert_eq!((series.name.as_str(), series.points.as_slice()), ("decode", &[(1.5, 2.0), (3.5, 4.0)][..]));
    }
}
