//! Whether a table takes what a topic sends, and what would mend it: the one comparison that `check`, `migrate` and `run`
//! go by. It talks to nobody.

use arrow_schema::{Schema, SchemaRef};
use millrace_pipeline::{
    project::{INGESTED_AT_COLUMN, OFFSET_COLUMN, PARTITION_COLUMN},
    spec::{ColumnSpec, Source, TopicSpec},
};

use super::{
    defaults,
    fields::{self, Sent},
    types::{self, ColumnType},
    widen::{declared, default_of, only_lacks_symbols, takes_null, widened},
};
use crate::{
    clickhouse::{
        claims::identifier,
        table::{Column, Table},
    },
    config::did_you_mean,
};

/// What Millrace itself writes beside the mapped columns, and what it reads back: name, types that do, definition.
pub(crate) const OWN_COLUMNS: &[(&str, &[&str], &str)] = &[
    (PARTITION_COLUMN, &["Int32"], "Int32 COMMENT 'Kafka partition that the event was read from'"),
    (OFFSET_COLUMN, &["Int64"], "Int64 COMMENT 'Kafka offset in that partition' CODEC(Delta(8), LZ4)"),
    (
        INGESTED_AT_COLUMN,
        &["DateTime64", "DateTime"],
        "DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted, by the clock of the server'",
    ),
];

/// Blocks whose tokens a table remembers: more than an hour of inserts at two a second.
pub(crate) const DEDUPLICATION_WINDOW: u64 = 10_000;

/// One thing by which a topic and its table do not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// The column; empty when it is about the whole table.
    pub(crate) column: String,
    pub(crate) kind: Kind,
    /// What is wrong, as what follows `table NAME`.
    pub(crate) what: String,
    pub(crate) mend: Mend,
}

/// What happens if events are written all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Every insert fails.
    Missing,
    /// Values are lost, or taken for others, in silence; or rows are doubled.
    Losing,
    /// Inserts fail that have such a value.
    Narrow,
    /// Nothing at once.
    Idle,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mend {
    /// What follows `ALTER TABLE name`. It harms nobody who writes or reads the table meanwhile, and loses nothing.
    Alter(String),
    /// What a person has to decide or know.
    Hand(String),
}

impl Misfit {
    /// Whether nothing may be written before it is mended.
    pub(crate) fn forbids_writing(&self) -> bool {
        matches!(self.kind, Kind::Missing | Kind::Losing)
    }

    /// What is wrong and how to mend it.
    pub(crate) fn told(&self, table: &str) -> String {
        match &self.mend {
            Mend::Alter(clause) => format!(
                "table {table} {}; mend it with `ALTER TABLE {table} {clause}`, or with `millrace migrate --apply` (`--plan` shows what it does)",
                self.what
            ),
            Mend::Hand(advice) => format!("table {table} {}; {advice}", self.what),
        }
    }
}

/// What a topic sends, for what its paths lead to, and what is wrong with the others; with defaults if the reader's schema
/// is given as Avro JSON.
pub(crate) fn sent(
    spec: &TopicSpec,
    events: &Schema,
    references: &[Option<SchemaRef>],
    avro: Option<&str>,
) -> (Vec<Sent>, Vec<String>) {
    let (mut sent, problems) = fields::resolve(spec, events, references);
    for sent in &mut sent {
        let column = spec.columns.iter().find(|column| column.column == sent.column);
        if let (Some(Source::Event(path)), Some(avro)) = (column.map(|column| &column.source), avro) {
            sent.default = defaults::of_field(avro, path, &sent.data_type);
        }
    }
    (sent, problems)
}

/// Everything by which a table does not fit what is sent, in the order of the columns.
pub(crate) fn misfits(spec: &TopicSpec, sent: &[Sent], table: &Table) -> Vec<Misfit> {
    let mut found = Vec::new();
    let mut after: Option<&str> = None;
    for sent in sent {
        match table.column(&sent.column) {
            None => {
                let misfit = missing(sent, table, after);
                if matches!(misfit.mend, Mend::Alter(_)) {
                    after = Some(&sent.column);
                }
                found.push(misfit);
            }
            Some(column) => {
                found.extend(unfit_id(spec, column).or_else(|| unfit(sent, column, table)));
                after = Some(&sent.column);
            }
        }
    }
    for own in OWN_COLUMNS {
        found.extend(own_column(own, table));
    }
    for column in &table.columns {
        let mapped = spec.columns.iter().any(|spec| spec.column == column.name);
        let own = OWN_COLUMNS.iter().any(|(own, ..)| *own == column.name);
        if !mapped && !own && column.default_kind.is_empty() {
            let name = identifier(&column.name);
            found.push(Misfit {
                column: column.name.clone(),
                kind: Kind::Idle,
                what: format!("column {} gets no value and has no default, so it stays empty", column.name),
                mend: Mend::Hand(format!(
                    "map it in [topics.columns], give it a default (ALTER TABLE … MODIFY COLUMN {name} {} DEFAULT …), or drop it by hand",
                    column.type_
                )),
            });
        }
    }
    if !table.is_replicated() && table.deduplication_window == 0 {
        found.push(Misfit {
            column: String::new(),
            kind: Kind::Idle,
            what: "does not know insert tokens, so a retried insert would land twice".to_owned(),
            mend: Mend::Alter(format!("MODIFY SETTING non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}")),
        });
    }
    found
}

fn missing(sent: &Sent, table: &Table, after: Option<&str>) -> Misfit {
    let names = table.columns.iter().map(|column| column.name.as_str());
    let hint = did_you_mean(&sent.column, names);
    let mend = match definition(sent) {
        None => Mend::Hand(format!(
            "no type of ClickHouse is known to take {} ({}): map a part of it, or take it out of [topics.columns]",
            sent.source, sent.data_type
        )),
        Some(definition) => {
            let place = after.map_or_else(|| "FIRST".to_owned(), |after| format!("AFTER {}", identifier(after)));
            let name = identifier(&sent.column);
            Mend::Alter(format!("ADD COLUMN IF NOT EXISTS {name} {definition} {place}"))
        }
    };
    let what = format!("has no column {}{hint}", sent.column);
    Misfit { column: sent.column.clone(), kind: Kind::Missing, what, mend }
}

/// Type and default of a column that is added.
fn definition(sent: &Sent) -> Option<String> {
    let type_ = declared(&sent.data_type, sent.nullable)?;
    let default = default_of(sent, &type_).map(|default| format!(" DEFAULT {default}"));
    Some(format!("{type_}{}", default.unwrap_or_default()))
}

fn unfit(sent: &Sent, column: &Column, table: &Table) -> Option<Misfit> {
    let Column { name, type_, default_kind } = column;
    let misfit = |kind, what, mend| Some(Misfit { column: name.clone(), kind, what, mend });
    if matches!(default_kind.as_str(), "MATERIALIZED" | "ALIAS" | "EPHEMERAL") {
        let what = format!("column {name} is {default_kind} and cannot be written");
        return misfit(Kind::Missing, what, Mend::Hand("take it out of [topics.columns]".to_owned()));
    }
    let mismatch = types::mismatch(&sent.data_type, sent.symbols.as_deref(), type_);
    let what = match mismatch {
        Some(problem) => format!("column {name} is of type {type_}, which does not keep {}: {problem}", sent.source),
        None if sent.nullable && takes_null(sent) && !ColumnType::parse(type_).nullable => format!(
            "column {name} is of type {type_}, but {} may be null; expected Nullable, so that null is not stored as an empty value",
            sent.source
        ),
        None => return None,
    };
    let narrow = only_lacks_symbols(type_, sent);
    let kind = if narrow { Kind::Narrow } else { Kind::Losing };
    let mend = match widened(type_, sent) {
        // ClickHouse changes the type of a column that rows are sorted by only if they stay in order.
        Ok(_) if !narrow && table.is_key(name) => Mend::Hand(format!(
            "{name} is in ORDER BY or PARTITION BY, where its type cannot be changed: copy the rows into a new table"
        )),
        Ok(wide) => Mend::Alter(format!("MODIFY COLUMN {} {wide}", identifier(name))),
        Err(why) => Mend::Hand(format!("{why}: add a column beside it and map that one, or copy into a new table")),
    };
    misfit(kind, what, mend)
}

/// Ids are read back as ClickHouse writes a UUID; bytes of another type would be taken for other ids in silence.
fn unfit_id(spec: &TopicSpec, column: &Column) -> Option<Misfit> {
    let Column { name, type_, .. } = column;
    let is_id = |one: &ColumnSpec| one.column == *name && one.source == Source::Event(spec.id.clone());
    if type_ == "UUID" || !spec.columns.iter().any(is_id) {
        return None;
    }
    Some(Misfit {
        column: name.clone(),
        kind: Kind::Losing,
        what: format!("column {name} is of type {type_}; expected UUID, for ids are read back from it"),
        mend: Mend::Hand("the delivery protocol rests on it: copy into a new table".to_owned()),
    })
}

fn own_column((name, types, definition): &(&str, &[&str], &str), table: &Table) -> Option<Misfit> {
    let misfit = |kind, what, mend| Some(Misfit { column: (*name).to_owned(), kind, what, mend });
    let Some(found) = table.column(name) else {
        let clause = format!("ADD COLUMN IF NOT EXISTS {} {definition}", identifier(name));
        return misfit(Kind::Missing, format!("has no column {name}"), Mend::Alter(clause));
    };
    let type_ = &found.type_;
    if !types.iter().any(|wanted| type_ == wanted || type_.starts_with(&format!("{wanted}("))) {
        let what = format!("column {name} is of type {type_}; expected {}", types.join(" or "));
        return misfit(
            Kind::Losing,
            what,
            Mend::Hand("the delivery protocol rests on it: copy into a new table".into()),
        );
    }
    if *name == INGESTED_AT_COLUMN && found.default_kind != "DEFAULT" {
        let what = format!("column {name} needs DEFAULT now64(3), for ids are read back by it");
        let clause = format!("MODIFY COLUMN {} {type_} DEFAULT now64(3)", identifier(name));
        return misfit(Kind::Losing, what, Mend::Alter(clause));
    }
    None
}

#[cfg(test)]
mod tests {
    use millrace_pipeline::decode::{DecodeLimits, Decoder};
    use millrace_schemas::{CUSTOMER_V1, ORDER_EVENT_V1, ORDER_EVENT_V2, PRODUCT_V1};

    use super::*;
    use crate::config::{Config, example};

    fn columns(avro: &str) -> SchemaRef {
        Decoder::new(avro, DecodeLimits::default()).unwrap().columns().clone()
    }

    /// Two mapped columns and an id, read with version 2.
    fn config() -> Config {
        example(|text| {
            let (head, _) = text.split_once("[[topics.lookups]]").unwrap();
            format!(
                "{head}[topics.columns]\nevent_id = \"event_id\"\nevent_type = \"event_type\"\nsource = \"source\"\n"
            )
        })
    }

    fn table(columns: &[(&str, &str, &str)]) -> Table {
        let own = [("_partition", "Int32", ""), ("_offset", "Int64", ""), ("_ingested_at", "DateTime64(3)", "DEFAULT")];
        let column = |(name, type_, default): &(&str, &str, &str)| Column {
            name: (*name).to_owned(),
            type_: (*type_).to_owned(),
            default_kind: (*default).to_owned(),
        };
        Table {
            columns: columns.iter().chain(&own).map(column).collect(),
            engine: "MergeTree".into(),
            partition_key: String::new(),
            sorting_key: "event_type".into(),
            deduplication_window: 10_000,
        }
    }

    fn misfits_of(table: &Table) -> Vec<Misfit> {
        let config = config();
        let spec = &config.topics[0].spec;
        let (sent, problems) = sent(spec, &columns(ORDER_EVENT_V2), &[], Some(ORDER_EVENT_V2));
        assert_eq!(problems, [""; 0]);
        misfits(spec, &sent, table)
    }

    const STEPS: &str = "Enum8('created' = 1, 'paid' = 2, 'shipped' = 3, 'delivered' = 4, 'cancelled' = 5, 'refunded' = 6, 'unknown' = 7)";

    #[test]
    fn a_table_of_version_1_is_brought_to_version_2_by_a_column_and_a_symbol() {
        let found = misfits_of(&table(&[("event_id", "UUID", ""), ("event_type", STEPS, "")]));
        let clauses: Vec<(Kind, &Mend)> = found.iter().map(|misfit| (misfit.kind, &misfit.mend)).collect();
        let longer = STEPS.replace(')', ", 'returned' = 8)");
        assert_eq!(
            clauses,
            [
                // Also in ORDER BY: symbols that come behind keep the order.
                (Kind::Narrow, &Mend::Alter(format!("MODIFY COLUMN `event_type` {longer}"))),
                (
                    Kind::Missing,
                    &Mend::Alter(
                        "ADD COLUMN IF NOT EXISTS `source` Nullable(String) DEFAULT NULL AFTER `event_type`".to_owned()
                    )
                ),
            ]
        );
        let told = found[1].told("orders");
        assert!(told.starts_with("table orders has no column source; mend it with `ALTER TABLE orders ADD"), "{told}");
    }

    #[test]
    fn everything_is_told_at_once_with_what_may_be_written_all_the_same() {
        let mut table = table(&[
            ("event_id", "FixedString(8)", ""),
            ("event_type", "Int32", ""),
            ("source", "String", ""),
            ("region", "String", ""),
        ]);
        table.columns.retain(|column| column.name != "_offset");
        table.columns.last_mut().unwrap().default_kind.clear();
        table.deduplication_window = 0;
        let found: Vec<(String, Kind, bool)> = misfits_of(&table)
            .into_iter()
            .map(|misfit| (misfit.column, misfit.kind, matches!(misfit.mend, Mend::Alter(_))))
            .collect();
        let expected = [
            ("event_id", Kind::Losing, false),
            ("event_type", Kind::Losing, false),
            ("source", Kind::Losing, true),
            ("_offset", Kind::Missing, true),
            ("_ingested_at", Kind::Losing, true),
            ("region", Kind::Idle, false),
            ("", Kind::Idle, true),
        ];
        assert_eq!(found, expected.map(|(column, kind, mends)| (column.to_owned(), kind, mends)));
    }

    #[test]
    fn what_is_read_back_has_to_be_of_the_type_that_it_is_read_as() {
        let types = [("FixedString(16)", "Int32"), ("Nullable(UUID)", "Int32"), ("UUID", "Int64")];
        for (id, partition) in types {
            let mut table =
                table(&[("event_id", id, ""), ("event_type", "String", ""), ("source", "Nullable(String)", "")]);
            table.columns[3].type_ = partition.to_owned();
            let [misfit] = &misfits_of(&table)[..] else { panic!("{id}, {partition}: one misfit") };
            assert!(misfit.forbids_writing() && matches!(misfit.mend, Mend::Hand(_)), "{misfit:?}");
        }
    }

    #[test]
    fn an_id_that_may_be_null_is_told() {
        let v2 = ORDER_EVENT_V2.replace(
            r#"{ "type": "string", "logicalType": "uuid" }"#,
            r#"["null", { "type": "string", "logicalType": "uuid" }]"#,
        );
        assert_ne!(v2, ORDER_EVENT_V2);
        let (_, problems) = sent(&config().topics[0].spec, &columns(&v2), &[], None);
        assert!(problems[0].starts_with("id = \"event_id\" may be null"), "{problems:?}");
    }

    #[test]
    fn a_key_is_not_changed_and_wide_enough_is_left_alone() {
        let mut wide = table(&[
            ("event_id", "UUID", ""),
            ("event_type", "LowCardinality(String)", ""),
            ("source", "LowCardinality(Nullable(String))", ""),
        ]);
        assert_eq!(misfits_of(&wide), []);
        wide.sorting_key = "(event_type, source)".into();
        wide.columns[2].type_ = "String".into();
        let [misfit] = &misfits_of(&wide)[..] else { panic!("one misfit") };
        assert!(matches!(&misfit.mend, Mend::Hand(text) if text.contains("ORDER BY")), "{misfit:?}");
        wide.columns[2].default_kind = "ALIAS".into();
        assert_eq!(misfits_of(&wide)[0].kind, Kind::Missing);
    }

    #[test]
    fn the_shipped_configuration_and_schemas_fit_each_other() {
        let config = example(|text| text);
        let references = [Some(columns(CUSTOMER_V1)), Some(columns(PRODUCT_V1))];
        let (sent, problems) = sent(&config.topics[0].spec, &columns(ORDER_EVENT_V1), &references, None);
        assert_eq!((sent.len(), problems), (19, Vec::new()));
    }
}
