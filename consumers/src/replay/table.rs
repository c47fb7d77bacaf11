//! What a replay asks the table: which ids it has. All of it is read; nothing is decided here.

use anyhow::Result;
use millrace_pipeline::{
    dedup::PartitionIndex,
    project::{INGESTED_AT_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN},
};

use super::steps::Step;
use crate::audit::table::{Table, int, uuid};

/// Ids that are asked for in one query, as one text of 37 bytes each: a list of so many literals would cost the server
/// ten times their memory. The second where the server lets no setting be changed, whose limit is 256 KiB.
const IDS_AT_ONCE: (usize, usize) = (400_000, 6_000);

/// Most ids that one question may name.
pub(super) fn ids_at_once(table: &Table) -> usize {
    if table.is_gentle() { IDS_AT_ONCE.0 } else { IDS_AT_ONCE.1 }
}

/// Ids of rows, each held in 24 bytes; nothing in it ages.
pub(super) struct Ids(PartitionIndex);

impl Ids {
    pub(super) fn none() -> Self {
        Self(PartitionIndex::new(std::time::Duration::MAX, usize::MAX))
    }

    pub(super) fn has(&self, id: u128) -> bool {
        self.0.contains(id)
    }

    fn add(&mut self, ids: &mut Vec<(u128, u64)>) {
        self.0.load(ids, 0);
        ids.clear();
    }
}

/// Ids of the rows whose coordinates lie in a step.
///
/// # Errors
/// Those of the server.
pub(super) async fn ids_in(table: &Table, step: &Step) -> Result<Ids> {
    let (name, id) = table.names();
    let parts = step.iter().map(|(partition, from, to)| {
        format!("({PARTITION_COLUMN} = {partition} AND {OFFSET_COLUMN} >= {from} AND {OFFSET_COLUMN} < {to})")
    });
    let parts = parts.collect::<Vec<_>>().join(" OR ");
    read(table, &format!("SELECT {id} FROM {name} WHERE {parts}")).await
}

/// Which of some ids have a row, wherever it came from, that was inserted since a time of the server's clock if one is
/// named; at most [`ids_at_once`].
///
/// # Errors
/// Those of the server.
pub(super) async fn ids_among(table: &Table, ids: &[u128], since_ms: Option<i64>) -> Result<Ids> {
    if ids.is_empty() {
        return Ok(Ids::none());
    }
    let (name, id) = table.names();
    let mut list = String::with_capacity(ids.len() * 37);
    for (at, id) in ids.iter().enumerate() {
        if at > 0 {
            list.push(',');
        }
        list.push_str(uuid::Uuid::from_u128(*id).hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()));
    }
    let since = since_ms.map_or(String::new(), |since_ms| {
        format!("{INGESTED_AT_COLUMN} >= fromUnixTimestamp64Milli(toInt64({since_ms})) AND ")
    });
    let among = format!("{id} IN (SELECT toUUID(arrayJoin(splitByChar(',', '{list}'))))");
    read(table, &format!("SELECT {id} FROM {name} WHERE {since}{among}")).await
}

/// The server's clock, in milliseconds since 1970.
///
/// # Errors
/// Those of the server.
pub(super) async fn clock_ms(table: &Table) -> Result<i64> {
    let row: [u8; 8] = table.one("SELECT toInt64(toUnixTimestamp64Milli(now64(3)))").await?;
    Ok(int(&row, 0))
}

async fn read(table: &Table, sql: &str) -> Result<Ids> {
    const CHUNK: usize = 4096;
    let mut ids = Ids::none();
    let mut chunk = Vec::with_capacity(CHUNK);
    table
        .stream(sql, |row: &[u8; 16]| {
            chunk.push((uuid(row), 0));
            if chunk.len() == CHUNK {
                ids.add(&mut chunk);
            }
        })
        .await?;
    ids.add(&mut chunk);
    Ok(ids)
}
