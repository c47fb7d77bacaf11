//! HTTP on loopback: statements to ClickHouse as the administrator, and metrics. Never goes through a proxy.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::stack::Stack;

/// Filling or counting a table of 100 million rows takes minutes on two cores.
const TIMEOUT: Duration = Duration::from_secs(900);

/// ClickHouse, asked by the administrator.
#[derive(Clone, Debug)]
pub(crate) struct ClickHouse {
    agent: ureq::Agent,
    url: String,
    user: String,
    password: String,
}

impl ClickHouse {
    /// # Errors
    /// If the password cannot be read.
    pub(crate) fn new(stack: &Stack) -> Result<Self> {
        Ok(Self {
            agent: agent(TIMEOUT),
            url: stack.clickhouse.clone(),
            user: stack.admin.user.clone(),
            password: stack.admin.password()?,
        })
    }

    /// What it answers, as TabSeparated; nothing of it is logged by the server, so that measuring makes no parts of its own.
    ///
    /// # Errors
    /// If it refuses, with its own words.
    pub(crate) fn ask(&self, database: &str, statement: &str) -> Result<String> {
        let mut response = self
            .agent
            .post(format!("{}/?database={database}&log_queries=0", self.url))
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password)
            .send(statement)
            .with_context(|| format!("no answer from ClickHouse to {statement}"))?;
        let body = response.body_mut().read_to_string().context("read the answer of ClickHouse")?;
        // A status of 200 may go with an exception that came later.
        ensure!(
            response.status() == 200 && !response.headers().contains_key("X-ClickHouse-Exception-Code"),
            "ClickHouse refuses {statement}: {}",
            body.lines().next().unwrap_or_default()
        );
        Ok(body.trim_end().to_owned())
    }

    /// The numbers of the one row that it answers.
    ///
    /// # Errors
    /// If it refuses, or answers something else.
    pub(crate) fn numbers<const N: usize>(&self, database: &str, statement: &str) -> Result<[f64; N]> {
        let answer = self.ask(database, statement)?;
        let values: Vec<f64> = answer.split('\t').filter_map(|value| value.parse().ok()).collect();
        values.try_into().ok().with_context(|| format!("ClickHouse answers {statement} with {answer:?}"))
    }
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).proxy(None).build().into()
}

/// The body of a GET that answers 200.
///
/// # Errors
/// If there is no answer within 5 s, or another status.
pub(crate) fn get(url: &str) -> Result<String> {
    let mut response =
        agent(Duration::from_secs(5)).get(url).call().with_context(|| format!("no answer from {url}"))?;
    let body = response.body_mut().read_to_string().with_context(|| format!("read the answer of {url}"))?;
    if response.status() != 200 {
        bail!("{url} answers {}: {}", response.status(), body.lines().next().unwrap_or_default());
    }
    Ok(body)
}
