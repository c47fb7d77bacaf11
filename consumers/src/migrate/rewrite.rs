//! Parts that the server rewrites after a type was changed: how many are left, until none is.

use std::time::Duration;

use anyhow::{Result, bail};
use clickhouse::{Client, Row, error::Error};
use serde::Deserialize;

use crate::{
    clickhouse::{
        client::within,
        errors::{ErrorClass, classify},
    },
    config::ClickHouse,
};

/// How often the server is asked.
const POLL: Duration = Duration::from_millis(500);

#[derive(Row, Deserialize)]
struct Unfinished {
    mutations: u64,
    parts: i64,
    failure: String,
}

/// Parts that are still to be rewritten; `None` if there are none, or if this user may not know.
///
/// # Errors
/// Those of ClickHouse.
pub(super) async fn parts_to_do(client: &Client, settings: &ClickHouse, table: &str) -> Result<Option<i64>, Error> {
    Ok(unfinished(client, settings, table).await?.map(|unfinished| unfinished.parts))
}

/// Waits until all parts are rewritten, and tells how many are left whenever that has changed.
///
/// # Errors
/// The server cannot rewrite a part, and why; or those of ClickHouse.
pub(super) async fn finish(
    client: &Client,
    settings: &ClickHouse,
    table: &str,
    tell: &impl Fn(&str) -> Result<()>,
) -> Result<()> {
    let mut told = None;
    while let Some(Unfinished { parts, failure, .. }) = unfinished(client, settings, table).await? {
        if !failure.is_empty() {
            bail!(
                "table {table}: the server cannot rewrite a part, and tries again until it can; find out why, or end it by hand (KILL MUTATION WHERE table = '{table}'): {failure}"
            );
        }
        if told != Some(parts) {
            told = Some(parts);
            tell(&format!(
                "      table {table}: {parts} parts are still to be rewritten; interrupt if you like, it goes on"
            ))?;
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

async fn unfinished(client: &Client, settings: &ClickHouse, table: &str) -> Result<Option<Unfinished>, Error> {
    let unfinished = client
        .query(
            "SELECT count() AS mutations, sum(parts_to_do) AS parts, any(latest_fail_reason) AS failure \
             FROM system.mutations WHERE database = ? AND table = ? AND NOT is_done AND NOT is_killed",
        )
        .bind(&settings.database)
        .bind(table)
        .fetch_one::<Unfinished>();
    match within(settings.query_timeout, unfinished).await {
        Ok(unfinished) => Ok(Some(unfinished).filter(|unfinished| unfinished.mutations > 0)),
        Err(error) if classify(&error) == ErrorClass::Auth => Ok(None),
        Err(error) => Err(error),
    }
}
