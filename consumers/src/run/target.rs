//! Where a topic's rows go: its table, whether that takes them, and the inserts into it. For `run` and for a replay.

use anyhow::{Result, anyhow, ensure};
use arrow_schema::SchemaRef;
use clickhouse::{Client, error::Error};

use crate::{
    check::fit,
    clickhouse::{
        claims::{Claims, identifier},
        errors::{ErrorClass, UNKNOWN_DATABASE, classify, code},
        insert::Inserter,
        replicas::Replicas,
        replication::Replication,
        shape::{Refuses, Watch},
        table::{Table, describe},
    },
    config::{ClickHouse, Config, Topic},
    migrate,
    telemetry::spans::Target,
};

/// A table as ClickHouse shows it; made first if it is not there and `make` has a topic whose configuration says so.
///
/// # Errors
/// The outer one if it could not be made.
pub(crate) async fn look(
    config: &Config,
    client: &Client,
    table: &str,
    make: Option<&Topic>,
) -> Result<Result<Option<Table>, Error>> {
    let ClickHouse { database, query_timeout, .. } = &config.clickhouse;
    let look = async || describe(client, database, table, *query_timeout).await;
    let found = look().await;
    let is_absent = match &found {
        Ok(found) => found.is_none(),
        Err(error) => code(error) == Some(UNKNOWN_DATABASE),
    };
    let Some(topic) = make.filter(|topic| is_absent && topic.auto_create) else { return Ok(found) };
    migrate::create(config, topic, table).await?;
    Ok(look().await)
}

/// The table of rows as [`look`] finds it, or why there is none that serves; the outer error says that ClickHouse could not
/// tell. `named` says whether every server that has the table is named by `[[clickhouse.shards]]`.
pub(crate) async fn described(
    config: &Config,
    client: &Client,
    table: &str,
    make: Option<&Topic>,
    named: bool,
) -> Result<Result<Table>> {
    let clickhouse = &config.clickhouse;
    match look(config, client, table, make).await? {
        // The quiet step looks at the queries of the servers that it knows: `url` may be a balancer before several.
        Ok(Some(found)) if found.is_replicated() && !named => Ok(Err(anyhow!(
            "table {}.{table} is {}, which other servers may write to: name the replicas by [[clickhouse.shards]] in place of clickhouse.url (docs/shards.md), or use a MergeTree on one server",
            clickhouse.database,
            found.engine
        ))),
        Ok(Some(table)) => Ok(Ok(table)),
        Ok(None) => Ok(Err(anyhow!(
            "ClickHouse shows user {} no table {}.{table}; create it with `millrace migrate --apply`, grant SELECT and INSERT on it, or set auto_create = true",
            clickhouse.user,
            clickhouse.database
        ))),
        Err(error) if matches!(classify(&error), ErrorClass::Auth | ErrorClass::Permanent) => {
            Ok(Err(anyhow::Error::new(error).context(format!("describe table {}.{table}", clickhouse.database))))
        }
        Err(error) => Err(anyhow::Error::new(error).context(format!("reach ClickHouse at {}", clickhouse.url))),
    }
}

/// Why a table does not take what the topic sends: what would be lost in silence, or refused for every row. What may do
/// harm with single values, or later, is told in the log.
pub(crate) fn refusals(topic: &Topic, events: &SchemaRef, references: &[SchemaRef], avro: &str) -> Refuses {
    let (spec, name) = (topic.spec.clone(), topic.table.clone());
    let references: Vec<Option<SchemaRef>> = references.iter().cloned().map(Some).collect();
    let (sent, _) = fit::sent(&spec, events, &references, Some(avro));
    Box::new(move |table| {
        let misfits = fit::misfits(&spec, &sent, table);
        for narrow in misfits.iter().filter(|misfit| misfit.kind == fit::Kind::Narrow) {
            tracing::warn!(topic = spec.topic, "{}", narrow.told(&name));
        }
        misfits.iter().filter(|misfit| misfit.forbids_writing()).map(|misfit| misfit.told(&name)).collect()
    })
}

/// The claims of `owner`, and inserts of such rows under them; each refuses itself when the table is altered.
///
/// # Errors
/// Why the table does not take them.
pub(crate) fn landing(
    settings: &ClickHouse,
    topic: &Topic,
    (servers, replication, shard): (&Replicas, Option<Replication>, Option<usize>),
    owner: &str,
    table: &Table,
    rows: &SchemaRef,
    refuses: Refuses,
) -> Result<(Claims, Inserter)> {
    let refused = refuses(table);
    ensure!(refused.is_empty(), "{}", refused.join("; "));
    let ClickHouse { database, query_timeout, .. } = settings;
    let claims_table = qualified(settings, &settings.claims_table);
    let claims = Claims::new(servers.clone(), claims_table, &topic.label(), owner, *query_timeout);
    let claims = match replication {
        None => claims,
        Some(replication) => claims.replicated(replication),
    };
    let claims = match shard {
        None => claims,
        Some(shard) => claims.of_shard(shard),
    };
    let columns: Vec<String> = rows.fields().iter().map(|field| field.name().clone()).collect();
    let inserter = Inserter::new(
        servers.clone(),
        claims.clone(),
        &topic.label(),
        &qualified(settings, &topic.table),
        table,
        &columns,
        settings.insert_timeout,
    )
    .traced(Target::new(settings, &topic.table));
    let (database, table) = (database.clone(), topic.table.clone());
    Ok((claims, inserter.watching(Watch { database, table, refuses, timeout: *query_timeout })))
}

/// A table, quoted, with its database.
pub(crate) fn qualified(ClickHouse { database, .. }: &ClickHouse, table: &str) -> String {
    format!("{}.{}", identifier(database), identifier(table))
}
