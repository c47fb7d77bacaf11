//! The `CREATE TABLE` of a table that is not among the shipped ones, out of the schema and the mapping.

use arrow_schema::DataType;

use crate::{
    check::{
        fields::Sent,
        fit::{DEDUPLICATION_WINDOW, OWN_COLUMNS},
        widen::declared,
    },
    clickhouse::claims::{identifier, quote},
    config::Topic,
};

/// What follows `CREATE TABLE name`: every mapped column, those of Millrace, and the settings of the shipped tables (see
/// `schemas/clickhouse/0001_orders.sql` for why). Rows are sorted by time, in a partition for each month, if the events have a
/// time that is never null; else by the id. Never by the time of the insert: a retry in another month would not meet its
/// token.
///
/// # Errors
/// Which columns have no type that takes their values.
pub(super) fn body(topic: &Topic, sent: &[Sent]) -> Result<String, String> {
    let mut lines = Vec::new();
    let mut without = Vec::new();
    for sent in sent {
        let Some(type_) = declared(&sent.data_type, sent.nullable) else {
            without.push(format!("{} ({})", sent.source, sent.data_type));
            continue;
        };
        lines.push(format!("    {} {type_} COMMENT {}", identifier(&sent.column), quote(&sent.source)));
    }
    if !without.is_empty() {
        return Err(format!(
            "no type of ClickHouse is known to take {}: map a part of it, or take it out of [topics.columns]",
            without.join(", ")
        ));
    }
    lines.extend(OWN_COLUMNS.iter().map(|(name, _, definition)| format!("    {} {definition}", identifier(name))));
    lines.push("    INDEX ingested_at_minmax _ingested_at TYPE minmax GRANULARITY 1".to_owned());
    let sorted = match sent.iter().find(|sent| is_time(sent)) {
        Some(time) => {
            let time = identifier(&time.column);
            format!("PARTITION BY toYYYYMM({time})\nORDER BY {time}")
        }
        None => format!("ORDER BY {}", identifier(&topic.id_column)),
    };
    Ok(format!(
        "(\n{}\n)\nENGINE = MergeTree\n{sorted}\nSETTINGS non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}, \
         min_bytes_for_wide_part = 134217728, merge_selector_base = 10\nCOMMENT {}",
        lines.join(",\n"),
        quote(&format!("Events of topic {}; landed exactly once by Millrace", topic.spec.topic)),
    ))
}

fn is_time(sent: &Sent) -> bool {
    !sent.nullable && matches!(sent.data_type, DataType::Timestamp(..) | DataType::Date32)
}

#[cfg(test)]
mod tests {
    use millrace_pipeline::decode::{DecodeLimits, Decoder};

    use super::*;
    use crate::{check::fit, config::example, migrate::ddl::Ddl};

    const PARCEL: &str = r#"{"type": "record", "name": "Parcel", "fields": [
        {"name": "parcel_id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "sent_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["letter", "box"]}},
        {"name": "note", "type": ["null", "string"], "default": null},
        {"name": "weights", "type": {"type": "array", "items": "double"}},
        {"name": "tags", "type": {"type": "map", "values": "string"}},
        {"name": "fee", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}}]}"#;

    fn made(columns: &str) -> Result<String, String> {
        let config = example(|text| {
            let (head, _) = text.split_once("[[topics.lookups]]").unwrap();
            format!("{head}[topics.columns]\n{columns}").replace("id = \"event_id\"", "id = \"parcel_id\"")
        });
        let decoder = Decoder::new(PARCEL, DecodeLimits::default()).unwrap();
        let (sent, problems) = fit::sent(&config.topics[0].spec, decoder.columns(), &[], Some(PARCEL));
        assert_eq!(problems, [""; 0]);
        body(&config.topics[0], &sent)
    }

    #[test]
    fn a_table_is_made_of_the_schema() {
        let columns = ["id = \"parcel_id\"", "sent_at", "kind", "note", "weights", "tags", "fee"]
            .map(|name| if name.contains('=') { name.to_owned() } else { format!("{name} = \"{name}\"") });
        let body = made(&columns.join("\n")).unwrap();
        assert_eq!(
            body,
            "(
    `id` UUID COMMENT 'parcel_id',
    `sent_at` DateTime64(6, 'UTC') COMMENT 'sent_at',
    `kind` LowCardinality(String) COMMENT 'kind',
    `note` Nullable(String) COMMENT 'note',
    `weights` Array(Float64) COMMENT 'weights',
    `tags` Map(String, String) COMMENT 'tags',
    `fee` Decimal(9, 2) COMMENT 'fee',
    `_partition` Int32 COMMENT 'Kafka partition that the event was read from',
    `_offset` Int64 COMMENT 'Kafka offset in that partition' CODEC(Delta(8), LZ4),
    `_ingested_at` DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When the row was inserted, by the clock of the server',
    INDEX ingested_at_minmax _ingested_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(`sent_at`)
ORDER BY `sent_at`
SETTINGS non_replicated_deduplication_window = 10000, min_bytes_for_wide_part = 134217728, merge_selector_base = 10
COMMENT 'Events of topic orders; landed exactly once by Millrace'"
        );
        let ddl = Ddl::parse(&format!("CREATE TABLE IF NOT EXISTS parcels {body}")).unwrap();
        assert_eq!((ddl.columns.len(), ddl.deduplication_window), (10, 10_000));
    }

    #[test]
    fn without_a_time_rows_are_sorted_by_the_id() {
        let body = made("id = \"parcel_id\"\nnote = \"note\"").unwrap();
        assert!(body.contains("\nORDER BY `id`\n") && !body.contains("PARTITION BY"), "{body}");
    }
}
