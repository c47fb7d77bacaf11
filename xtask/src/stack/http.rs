//! Small HTTP requests to the parts, on loopback: readiness and administration. Never goes through a proxy.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

const TIMEOUT: Duration = Duration::from_secs(5);

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None).build().into()
}

/// The body of a GET that answers 200.
///
/// # Errors
/// If there is no answer within 5 s, or another status.
pub(crate) fn get(url: &str) -> Result<String> {
    let mut response = agent().get(url).call().with_context(|| format!("no answer from {url}"))?;
    let body = response.body_mut().read_to_string().unwrap_or_default();
    if response.status() != 200 {
        bail!("{url} answers {}: {}", response.status(), first_line(&body));
    }
    Ok(body)
}

/// Runs one statement in ClickHouse and returns what it answers (TabSeparated).
///
/// # Errors
/// If there is no answer within 5 s, or ClickHouse refuses.
pub(crate) fn clickhouse(url: &str, user: &str, password: &str, statement: &str) -> Result<String> {
    let mut response = agent()
        .post(url)
        .header("X-ClickHouse-User", user)
        .header("X-ClickHouse-Key", password)
        .send(statement)
        .with_context(|| format!("no answer from ClickHouse at {url}"))?;
    let body = response.body_mut().read_to_string().unwrap_or_default();
    if response.status() != 200 {
        bail!("ClickHouse refuses {user}: {}", first_line(&body));
    }
    Ok(body)
}

fn first_line(body: &str) -> &str {
    body.lines().next().unwrap_or_default()
}
