//! The sections `[[topics]]`: which fields go to which columns, what is looked up where, and the limits. What fields
//! and columns really exist is for `millrace check` to find out.

use std::{collections::HashMap, time::Duration};

use millrace_pipeline::{
    decode::DecodeLimits,
    share::{Share, ShareLimit},
    spec::{BatchLimits, ColumnSpec, DedupLimits, FieldPath, LookupSpec, MissPolicy, Source, TopicSpec},
};
use toml::de::DeValue;

use super::{
    LostPosition, Outside, StartOffset, Topic, connections,
    problem::did_you_mean,
    reader::{Found, Section, boolean, choice, duration, integer, mismatch, parsed, share, size, text},
    routes::{self, Raw},
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const GIB: usize = 1 << 30;

/// Columns that are not the configuration's to fill, and who fills them.
const RESERVED_COLUMNS: &[(&str, &str)] = &[
    ("_partition", "the Kafka partition is written here by Millrace itself"),
    ("_offset", "the Kafka offset is written here by Millrace itself"),
    ("_ingested_at", "ClickHouse's own clock is written here by the column's default"),
];

pub(super) fn read(root: &mut Section<'_, '_>, outside: &Outside<'_>) -> Option<Vec<Topic>> {
    let sections = root.tables("topics");
    if sections.is_empty() {
        root.report(None, "topics", "missing; expected at least one section `[[topics]]`");
    }
    let mut taken = Taken::default();
    let topics: Vec<Option<(Topic, Option<Raw>)>> =
        sections.into_iter().map(|section| topic(section, outside, &mut taken)).collect();
    let topics: Vec<(Topic, Option<Raw>)> = topics.into_iter().collect::<Option<_>>()?;
    routes::complete(root, topics)
}

/// Names that no two topics may share.
#[derive(Default)]
struct Taken {
    topics: HashMap<String, Use>,
    tables: HashMap<String, String>,
}

/// What a topic is used for.
struct Use {
    role: &'static str,
    /// The topic with several types of event whose sections may share it.
    shared_by: Option<String>,
}

impl Taken {
    fn topic(&mut self, section: &Section<'_, '_>, key: &'static str, name: &Found<String>, new: Use) {
        let Some(other) = self.topics.get(&name.value) else {
            self.topics.insert(name.value.clone(), new);
            return;
        };
        if other.role != new.role || other.shared_by.is_none() || other.shared_by != new.shared_by {
            let hint = match key {
                "name" => ", or `record` in each section of a topic that carries several types of event",
                _ => "",
            };
            let message =
                format!("topic {:?} is already {} above; expected another topic{hint}", name.value, other.role);
            section.report(name.at.clone(), key, message);
        }
    }

    fn table(&mut self, section: &Section<'_, '_>, table: &Found<String>, topic: &str) {
        if let Some(other) = self.tables.insert(table.value.clone(), topic.to_owned()) {
            let message = format!(
                "table {:?} is already written by topic {other:?}; expected a table of its own, for ids are told apart by table",
                table.value
            );
            section.report(table.at.clone(), "table", message);
        }
    }
}

fn topic(mut section: Section<'_, '_>, outside: &Outside<'_>, taken: &mut Taken) -> Option<(Topic, Option<Raw>)> {
    let name = section.required("name", "name = \"orders\"", topic_name);
    let table = section.required("table", "table = \"orders\"", connections::identifier);
    let dead_letters = section.required("dead_letter_topic", "dead_letter_topic = \"orders.dead\"", topic_name);
    let id = section.required("id", "id = \"event_id\"", field_path);
    let reader_schema = connections::path(&mut section, "reader_schema", outside);
    let starts = [("earliest", StartOffset::Earliest), ("latest", StartOffset::Latest)];
    let start = section.or("start", StartOffset::Earliest, choice(&starts));
    let policies = [("resume", LostPosition::Resume), ("stop", LostPosition::Stop)];
    let on_lost_position = section.or("on_lost_position", LostPosition::Resume, choice(&policies));
    let auto_create = section.or("auto_create", false, boolean);
    let probe_interval = probe(section.table("probe"));
    let raw = routes::read(&mut section);
    let dedup = dedup(section.table("dedup"));
    let batch = batch(section.table("batch"));
    let limits = limits(section.table("limits"));
    let lookup_sections = section.tables("lookups");
    let lookups: Option<Vec<LookupSpec>> =
        lookup_sections.into_iter().map(lookup).collect::<Vec<_>>().into_iter().collect();
    if let Some(lookups) = &lookups {
        for (index, lookup) in lookups.iter().enumerate() {
            if lookups[..index].iter().any(|other| other.name == lookup.name) {
                section.report(
                    None,
                    "lookups",
                    format!("two lookups are named {:?}; expected different names", lookup.name),
                );
            }
        }
    }
    let columns = columns(section.table("columns"), lookups.as_deref());

    let shared_by = || raw.as_ref()?.as_ref().and(name.as_ref()).map(|name| name.value.clone());
    if let Some(name) = &name {
        taken.topic(&section, "name", name, Use { role: "read as events", shared_by: shared_by() });
    }
    if let Some(dead_letters) = &dead_letters {
        let role = "used for events or dead letters";
        taken.topic(&section, "dead_letter_topic", dead_letters, Use { role, shared_by: shared_by() });
    }
    if let (Some(name), Some(table)) = (&name, &table) {
        taken.table(&section, table, &name.value);
    }
    let (dead_letter_limit, dead_letter_table) =
        dead_letters_section(section.table("dead_letters"), name.as_ref(), taken);
    let id_column = match (&id, &columns) {
        (Some(id), Some(columns)) => id_column(&section, id, columns),
        _ => None,
    };
    section.finish();
    let topic = Topic {
        spec: TopicSpec {
            topic: name?.value,
            id: id?.value,
            columns: columns?,
            lookups: lookups?,
            dedup: dedup?,
            batch: batch?,
            route: None,
        },
        table: table?.value,
        dead_letter_topic: dead_letters?.value,
        dead_letter_limit: dead_letter_limit?,
        dead_letter_table: dead_letter_table?,
        id_column: id_column?,
        limits: limits?,
        reader_schema: reader_schema?,
        start: start?,
        on_lost_position: on_lost_position?,
        auto_create: auto_create?,
        probe_interval: probe_interval?,
    };
    Some((topic, raw?))
}

fn id_column(section: &Section<'_, '_>, id: &Found<FieldPath>, columns: &[ColumnSpec]) -> Option<String> {
    let column = columns.iter().find(|column| column.source == Source::Event(id.value.clone()));
    if column.is_none() {
        let message = format!(
            "field {:?} goes to no column of [topics.columns]; expected one, for duplicates are known by reading ids back from the table",
            id.value.to_string()
        );
        section.report(id.at.clone(), "id", message);
    }
    column.map(|column| column.column.clone())
}

fn dedup(mut section: Section<'_, '_>) -> Option<DedupLimits> {
    let window = section.or("window", DAY, duration(SECOND..=90 * DAY));
    let max_ids = section.or("max_ids", 50_000_000, integer(1_000..=2_000_000_000));
    section.finish();
    Some(DedupLimits { window: window?, max_ids: max_ids? })
}

/// The limit, and the table if there is one.
fn dead_letters_section(
    mut section: Section<'_, '_>,
    topic: Option<&Found<String>>,
    taken: &mut Taken,
) -> (Option<ShareLimit>, Option<Option<String>>) {
    let half = Share::new(0.5);
    let max_share = section.optional("max_share", share).map(|found| found.map_or(half, |found| Some(found.value)));
    let window = section.or("window", MINUTE, duration(SECOND..=DAY));
    let min_events = section.or("min_events", 1_000, integer(1..=1_000_000_000));
    let table = section.optional("table", connections::identifier);
    if let (Some(topic), Some(Some(table))) = (topic, &table) {
        taken.table(&section, table, &topic.value);
    }
    section.finish();
    let limit = || Some(ShareLimit { max_share: max_share??, window: window?, min_events: min_events? as u64 });
    (limit(), table.map(|table| table.map(|table| table.value)))
}

fn probe(mut section: Section<'_, '_>) -> Option<Option<Duration>> {
    let interval = section.or("interval", 5 * SECOND, duration(Duration::ZERO..=3600 * SECOND));
    section.finish();
    Some(Some(interval?).filter(|interval| !interval.is_zero()))
}

fn batch(mut section: Section<'_, '_>) -> Option<BatchLimits> {
    let max_rows = section.or("max_rows", 200_000, integer(1..=BatchLimits::MAX_ROWS));
    let max_bytes = section.or("max_bytes", 48 << 20, size(1 << 10..=BatchLimits::MAX_BYTES));
    let max_age = section.or("max_age", SECOND, duration(10 * MILLISECOND..=5 * MINUTE));
    section.finish();
    Some(BatchLimits { max_rows: max_rows?, max_bytes: max_bytes?, max_age: max_age? })
}

fn limits(mut section: Section<'_, '_>) -> Option<DecodeLimits> {
    let default = DecodeLimits::default();
    let max_message_bytes = section.or("max_message_bytes", default.max_message_bytes, size(1 << 10..=GIB));
    let max_text_bytes = section.or("max_text_bytes", default.max_text_bytes, size(1..=GIB));
    let max_items = section.or("max_items", default.max_items, integer(1..=1_000_000_000));
    let max_depth = section.or("max_depth", default.max_depth, integer(1..=128));
    let max_growth = section.or("max_growth", default.max_growth, integer(1..=10_000));
    section.finish();
    Some(DecodeLimits {
        max_message_bytes: max_message_bytes?,
        max_text_bytes: max_text_bytes?,
        max_items: max_items?,
        max_depth: max_depth?,
        max_growth: max_growth?,
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Miss {
    Null,
    Wait,
    DeadLetter,
}

fn lookup(mut section: Section<'_, '_>) -> Option<LookupSpec> {
    let name = section.required("name", "name = \"customer\"", connections::identifier);
    let topic = section.required("topic", "topic = \"customers\"", topic_name);
    let key = section.required("key", "key = \"customer_id\"", field_path);
    let on = section.required("on", "on = \"data.customer_id\"", field_path);
    let misses = [("null", Miss::Null), ("wait", Miss::Wait), ("dead_letter", Miss::DeadLetter)];
    let miss = section.or("miss", Miss::Null, choice(&misses));
    let timeout = section.optional("wait_timeout", duration(MILLISECOND..=10 * MINUTE));
    let miss = match (miss?, timeout?) {
        (Miss::Wait, timeout) => {
            let timeout = timeout.map_or(30 * SECOND, |found| found.value);
            Some(MissPolicy::Wait { timeout })
        }
        (_, Some(timeout)) => {
            section.report(timeout.at, "wait_timeout", "not used unless miss = \"wait\"");
            None
        }
        (Miss::Null, None) => Some(MissPolicy::Null),
        (Miss::DeadLetter, None) => Some(MissPolicy::DeadLetter),
    };
    section.finish();
    Some(LookupSpec { name: name?.value, topic: topic?.value, key: key?.value, on: on?.value, miss: miss? })
}

fn columns(section: Section<'_, '_>, lookups: Option<&[LookupSpec]>) -> Option<Vec<ColumnSpec>> {
    let entries = section.entries();
    if entries.is_empty() {
        section.report(None, "", "no columns; expected lines such as `event_id = \"event_id\"`");
        return None;
    }
    let columns: Vec<Option<ColumnSpec>> = entries
        .into_iter()
        .map(|(column, value)| {
            let source = source(&section, &column.value, &value, lookups);
            Some(ColumnSpec { column: column_name(&section, column)?, source: source? })
        })
        .collect();
    columns.into_iter().collect()
}

fn column_name(section: &Section<'_, '_>, column: Found<String>) -> Option<String> {
    if let Some((_, reason)) = RESERVED_COLUMNS.iter().find(|(name, _)| *name == column.value) {
        section.report(column.at, &column.value, format!("may not be mapped: {reason}"));
        return None;
    }
    if !column.value.split('.').all(connections::is_identifier) {
        let message = "not a column name: expected letters, digits and _, as in customer_id, or \"items.sku\" for a column of a Nested";
        section.report(column.at, &column.value, message);
        return None;
    }
    Some(column.value)
}

fn source(
    section: &Section<'_, '_>,
    column: &str,
    value: &Found<String>,
    lookups: Option<&[LookupSpec]>,
) -> Option<Source> {
    let (lookup, path) = match value.value.split_once(':') {
        Some((lookup, path)) => (Some(lookup), path),
        None => (None, value.value.as_str()),
    };
    let path = match path.parse::<FieldPath>() {
        Ok(path) => Some(path),
        Err(error) => {
            section.report(value.at.clone(), column, error.to_string());
            None
        }
    };
    let Some(name) = lookup else {
        return path.map(Source::Event);
    };
    // Lookups that could not be read have been reported; what refers to them would only repeat it.
    let lookups = lookups?;
    let Some(lookup) = lookups.iter().position(|lookup| lookup.name == name) else {
        let names: Vec<&str> = lookups.iter().map(|lookup| lookup.name.as_str()).collect();
        let hint = match did_you_mean(name, names.iter().copied()) {
            _ if names.is_empty() => "; this topic has no [[topics.lookups]]".to_owned(),
            hint if hint.is_empty() => format!("; known here: {}", names.join(", ")),
            hint => hint,
        };
        section.report(value.at.clone(), column, format!("found {:?}: no lookup is named {name:?}{hint}", value.value));
        return None;
    };
    Some(Source::Lookup { lookup, field: path? })
}

fn topic_name(value: &DeValue<'_>) -> Result<String, String> {
    let expected = "a Kafka topic name: 1 to 249 letters, digits, dots, _ or -";
    let legal = |text: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        (1..=249).contains(&text.len()) && text.chars().all(plain) && text != "." && text != ".."
    };
    parsed(expected, |text| legal(text).then(|| text.to_owned()))(value)
}

fn field_path(value: &DeValue<'_>) -> Result<FieldPath, String> {
    let text = text(value)?;
    text.parse().map_err(|error| format!("{}: {error}", mismatch(value, "a field path")))
}
