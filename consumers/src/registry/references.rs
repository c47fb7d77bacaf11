//! Makes one schema of a schema and those that it refers to: each named type is defined where it is first used.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value as Json};

/// `schema` with the types that it takes from `referenced` inside, all as Avro JSON. What no schema defines stays a name,
/// and what is no JSON stays as it is: the decoder tells both.
pub(super) fn inline(schema: &str, referenced: &[String]) -> String {
    let Ok(parsed) = serde_json::from_str(schema) else { return schema.to_owned() };
    let mut types = Types::default();
    for schema in referenced.iter().filter_map(|schema| serde_json::from_str(schema).ok()) {
        types.collect(&schema, "");
    }
    types.expand(parsed, "").to_string()
}

#[derive(Default)]
struct Types {
    /// Definitions by full name, each with its namespace said.
    referenced: HashMap<String, Json>,
    /// Full names of what is defined by now.
    defined: HashSet<String>,
}

impl Types {
    fn collect(&mut self, schema: &Json, namespace: &str) {
        match schema {
            Json::Array(branches) => branches.iter().for_each(|branch| self.collect(branch, namespace)),
            Json::Object(object) => {
                let named = Named::of(object, namespace);
                let namespace = named.as_ref().map_or(namespace, |named| &named.namespace);
                for inner in inner_types(object) {
                    self.collect(inner, namespace);
                }
                if let Some(named) = named {
                    let mut definition = object.clone();
                    definition.insert("name".to_owned(), Json::String(named.name.clone()));
                    definition.insert("namespace".to_owned(), Json::String(named.namespace.clone()));
                    self.referenced.entry(named.full()).or_insert(Json::Object(definition));
                }
            }
            _ => {}
        }
    }

    fn expand(&mut self, schema: Json, namespace: &str) -> Json {
        match schema {
            Json::String(name) => {
                let full = if name.contains('.') { name.clone() } else { join(namespace, &name) };
                match self.referenced.get(&full).filter(|_| !self.defined.contains(&full)) {
                    Some(definition) => self.expand(definition.clone(), ""),
                    None => Json::String(name),
                }
            }
            Json::Array(branches) => branches.into_iter().map(|branch| self.expand(branch, namespace)).collect(),
            Json::Object(mut object) => {
                let named = Named::of(&object, namespace);
                if let Some(named) = &named
                    && !self.defined.insert(named.full())
                {
                    // A leading dot is the name without a namespace, wherever it stands.
                    return Json::String(format!("{}.{}", named.namespace, named.name));
                }
                let namespace = named.as_ref().map_or(namespace, |named| &named.namespace);
                for inner in inner_types_mut(&mut object) {
                    let expanded = self.expand(inner.take(), namespace);
                    *inner = expanded;
                }
                Json::Object(object)
            }
            other => other,
        }
    }
}

/// The name of a record, enum or fixed.
struct Named {
    namespace: String,
    name: String,
}

impl Named {
    fn of(object: &Map<String, Json>, namespace: &str) -> Option<Self> {
        let (kind, name) = (object.get("type")?.as_str()?, object.get("name")?.as_str()?);
        if !matches!(kind, "record" | "enum" | "fixed") {
            return None;
        }
        let (namespace, name) = match name.rsplit_once('.') {
            Some((namespace, name)) => (namespace, name),
            None => (object.get("namespace").and_then(Json::as_str).unwrap_or(namespace), name),
        };
        Some(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    fn full(&self) -> String {
        join(&self.namespace, &self.name)
    }
}

fn join(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

/// The types that lie in one: of fields, items, values, or the one that a logical type is written as.
fn inner_types(object: &Map<String, Json>) -> Vec<&Json> {
    let fields = object.get("fields").and_then(Json::as_array).into_iter().flatten();
    let of_fields = fields.filter_map(|field| field.get("type"));
    ["type", "items", "values"].into_iter().filter_map(|key| object.get(key)).chain(of_fields).collect()
}

/// As [`inner_types`], in the order in which they are written.
fn inner_types_mut(object: &mut Map<String, Json>) -> Vec<&mut Json> {
    let mut inner = Vec::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("fields", Json::Array(fields)) => {
                inner.extend(fields.iter_mut().filter_map(|field| field.get_mut("type")))
            }
            ("type" | "items" | "values", value) => inner.push(value),
            _ => {}
        }
    }
    inner
}

#[cfg(test)]
mod tests {
    use millrace_pipeline::decode::{DecodeLimits, Decoder};

    use super::*;

    const ADDRESS: &str = r#"{"type":"record","name":"Address","namespace":"a","fields":[
        {"name":"country","type":{"type":"enum","name":"Country","symbols":["DE","FR"]}},{"name":"geo","type":["null","b.Geo"]}]}"#;
    const GEO: &str = r#"{"type":"record","name":"b.Geo","fields":[{"name":"x","type":"double"}]}"#;
    const PLAIN: &str = r#"{"type":"fixed","name":"Plain","size":2}"#;

    fn columns(schema: &str, referenced: &[&str]) -> Result<String, String> {
        let referenced: Vec<String> = referenced.iter().map(|schema| (*schema).to_owned()).collect();
        let decoder = Decoder::new(&inline(schema, &referenced), DecodeLimits::default());
        decoder.map(|decoder| format!("{:?}", decoder.columns())).map_err(|error| error.to_string())
    }

    #[test]
    fn each_type_is_defined_where_it_is_first_used_and_named_after_that() {
        let with = |address: &str, geo: &str, country: &str, plain: &str| {
            format!(
                r#"{{"type":"record","name":"Order","namespace":"a","fields":[
                   {{"name":"from","type":{address}}},{{"name":"to","type":["null","Address"]}},
                   {{"name":"at","type":{{"type":"array","items":{geo}}}}},{{"name":"tax","type":{{"type":"map","values":{country}}}}},
                   {{"name":"plain","type":{plain}}}]}}"#
            )
        };
        let plain = r#"{"type":"fixed","name":"Plain","namespace":"","size":2}"#;
        let by_hand = with(&ADDRESS.replace("\"b.Geo\"", GEO), "\"b.Geo\"", "\"Country\"", plain);
        let by_reference = with("\"a.Address\"", "\"b.Geo\"", "\"a.Country\"", "\"a.Plain\"");
        let plain_in_a = PLAIN.replace("\"Plain\"", "\"a.Plain\"");
        let expected = columns(&by_hand, &[]).unwrap();
        assert_eq!(columns(&by_reference, &[ADDRESS, GEO, &plain_in_a]), Ok(expected.clone()));
        assert_eq!(columns(&by_reference, &[&plain_in_a, GEO, ADDRESS]), Ok(expected), "in whatever order they come");
    }

    #[test]
    fn a_union_of_event_types_may_be_all_references() {
        let whole = inline(r#"["a.Address","b.Geo"]"#, &[GEO.to_owned(), ADDRESS.to_owned()]);
        let whole: Json = serde_json::from_str(&whole).unwrap();
        assert_eq!((&whole[0]["name"], &whole[1]), (&"Address".into(), &"b.Geo".into()), "{whole}");
        assert_eq!(whole[0]["fields"][1]["type"][1]["name"], "Geo");
    }

    #[test]
    fn types_that_contain_each_other_end_and_are_refused_as_such() {
        let one = r#"{"type":"record","name":"One","fields":[{"name":"two","type":"Two"}]}"#;
        let two = r#"{"type":"record","name":"Two","fields":[{"name":"one","type":["null","One"]}]}"#;
        let error = columns(one, &[one, two]).unwrap_err();
        assert!(error.contains("`One` contains itself"), "{error}");
    }

    #[test]
    fn a_name_that_nobody_defines_is_told_by_the_decoder() {
        let error =
            columns(r#"{"type":"record","name":"E","fields":[{"name":"x","type":"c.Gone"}]}"#, &[GEO]).unwrap_err();
        assert!(error.contains("c.Gone"), "{error}");
        assert_eq!(inline("no JSON", &[GEO.to_owned()]), "no JSON");
    }
}
