//! Looks at ClickHouse: whether it answers and lets this user in, what its tables look like, and what this user may do.

use std::time::Duration;

use clickhouse::{Client, Row, error::Error};
use millrace_pipeline::project::{INGESTED_AT_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN};
use serde::Deserialize;

use super::{
    causes, fields,
    registry::Schemas,
    report::Part,
    types::{self, ColumnType},
};
use crate::{
    clickhouse::{
        client::{client, within},
        errors::{ErrorClass, classify, code, is_connect},
        table::{Table, describe},
    },
    config::{ClickHouse, Config, Topic, did_you_mean},
};

/// The claims table's columns and the types that the fence needs.
const CLAIMS_COLUMNS: &[(&str, &[&str])] = &[
    ("topic", &["LowCardinality(String)", "String"]),
    ("partition", &["Int32"]),
    ("epoch", &["UInt64"]),
    ("owner", &["String"]),
];

/// What Millrace itself writes beside the mapped columns, and what it reads back.
const OWN_COLUMNS: &[(&str, &[&str])] = &[
    (PARTITION_COLUMN, &["Int32", "Int64"]),
    (OFFSET_COLUMN, &["Int64"]),
    (INGESTED_AT_COLUMN, &["DateTime64", "DateTime"]),
];

/// Databases of the catalogue in which no table may be found.
const UNKNOWN_DATABASE: u32 = 81;
const SYNTAX_ERROR: u32 = 62;

#[derive(Row, Deserialize)]
struct Server {
    version: String,
    user: String,
}

/// The findings, and each topic's table if there is one.
pub(super) async fn check(config: &Config, timeout: Duration) -> (Part, Vec<Option<Table>>) {
    let mut part = Part::new("clickhouse");
    let settings = &config.clickhouse;
    let nothing = || config.topics.iter().map(|_| None).collect();
    let client = match client(settings) {
        Ok(client) => client,
        Err(error) => {
            part.bad(format!("{error:#}"));
            return (part, nothing());
        }
    };
    let server = client.query("SELECT version() AS version, currentUser() AS user").fetch_one::<Server>();
    match within(timeout, server).await {
        Ok(server) => part.good(format!("{} answers, version {}, user {}", settings.url, server.version, server.user)),
        Err(error) => {
            part.bad(unreachable(settings, &error, timeout));
            part.skipped("tables and grants not looked at");
            return (part, nothing());
        }
    }
    let mut tables = Vec::new();
    for topic in &config.topics {
        tables.push(table(&mut part, &client, settings, &topic.table, timeout).await);
    }
    if let Some(claims) = table(&mut part, &client, settings, &settings.claims_table, timeout).await {
        own_columns(&mut part, &settings.claims_table, &claims, CLAIMS_COLUMNS);
    }
    grants(&mut part, &client, config, timeout).await;
    disks(&mut part, &client, timeout).await;
    (part, tables)
}

fn unreachable(settings: &ClickHouse, error: &Error, timeout: Duration) -> String {
    let ClickHouse { url, user, database, .. } = settings;
    match (classify(error), code(error)) {
        (_, Some(UNKNOWN_DATABASE)) => {
            format!(
                "database {database} does not exist: make it with `millrace migrate --apply`, or correct clickhouse.database"
            )
        }
        (ErrorClass::Auth, _) => {
            format!("{url} refuses user {user}: check clickhouse.user and its password [{}]", causes(error))
        }
        _ if is_connect(error) => {
            format!("{url} cannot be reached ({}): is it running, and is clickhouse.url right?", causes(error))
        }
        _ if matches!(error, Error::TimedOut) => {
            let seconds = timeout.as_secs_f64();
            format!("{url} did not answer within {seconds} s: is clickhouse.url right, and the server well?")
        }
        _ => format!("{url}: {}", causes(error)),
    }
}

async fn table(
    part: &mut Part,
    client: &Client,
    settings: &ClickHouse,
    name: &str,
    timeout: Duration,
) -> Option<Table> {
    let database = &settings.database;
    match describe(client, database, name, timeout).await {
        Ok(Some(table)) => {
            part.good(format!("table {database}.{name}: {}, {} columns", table.engine, table.columns.len()));
            Some(table)
        }
        Ok(None) => {
            part.bad(format!(
                "table {database}.{name} does not exist, or user {} may see nothing of it: make it with `millrace migrate --apply`, grant SELECT and INSERT on it, or correct the name",
                settings.user
            ));
            None
        }
        Err(error) => {
            part.bad(format!("table {database}.{name} cannot be looked at: {}", causes(&error)));
            None
        }
    }
}

fn own_columns(part: &mut Part, name: &str, table: &Table, wanted: &[(&str, &[&str])]) {
    for (column, types) in wanted {
        match table.column(column) {
            None => part.bad(format!("table {name} has no column {column}: add it with `millrace migrate --apply`")),
            Some(found)
                if types
                    .iter()
                    .any(|wanted| found.type_ == *wanted || found.type_.starts_with(&format!("{wanted}("))) => {}
            Some(found) => part.bad(format!(
                "table {name}: column {column} is of type {}; expected {}",
                found.type_,
                types.join(" or ")
            )),
        }
    }
}

async fn grants(part: &mut Part, client: &Client, config: &Config, timeout: Duration) {
    let ClickHouse { database, user, claims_table, .. } = &config.clickhouse;
    let tables = config.topics.iter().map(|topic| &topic.table).chain([claims_table]);
    let needed = tables
        .flat_map(|table| ["SELECT", "INSERT"].map(|right| format!("{right} ON {database}.{table}")))
        .chain(["SELECT ON system.processes".to_owned()]);
    let mut missing = 0;
    for grant in needed {
        // A grant that is missing is told by a 0, and so is a table that is.
        let granted = client.query_raw(&format!("CHECK GRANT {grant}")).fetch_one::<u8>();
        match within(timeout, granted).await {
            Ok(1) => {}
            Ok(_) => {
                missing += 1;
                part.bad(format!("user {user} lacks a right: run `GRANT {grant} TO {user}` as an administrator"));
            }
            Err(error) if code(&error) == Some(SYNTAX_ERROR) => {
                return part.skipped("this version of ClickHouse cannot be asked for grants");
            }
            Err(error) => return part.bad(format!("grants cannot be asked for: {}", causes(&error))),
        }
    }
    if missing == 0 {
        part.good(format!("user {user} has the rights that it needs"));
    }
}

#[derive(Row, Deserialize)]
struct Disk {
    name: String,
    free_space: u64,
    total_space: u64,
}

/// Below a tenth ClickHouse may soon refuse merges, and then inserts. Most users may not ask, which is no problem.
async fn disks(part: &mut Part, client: &Client, timeout: Duration) {
    let disks = client.query("SELECT name, free_space, total_space FROM system.disks").fetch_all::<Disk>();
    for disk in within(timeout, disks).await.unwrap_or_default() {
        if disk.free_space < disk.total_space / 10 {
            let gibibytes = disk.free_space as f64 / f64::from(1u32 << 30);
            part.bad(format!(
                "ClickHouse disk {}: {gibibytes:.1} GiB free, less than a tenth; make room or let old partitions go",
                disk.name
            ));
        }
    }
}

/// Whether what the topic will send fits its table.
pub(super) fn fit(topic: &Topic, schemas: &Schemas, table: Option<&Table>) -> Part {
    let mut part = Part::new("columns");
    let name = &topic.table;
    let Some(events) = &schemas.events else {
        part.skipped(format!("topic {}: columns not looked at, because its schema is not known", topic.spec.topic));
        return part;
    };
    let (sent, problems) = fields::resolve(&topic.spec, events, &schemas.references);
    for problem in &problems {
        part.bad(problem);
    }
    let Some(table) = table else {
        part.skipped(format!("table {name}: columns not looked at"));
        return part;
    };
    let mut fitting = 0;
    for sent in &sent {
        let Some(column) = table.column(&sent.column) else {
            let names = table.columns.iter().map(|column| column.name.as_str());
            let hint = did_you_mean(&sent.column, names);
            part.bad(format!(
                "table {name} has no column {}{hint}; add it with `millrace migrate --apply` or ALTER TABLE, or take it out of [topics.columns]",
                sent.column
            ));
            continue;
        };
        if matches!(column.default_kind.as_str(), "MATERIALIZED" | "ALIAS") {
            part.bad(format!(
                "table {name}: column {} is {} and cannot be written; take it out of [topics.columns]",
                column.name, column.default_kind
            ));
        } else if let Some(problem) = types::mismatch(&sent.data_type, sent.symbols.as_deref(), &column.type_) {
            part.bad(format!(
                "table {name}: column {} is of type {}, which does not keep {}: {problem}",
                column.name, column.type_, sent.source
            ));
        } else if sent.nullable && !ColumnType::parse(&column.type_).nullable {
            part.bad(format!(
                "table {name}: column {} is of type {}, but {} may be null; expected Nullable, so that null is not stored as an empty value",
                column.name, column.type_, sent.source
            ));
        } else {
            fitting += 1;
        }
    }
    own_columns(&mut part, name, table, OWN_COLUMNS);
    if let Some(column) = table.column(INGESTED_AT_COLUMN).filter(|column| column.default_kind != "DEFAULT") {
        part.bad(format!("table {name}: column {} needs DEFAULT now64(3), for ids are read back by it", column.name));
    }
    for column in &table.columns {
        let mapped = topic.spec.columns.iter().any(|spec| spec.column == column.name);
        let own = OWN_COLUMNS.iter().any(|(own, _)| *own == column.name);
        if !mapped && !own && column.default_kind.is_empty() {
            part.bad(format!(
                "table {name}: column {} gets no value and has no default, so it stays empty; map it in [topics.columns] or give it a DEFAULT",
                column.name
            ));
        }
    }
    if !table.is_replicated() && table.deduplication_window == 0 {
        part.bad(format!(
            "table {name} does not know insert tokens, so a retried insert would land twice: run `ALTER TABLE {name} MODIFY SETTING non_replicated_deduplication_window = 10000`, or `millrace migrate --apply`"
        ));
    }
    if fitting == topic.spec.columns.len() {
        part.good(format!("table {name} takes all {fitting} columns of topic {}", topic.spec.topic));
    }
    part
}
