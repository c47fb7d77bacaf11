//! Follows the configuration's field paths through the schemas, by the same code that the pipeline runs, but to the end:
//! every path that leads nowhere is told, not only the first.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millrace_pipeline::{
    decode::ENUM_SYMBOLS,
    enrich::Lookup,
    field::{Extract, NoSuchField},
    project::reference_fields,
    reference::ReferenceTable,
    spec::{FieldPath, LookupSpec, MissPolicy, Source, TopicSpec},
};

use crate::config::nearest;

/// What will be sent for one column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) column: String,
    /// As in the configuration, `lookup:field` or a field of the event.
    pub(crate) source: String,
    pub(crate) data_type: DataType,
    /// Whether single values may be null.
    pub(crate) nullable: bool,
    pub(crate) symbols: Option<Vec<String>>,
    /// SQL of what the schema says of events that lack it.
    pub(crate) default: Option<String>,
}

/// What will be sent for each column whose path leads somewhere, and what is wrong with the others; `references` has
/// the schema of each lookup's records, if it is known.
pub(super) fn resolve(spec: &TopicSpec, events: &Schema, references: &[Option<SchemaRef>]) -> (Vec<Sent>, Vec<String>) {
    let mut problems = Vec::new();
    match Extract::resolve(&spec.id, events) {
        Ok(id) if id.data_type() == &DataType::FixedSizeBinary(16) && id.is_nullable() => problems.push(format!(
            "id = \"{}\" may be null; expected a field that never is, for events without an id cannot be told apart",
            spec.id
        )),
        Ok(id) if id.data_type() == &DataType::FixedSizeBinary(16) => {}
        Ok(id) => problems.push(format!(
            "id = \"{}\" is of type {}; expected an Avro string or fixed(16) of logicalType uuid",
            spec.id,
            id.data_type()
        )),
        Err(miss) => {
            problems.push(nowhere("id", &miss, &format!("the schema of topic {}", spec.topic), events));
        }
    }
    for (lookup, reference) in spec.lookups.iter().zip(references) {
        problems.extend(lookup_problem(lookup, spec, events, reference.as_ref()));
    }
    let mut sent = Vec::new();
    for column in &spec.columns {
        match &column.source {
            Source::Event(path) => match Extract::resolve(path, events) {
                Ok(extract) => {
                    let leaf = leaf(events, path);
                    sent.push(Sent {
                        column: column.column.clone(),
                        source: path.to_string(),
                        data_type: extract.data_type().clone(),
                        nullable: leaf.nullable,
                        symbols: leaf.symbols,
                        default: None,
                    });
                }
                Err(miss) => {
                    let schema = format!("the schema of topic {}", spec.topic);
                    problems.push(nowhere(&format!("columns.{}", column.column), &miss, &schema, events));
                }
            },
            Source::Lookup { lookup, field } => {
                let (lookup, Some(reference)) = (&spec.lookups[*lookup], &references[*lookup]) else { continue };
                let Ok(table) = ReferenceTable::new(reference, &lookup.key, std::slice::from_ref(field)) else {
                    if let Err(miss) = Extract::resolve(field, reference) {
                        let schema = format!("the schema of topic {}", lookup.topic);
                        problems.push(nowhere(&format!("columns.{}", column.column), &miss, &schema, reference));
                    }
                    continue;
                };
                let Ok(bound) = Lookup::new(lookup.clone(), table, events) else { continue };
                let leaf = leaf(reference, field);
                sent.push(Sent {
                    column: column.column.clone(),
                    source: format!("{}:{field}", lookup.name),
                    data_type: bound.data_type(0),
                    nullable: leaf.nullable || lookup.miss != MissPolicy::DeadLetter,
                    symbols: leaf.symbols,
                    default: None,
                });
            }
        }
    }
    (sent, problems)
}

fn lookup_problem(
    lookup: &LookupSpec,
    spec: &TopicSpec,
    events: &Schema,
    reference: Option<&SchemaRef>,
) -> Vec<String> {
    let name = &lookup.name;
    let mut problems = Vec::new();
    match Extract::resolve(&lookup.on, events).map(|extract| text_or_list_of_it(extract.data_type())) {
        Ok(true) => {}
        Ok(false) => {
            problems.push(format!("lookup {name}: on = \"{}\" is not a string or an array of them", lookup.on))
        }
        Err(miss) => {
            let schema = format!("the schema of topic {}", spec.topic);
            problems.push(nowhere(&format!("lookup {name}: on"), &miss, &schema, events));
        }
    }
    let Some(reference) = reference else { return problems };
    match Extract::resolve(&lookup.key, reference).map(|extract| extract.data_type() == &DataType::Utf8) {
        Ok(true) => {}
        Ok(false) => problems.push(format!("lookup {name}: key = \"{}\" is not a string", lookup.key)),
        Err(miss) => {
            let schema = format!("the schema of topic {}", lookup.topic);
            problems.push(nowhere(&format!("lookup {name}: key"), &miss, &schema, reference));
        }
    }
    if reference_fields(&spec.columns, spec.lookups.iter().position(|l| l == lookup).unwrap_or_default()).is_empty() {
        problems.push(format!(
            "lookup {name}: no column takes a field of it; add `some_column = \"{name}:field\"` or remove it"
        ));
    }
    problems
}

fn text_or_list_of_it(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) => item.data_type() == &DataType::Utf8,
        other => other == &DataType::Utf8,
    }
}

/// `what = "data.totl": the schema … has no such field; did you mean "data.total"?`
fn nowhere(what: &str, miss: &NoSuchField, schema_name: &str, schema: &Schema) -> String {
    let NoSuchField { path, why, .. } = miss;
    if let Some(why) = why {
        return format!("{what} = \"{path}\": {why}");
    }
    let known = leaves(schema);
    let hint = match nearest(path, known.iter().map(String::as_str)) {
        Some(name) => format!("; did you mean \"{name}\"?"),
        None => format!("; it has {}", known.join(", ")),
    };
    format!("{what} = \"{path}\": {schema_name} has no such field{hint}")
}

/// Every path that leads to a value.
fn leaves(schema: &Schema) -> Vec<String> {
    fn walk(prefix: &str, field: &Field, into: &mut Vec<String>) {
        let path = if prefix.is_empty() { field.name().clone() } else { format!("{prefix}.{}", field.name()) };
        match innermost(field.data_type()) {
            DataType::Struct(fields) => fields.iter().for_each(|field| walk(&path, field, into)),
            _ => into.push(path),
        }
    }
    let mut paths = Vec::new();
    schema.fields().iter().for_each(|field| walk("", field, &mut paths));
    paths
}

fn innermost(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(item) => innermost(item.data_type()),
        other => other,
    }
}

struct Leaf {
    nullable: bool,
    symbols: Option<Vec<String>>,
}

/// What the Arrow type of a path does not say: whether a value may be null (below the innermost array, for null arrays
/// become empty ones), and an enum's symbols.
fn leaf(schema: &Schema, path: &FieldPath) -> Leaf {
    let mut leaf = Leaf { nullable: false, symbols: None };
    let mut fields = schema.fields().clone();
    for segment in path.segments() {
        let Some((_, field)) = fields.find(segment) else { return leaf };
        let mut field = Arc::clone(field);
        leaf.nullable |= field.is_nullable();
        while let DataType::List(item) = field.data_type() {
            leaf.nullable = item.is_nullable();
            field = Arc::clone(item);
        }
        // A null map becomes an empty one, as a null array does.
        leaf.nullable &= !matches!(field.data_type(), DataType::Map(..));
        leaf.symbols = field.metadata().get(ENUM_SYMBOLS).and_then(|json| serde_json::from_str(json).ok());
        match field.data_type() {
            DataType::Struct(inner) => fields = inner.clone(),
            _ => return leaf,
        }
    }
    leaf
}

#[cfg(test)]
mod tests {
    use millrace_pipeline::decode::{DecodeLimits, Decoder};
    use millrace_schemas::{CUSTOMER_V1, ORDER_EVENT_V1, PRODUCT_V1};

    use super::*;
    use crate::config::{Config, example};

    fn schema(avro: &str) -> SchemaRef {
        Decoder::new(avro, DecodeLimits::default()).unwrap().columns().clone()
    }

    fn resolved(config: &Config) -> (Vec<Sent>, Vec<String>) {
        let references = [Some(schema(CUSTOMER_V1)), Some(schema(PRODUCT_V1))];
        resolve(&config.topics[0].spec, &schema(ORDER_EVENT_V1), &references)
    }

    #[test]
    fn the_default_configuration_fits_the_shipped_schemas() {
        let (sent, problems) = resolved(&example(|text| text));
        assert_eq!(problems, [""; 0]);
        assert_eq!(sent.len(), 19);
        let of = |column: &str| sent.iter().find(|sent| sent.column == column).unwrap();
        assert_eq!(of("event_type").symbols.as_ref().unwrap().len(), 7);
        assert!(of("coupon").nullable && !of("currency").nullable);
        assert!(of("customer_segment").nullable && of("items.category").nullable);
        assert!(!of("items.sku").nullable);
    }

    #[test]
    fn every_path_that_leads_nowhere_is_told_with_the_nearest_that_leads_somewhere() {
        let config = example(|text| {
            text.replace("total = \"data.total\"", "total = \"data.totl\"")
                .replace("product:brand", "product:brnd")
                .replace("data.items.sku\"\nmiss", "data.items.sko\"\nmiss")
        });
        let (sent, problems) = resolved(&config);
        assert_eq!(
            problems,
            [
                "lookup product: on = \"data.items.sko\": the schema of topic orders has no such field; did you mean \"data.items.sku\"?",
                "columns.total = \"data.totl\": the schema of topic orders has no such field; did you mean \"data.total\"?",
                "columns.items.brand = \"product:brnd\": the schema of topic products has no such field; did you mean \"brand\"?",
            ]
            .map(|line| line.replace("\"product:brnd\"", "\"brnd\""))
        );
        assert_eq!(sent.len(), 16);
    }

    #[test]
    fn an_id_that_is_no_uuid_is_told() {
        let config = example(|text| text.replace("id = \"event_id\"", "id = \"data.order_id\""));
        let (_, problems) = resolved(&config);
        assert!(problems[0].contains("is of type Utf8; expected an Avro string"), "{problems:?}");
    }
}
