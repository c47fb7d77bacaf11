//! The statements that bring a table to what a topic sends, and to what is shipped of it. It talks to nobody.
//!
//! They are safe while consumers of both versions run: columns come first, with a default, so that whoever does not know
//! them writes rows all the same; then types are widened, which takes what was written for the narrower one. Nothing is
//! dropped or narrowed: that is told as refused.

use millrace_pipeline::spec::TopicSpec;

use super::{
    Step,
    ddl::{ColumnDdl, Ddl, same},
};
use crate::{
    check::{
        fields::Sent,
        fit::{self, Kind, Mend, OWN_COLUMNS},
    },
    clickhouse::table::{Column, Table},
};

/// What there is to say of one table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Alterations {
    /// In a safe order.
    pub(super) steps: Vec<Step>,
    /// What is not done, why, and what to do by hand.
    pub(super) refused: Vec<String>,
    /// What is left as it is.
    pub(super) notes: Vec<String>,
}

/// The alterations of table `name` (`qualified` in statements), which looks like `found`; `shipped` is the statement that
/// makes it, if it is a shipped one, and `sends` what a topic writes into it, if that is known.
pub(super) fn alterations(
    name: &str,
    qualified: &str,
    found: &Table,
    shipped: Option<&Ddl>,
    sends: Option<(&TopicSpec, &[Sent])>,
) -> Alterations {
    let mut all = Alterations::default();
    let mut table = found.clone();
    if let Some(ddl) = shipped {
        let fitted = |column: &str| {
            let own = OWN_COLUMNS.iter().any(|(own, ..)| *own == column);
            sends.is_some_and(|(_, sent)| own || sent.iter().any(|sent| sent.column == column))
        };
        let mut after: Option<&ColumnDdl> = None;
        for column in &ddl.columns {
            match found.column(&column.name) {
                None => {
                    all.steps.push(add(name, qualified, column, after));
                    table.columns.push(Column {
                        name: column.name.clone(),
                        type_: column.type_.clone(),
                        default_kind: column.default_kind.clone(),
                    });
                }
                // Whether it takes what is sent counts, and not whether it is as it was shipped.
                Some(column) if fitted(&column.name) => {}
                Some(there) => all.refused.extend(difference(name, qualified, there, column)),
            }
            after = Some(column);
        }
        if sends.is_none() && ddl.deduplication_window > 0 && found.deduplication_window == 0 && !found.is_replicated()
        {
            let setting = format!("non_replicated_deduplication_window = {}", ddl.deduplication_window);
            all.steps.push(Step::alter(
                name,
                format!("table {name}: remember insert tokens, so that a retried insert lands once"),
                format!("ALTER TABLE {qualified} MODIFY SETTING {setting}"),
            ));
        }
        all.refused.extend(unchangeable(name, found, ddl));
    }
    let Some((spec, sent)) = sends else { return all };
    let mut misfits = fit::misfits(spec, sent, &table);
    misfits.sort_by_key(|misfit| match &misfit.mend {
        Mend::Alter(clause) if clause.starts_with("ADD COLUMN") => 0,
        Mend::Alter(clause) if clause.starts_with("MODIFY COLUMN") => 1,
        _ => 2,
    });
    for misfit in misfits {
        let told = format!("table {name}: {}", misfit.what);
        match misfit.mend {
            Mend::Alter(clause) => {
                all.steps.push(Step::alter(name, told, format!("ALTER TABLE {qualified} {clause}")));
            }
            Mend::Hand(advice) if misfit.kind == Kind::Idle => all.notes.push(format!("{told}: {advice}")),
            Mend::Hand(advice) => all.refused.push(format!("{told}: {advice}")),
        }
    }
    all
}

fn add(name: &str, qualified: &str, column: &ColumnDdl, after: Option<&ColumnDdl>) -> Step {
    let ColumnDdl { name: column, type_, definition, .. } = column;
    let position = after.map_or_else(|| "FIRST".to_owned(), |after| format!("AFTER `{}`", after.name));
    Step::alter(
        name,
        format!("table {name}: add column {column} {type_}"),
        format!("ALTER TABLE {qualified} ADD COLUMN IF NOT EXISTS `{column}` {definition} {position}"),
    )
}

fn difference(name: &str, qualified: &str, found: &Column, shipped: &ColumnDdl) -> Option<String> {
    let ColumnDdl { name: column, type_, default_kind, definition } = shipped;
    if !same(&found.type_, type_) {
        return Some(format!(
            "table {name}: column {column} is of type {}, shipped is {type_}; if it should change, do it by hand: ALTER TABLE {qualified} MODIFY COLUMN `{column}` {type_}",
            found.type_
        ));
    }
    (found.default_kind != *default_kind).then(|| {
        format!(
            "table {name}: column {column} has {}, shipped is `{definition}`; if it should change, do it by hand: ALTER TABLE {qualified} MODIFY COLUMN `{column}` {definition}",
            if found.default_kind.is_empty() { "no default" } else { &found.default_kind }
        )
    })
}

fn unchangeable(name: &str, found: &Table, ddl: &Ddl) -> Vec<String> {
    let engine = found.engine.trim_start_matches("Replicated").trim_start_matches("Shared");
    let compared = [
        ("engine", engine, &ddl.engine),
        ("PARTITION BY", &found.partition_key, &ddl.partition_by),
        ("ORDER BY", &found.sorting_key, &ddl.order_by),
    ];
    let told = compared.into_iter().filter(|(_, is, shipped)| !same(is, shipped)).map(|(what, is, shipped)| {
        let is = if is.is_empty() { "none" } else { is };
        format!("table {name}: {what} is {is}, shipped is {shipped}; it cannot be changed in place, only by copying into a new table")
    });
    told.collect()
}

/// A table as its statement makes it.
pub(super) fn as_made(ddl: &Ddl) -> Table {
    let column = |column: &ColumnDdl| Column {
        name: column.name.clone(),
        type_: column.type_.clone(),
        default_kind: column.default_kind.clone(),
    };
    Table {
        columns: ddl.columns.iter().map(column).collect(),
        engine: ddl.engine.clone(),
        partition_key: ddl.partition_by.clone(),
        sorting_key: ddl.order_by.clone(),
        deduplication_window: ddl.deduplication_window,
    }
}

#[cfg(test)]
mod tests {
    use millrace_pipeline::decode::{DecodeLimits, Decoder};
    use millrace_schemas::{CLICKHOUSE_DDL, CUSTOMER_V1, ORDER_EVENT_V1, ORDER_EVENT_V2, PRODUCT_V1};

    use super::*;
    use crate::config::{Config, example};

    fn orders() -> Ddl {
        Ddl::parse(CLICKHOUSE_DDL[0].1).unwrap()
    }

    fn sent(config: &Config, avro: &str) -> Vec<Sent> {
        let columns = |avro| Decoder::new(avro, DecodeLimits::default()).unwrap().columns().clone();
        let references = [Some(columns(CUSTOMER_V1)), Some(columns(PRODUCT_V1))];
        let (sent, problems) = fit::sent(&config.topics[0].spec, &columns(avro), &references, Some(avro));
        assert_eq!(problems, [""; 0]);
        sent
    }

    fn altered(table: &Table, config: &Config, avro: &str) -> Alterations {
        let sent = sent(config, avro);
        alterations("orders", "`d`.`orders`", table, Some(&orders()), Some((&config.topics[0].spec, &sent)))
    }

    fn statements(all: &Alterations) -> Vec<&str> {
        all.steps.iter().map(|step| step.sql.strip_prefix("ALTER TABLE `d`.`orders` ").unwrap()).collect()
    }

    fn with_source() -> Config {
        example(|text| format!("{text}source = \"source\"\n"))
    }

    #[test]
    fn the_shipped_table_takes_version_1_as_it_is() {
        let all = altered(&as_made(&orders()), &example(|text| text), ORDER_EVENT_V1);
        assert_eq!(all, Alterations::default());
    }

    #[test]
    fn version_2_asks_for_a_column_and_then_for_a_symbol() {
        let all = altered(&as_made(&orders()), &with_source(), ORDER_EVENT_V2);
        let statements = statements(&all);
        assert_eq!(
            statements[0],
            "ADD COLUMN IF NOT EXISTS `source` Nullable(String) DEFAULT NULL AFTER `customer_signup_date`"
        );
        assert!(statements[1].starts_with("MODIFY COLUMN `event_type` Enum8('created' = 1,"), "{statements:?}");
        assert!(statements[1].ends_with("'unknown' = 7, 'returned' = 8)"), "{statements:?}");
        assert_eq!((statements.len(), all.refused.len(), all.notes.len()), (2, 0, 0));
    }

    #[test]
    fn what_was_shipped_comes_back_as_shipped_and_what_was_narrowed_is_widened() {
        let mut table = as_made(&orders());
        table.columns.retain(|column| column.name != "coupon");
        table.deduplication_window = 0;
        for column in &mut table.columns {
            match column.name.as_str() {
                "total" => column.type_ = "Decimal(10, 2)".into(),
                "items.quantity" => column.type_ = "Array(Int16)".into(),
                "customer_segment" => column.type_ = "LowCardinality(String)".into(),
                _ => {}
            }
        }
        let all = altered(&table, &example(|text| text), ORDER_EVENT_V1);
        assert_eq!(
            statements(&all),
            [
                "ADD COLUMN IF NOT EXISTS `coupon` Nullable(String) COMMENT 'Coupon code, if one was used' CODEC(LZ4) AFTER `total`",
                "MODIFY COLUMN `total` Decimal(18, 2)",
                "MODIFY COLUMN `items.quantity` Array(Int32)",
                "MODIFY COLUMN `customer_segment` LowCardinality(Nullable(String))",
                "MODIFY SETTING non_replicated_deduplication_window = 10000",
            ]
        );
        assert_eq!((all.refused.len(), all.notes.len()), (0, 0));
    }

    #[test]
    fn what_would_lose_something_is_refused_with_what_to_do() {
        let mut table = as_made(&orders());
        table.columns[6].type_ = "String".into();
        table.sorting_key = "order_id".into();
        table.columns.push(Column { name: "region".into(), type_: "String".into(), default_kind: String::new() });
        let all = altered(&table, &example(|text| text), ORDER_EVENT_V1);
        assert_eq!(all.steps, []);
        assert!(all.refused[0].contains("ORDER BY is order_id") && all.refused[0].contains("copying"), "{all:?}");
        assert!(all.refused[1].contains("column total is of type String") && all.refused[1].contains("beside it"));
        assert!(all.notes[0].contains("region") && all.notes[0].contains("by hand"), "{all:?}");
        // A wider one is nobody's business.
        table = as_made(&orders());
        table.columns[6].type_ = "Decimal(38, 4)".into();
        assert_eq!(altered(&table, &example(|text| text), ORDER_EVENT_V1), Alterations::default());
    }

    #[test]
    fn without_a_schema_a_shipped_table_is_compared_with_what_is_shipped() {
        let mut table = as_made(&orders());
        table.columns[6].type_ = "Decimal(10, 2)".into();
        table.deduplication_window = 0;
        let all = alterations("orders", "`d`.`orders`", &table, Some(&orders()), None);
        assert_eq!(statements(&all), ["MODIFY SETTING non_replicated_deduplication_window = 10000"]);
        assert!(all.refused[0].contains("total is of type Decimal(10, 2), shipped is Decimal(18, 2)"), "{all:?}");
    }
}
