//! The shape of the table that inserts are made for. Each insert names it and refuses itself if the table has another one
//! by then: ClickHouse would cut values to a narrower type without a word. The table is then looked at again, and what
//! still takes the rows is written on.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use clickhouse::Client;

use super::{
    claims::{ALTERED, identifier, quote},
    table::{Column, Table, describe},
};

/// Why a table of such a shape does not take the rows; nothing if it does.
pub type Refuses = Box<dyn Fn(&Table) -> Vec<String> + Send + Sync>;

/// Which table is looked at again, and what it has to take.
pub struct Watch {
    /// Database of the table.
    pub database: String,
    /// The table.
    pub table: String,
    /// What the table has to take.
    pub refuses: Refuses,
    /// Longest wait for the answer when it is looked at.
    pub timeout: Duration,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("database", &self.database).field("table", &self.table).finish_non_exhaustive()
    }
}

/// What a second look at the table came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It was altered and takes the rows as it is now.
    Fits,
    /// It is as it was.
    Same,
    /// It was altered and does not; why, and what to do.
    Drifted(String),
    /// It could not be looked at, or is not there.
    Unknown,
}

/// The shape that the next insert is made for.
#[derive(Debug)]
pub(super) struct Shape {
    qualified_table: String,
    columns: Vec<String>,
    described: Mutex<Table>,
    /// How often another shape was taken.
    taken: AtomicU64,
    watch: Option<Watch>,
}

impl Shape {
    pub(super) fn new(qualified_table: &str, columns: &[String], described: &Table) -> Self {
        Self {
            qualified_table: qualified_table.to_owned(),
            columns: columns.to_vec(),
            described: Mutex::new(described.clone()),
            taken: AtomicU64::new(0),
            watch: None,
        }
    }

    pub(super) fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// The insert under this fence.
    pub(super) fn statement(&self, fence: &str) -> String {
        let list = self.columns.iter().map(|name| identifier(name)).collect::<Vec<_>>().join(", ");
        let described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        let structure = self
            .columns
            .iter()
            .filter_map(|name| described.column(name))
            .map(|column| format!("{} {}", identifier(&column.name), column.type_))
            .collect::<Vec<_>>()
            .join(", ");
        let unaltered = self.watch.as_ref().map_or_else(String::new, |watch| unaltered(watch, &described));
        let table = &self.qualified_table;
        format!(
            "INSERT INTO {table} ({list}) SELECT {list} FROM input({}) WHERE {fence}{unaltered} FORMAT ArrowStream",
            quote(&structure)
        )
    }

    /// Which shape an insert is made for that is sent now.
    pub(super) fn number(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Looks at the table again after an insert of the shape `number`, and takes its shape for the next one if that takes
    /// the rows.
    pub(super) async fn look_again(&self, client: &Client, number: u64) -> Look {
        let Some(watch) = &self.watch else { return Look::Unknown };
        let Watch { database, table, refuses, timeout } = watch;
        let found = match describe(client, database, table, *timeout).await {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) => return Look::Unknown,
        };
        let mut described = self.described.lock().unwrap_or_else(PoisonError::into_inner);
        if *described == found {
            // Another insert may have looked in the meantime.
            return if number == self.number() { Look::Same } else { Look::Fits };
        }
        let changes = changes(&described, &found);
        let refused = refuses(&found);
        if refused.is_empty() {
            tracing::info!(
                table = format!("{database}.{table}"),
                changes,
                "the table was altered; it takes the events as before"
            );
            *described = found;
            self.taken.fetch_add(1, Ordering::Relaxed);
            return Look::Fits;
        }
        Look::Drifted(format!(
            "the table was altered while it was written ({changes}), and does not take the events any more: {}. \
             Nothing is lost: offsets are not committed past what has landed; alter it back or mend it, and start millrace again",
            refused.join("; ")
        ))
    }
}

/// A condition that holds for every row while the table has this shape, and throws [`ALTERED`] otherwise.
fn unaltered(Watch { database, table, .. }: &Watch, described: &Table) -> String {
    let shape: Vec<String> = described.columns.iter().map(line).collect();
    format!(
        " AND throwIf(ifNull((SELECT arrayStringConcat(groupArray(line), '\\n') FROM (\
         SELECT concat(name, ' ', type, ' ', default_kind) AS line FROM system.columns \
         WHERE database = {} AND table = {} ORDER BY position)), '') != {}, \
         'millrace: the table was altered', toInt32({ALTERED})) = 0",
        quote(database),
        quote(table),
        quote(&shape.join("\n")),
    )
}

fn line(Column { name, type_, default_kind }: &Column) -> String {
    format!("{name} {type_} {default_kind}")
}

/// What is another one, in words: `total is Decimal(10, 2), was Decimal(18, 2)`.
fn changes(before: &Table, after: &Table) -> String {
    let told = |column: &Column| format!("{} {}", column.type_, column.default_kind).trim_end().to_owned();
    let gone = before.columns.iter().filter(|column| after.column(&column.name).is_none());
    let mut changes: Vec<String> =
        gone.map(|column| format!("{} is gone, was {}", column.name, told(column))).collect();
    for column in &after.columns {
        match before.column(&column.name) {
            None => changes.push(format!("{} is new, {}", column.name, told(column))),
            Some(was) if was != column => {
                changes.push(format!("{} is {}, was {}", column.name, told(column), told(was)));
            }
            Some(_) => {}
        }
    }
    match changes.is_empty() {
        true => "not in its columns".to_owned(),
        false => changes.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(columns: &[(&str, &str, &str)]) -> Table {
        let column = |(name, type_, default): &(&str, &str, &str)| Column {
            name: (*name).to_owned(),
            type_: (*type_).to_owned(),
            default_kind: (*default).to_owned(),
        };
        Table {
            columns: columns.iter().map(column).collect(),
            engine: "MergeTree".into(),
            partition_key: String::new(),
            sorting_key: String::new(),
            deduplication_window: 1,
        }
    }

    #[test]
    fn an_insert_names_the_columns_that_it_was_made_for() {
        let described = table(&[("a", "Enum8('x' = 1)", ""), ("t", "DateTime", "DEFAULT")]);
        let shape = Shape::new("`d`.`t`", &["a".to_owned()], &described);
        let plain = shape.statement("1");
        assert_eq!(
            plain,
            r"INSERT INTO `d`.`t` (`a`) SELECT `a` FROM input('`a` Enum8(\'x\' = 1)') WHERE 1 FORMAT ArrowStream"
        );
        let watch = Watch {
            database: "d".into(),
            table: "t".into(),
            refuses: Box::new(|_| Vec::new()),
            timeout: Duration::ZERO,
        };
        let watched = shape.watched(watch).statement("1");
        assert!(watched.contains("!= 'a Enum8(\\'x\\' = 1) \nt DateTime DEFAULT', "), "{watched}");
        assert!(watched.ends_with("toInt32(70396)) = 0 FORMAT ArrowStream"), "{watched}");
    }

    #[test]
    fn changes_are_told_by_column() {
        let before = table(&[("a", "Int64", ""), ("b", "String", ""), ("t", "DateTime", "DEFAULT")]);
        let after = table(&[("a", "Int32", ""), ("t", "DateTime", ""), ("c", "UUID", "DEFAULT")]);
        assert_eq!(
            changes(&before, &after),
            "b is gone, was String, a is Int32, was Int64, t is DateTime, was DateTime DEFAULT, c is new, UUID DEFAULT"
        );
        assert_eq!(changes(&before, &before), "not in its columns");
    }
}
