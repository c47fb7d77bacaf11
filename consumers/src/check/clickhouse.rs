//! Looks at ClickHouse: whether it answers and lets this user in, what its tables look like, and what this user may do.

use std::time::Duration;

use clickhouse::{Client, Row, error::Error};
use serde::Deserialize;

use super::{causes, fields, fit, registry::Schemas, report::Part, retention};
use crate::{
    clickhouse::{
        client::{client, within},
        dead_letters,
        errors::{ErrorClass, UNKNOWN_DATABASE, classify, code, is_connect},
        table::{Table, describe},
    },
    config::{ClickHouse, Config, Topic},
    tls::handshake::look_at,
};

/// The claims table's columns and the types that the fence needs.
const CLAIMS_COLUMNS: &[(&str, &[&str])] = &[
    ("topic", &["LowCardinality(String)", "String"]),
    ("partition", &["Int32"]),
    ("epoch", &["UInt64"]),
    ("owner", &["String"]),
];

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
            let is_network = matches!(error, Error::Network(_));
            // Once more by hand, for what is wrong with the certificates of either side.
            let words =
                if is_network { look_at("clickhouse", &settings.url, &settings.tls, timeout).await } else { None };
            let problem = unreachable(settings, &error, timeout);
            part.bad(words.map_or(problem, |words| format!("{}: {words}", settings.url)));
            part.skipped("tables and grants not looked at");
            return (part, nothing());
        }
    }
    let mut tables = Vec::new();
    for topic in &config.topics {
        tables.push(table(&mut part, &client, settings, &topic.table, timeout).await);
        retention::check(&mut part, &client, settings, topic, timeout).await;
        if let Some(name) = &topic.dead_letter_table
            && let Some(found) = table(&mut part, &client, settings, name, timeout).await
        {
            own_columns(&mut part, name, &found, dead_letters::COLUMNS);
        }
    }
    if let Some(claims) = table(&mut part, &client, settings, &settings.claims_table, timeout).await {
        own_columns(&mut part, &settings.claims_table, &claims, CLAIMS_COLUMNS);
    }
    let replicated = tables.iter().flatten().any(Table::is_replicated);
    grants(&mut part, &client, config, replicated, timeout).await;
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
            let by = if settings.password.is_some() { "its password" } else { "the certificate that it is known by" };
            format!("{url} refuses user {user}: check clickhouse.user and {by} [{}]", causes(error))
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

async fn grants(part: &mut Part, client: &Client, config: &Config, replicated: bool, timeout: Duration) {
    let ClickHouse { database, user, claims_table, .. } = &config.clickhouse;
    let topics = config.topics.iter().flat_map(|topic| [Some(&topic.table), topic.dead_letter_table.as_ref()]);
    let tables = topics.flatten().chain([claims_table]);
    let rollups = rollups(client, config, timeout).await;
    let synced = config.topics.iter().map(|topic| &topic.table).chain([claims_table]).chain(&rollups);
    let synced = synced.filter(|_| replicated);
    let views = rollups.iter().map(|rollup| format!("SELECT ON {database}.{rollup}_mv"));
    let needed = tables
        .chain(&rollups)
        .flat_map(|table| ["SELECT", "INSERT"].map(|right| format!("{right} ON {database}.{table}")))
        .chain(views)
        .chain(["SELECT ON system.processes".to_owned()])
        .chain(synced.map(|table| format!("SYSTEM SYNC REPLICA ON {database}.{table}")));
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

/// Rollups that are fed out of the tables of topics by views of the shipped names: what views left out is added by this user.
async fn rollups(client: &Client, config: &Config, timeout: Duration) -> Vec<String> {
    let mut rollups = Vec::new();
    for topic in &config.topics {
        let views = client
            .query("SELECT arrayJoin(dependencies_table) FROM system.tables WHERE database = ? AND name = ?")
            .bind(&config.clickhouse.database)
            .bind(&topic.table)
            .fetch_all::<String>();
        // Why it cannot be asked has been told of the table.
        let views = within(timeout, views).await.unwrap_or_default();
        rollups.extend(views.iter().filter_map(|view| view.strip_suffix("_mv")).map(str::to_owned));
    }
    rollups
}

#[derive(Row, Deserialize)]
struct Disk {
    name: String,
    free_space: u64,
    total_space: u64,
}

/// Below it the next merges of a busy table fail, and then inserts. A share of the disk would not do: a tenth of a large
/// one is room enough, and a tenth of a small one is not.
const ROOM: u64 = 2 << 30;

/// Most users may not ask, which is no problem.
async fn disks(part: &mut Part, client: &Client, timeout: Duration) {
    let disks = client.query("SELECT name, free_space, total_space FROM system.disks").fetch_all::<Disk>();
    for disk in within(timeout, disks).await.unwrap_or_default() {
        room(part, &disk);
    }
}

fn room(part: &mut Part, disk: &Disk) {
    let gibibytes = |bytes: u64| bytes as f64 / f64::from(1u32 << 30);
    let (free, total) = (gibibytes(disk.free_space), gibibytes(disk.total_space));
    let text = format!("disk {}: {free:.1} of {total:.1} GiB free", disk.name);
    if disk.free_space < ROOM {
        part.bad(format!("{text}, too little for merges; make room or let old partitions go"));
    } else {
        part.good(text);
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
    let (sent, problems) = fit::sent(&topic.spec, events, &schemas.references, schemas.avro.as_deref());
    for problem in &problems {
        part.bad(problem);
    }
    let Some(table) = table else {
        part.skipped(format!(
            "table {name}: columns not looked at; `millrace migrate --plan` shows how it would be made"
        ));
        return part;
    };
    let misfits = fit::misfits(&topic.spec, &sent, table);
    for misfit in &misfits {
        part.bad(misfit.told(name));
    }
    let fits = |sent: &&fields::Sent| misfits.iter().all(|misfit| misfit.column != sent.column);
    let fitting = sent.iter().filter(fits).count();
    if fitting == topic.spec.columns.len() {
        part.good(format!("table {name} takes all {fitting} columns of topic {}", topic.spec.topic));
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;

    #[test]
    fn a_disk_is_too_full_by_what_is_free_and_not_by_its_share() {
        for (free_space, state) in [(ROOM, State::Good), (ROOM - 1, State::Bad)] {
            let mut part = Part::new("clickhouse");
            room(&mut part, &Disk { name: "default".into(), free_space, total_space: 1 << 40 });
            assert_eq!(part.states(), [state]);
        }
    }
}
