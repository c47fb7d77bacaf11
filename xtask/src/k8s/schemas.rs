//! JSON schemas out of what Kubernetes and the makers of custom resources publish, strict: what is not named is refused.
//!
//! Not taken over are rules in CEL (`x-kubernetes-validations`), which only an API server evaluates.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

/// How kubeconform finds the file of a kind.
pub(super) const LOCATION: &str = "{{ .Group }}_{{ .ResourceKind }}_{{ .ResourceAPIVersion }}.json";

const REFERENCE: &str = "#/definitions/";
/// 1, "1", "500m" and "2Gi" are all of them quantities.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// Writes a file for each kind of a stable version, with what it refers to.
///
/// # Errors
/// If it is no OpenAPI 2 description of Kubernetes, or a file cannot be written.
pub(super) fn core(openapi: &Value, to: &Path) -> Result<()> {
    let definitions = openapi["definitions"].as_object().context("the OpenAPI description has no definitions")?;
    for (name, definition) in definitions {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        // One of several kinds (Status, DeleteOptions) is no manifest.
        let Some([kind]) = kinds.map(Vec::as_slice) else { continue };
        let text = |key: &str| kind[key].as_str().context("a kind has no group, version or name");
        if text("version")?.contains(['a', 'b']) {
            continue;
        }
        let mut needed = BTreeSet::new();
        reachable(definitions, name, &mut needed);
        let mut own = Map::new();
        for name in needed {
            let mut schema = definitions.get(name).cloned().unwrap_or_default();
            if name == QUANTITY {
                schema = json!({"type": ["string", "number"]});
            }
            strict(&mut schema);
            own.insert(name.to_owned(), schema);
        }
        let schema = json!({"$ref": format!("{REFERENCE}{name}"), "definitions": own});
        write(to, text("group")?, text("kind")?, text("version")?, &schema)?;
    }
    Ok(())
}

/// Writes a file for each served version of a custom resource definition.
///
/// # Errors
/// If it is none, or a file cannot be written.
pub(super) fn custom(definition: &Value, to: &Path) -> Result<()> {
    let spec = &definition["spec"];
    let group = spec["group"].as_str().context("the definition has no group")?;
    let kind = spec["names"]["kind"].as_str().context("the definition has no kind")?;
    for version in spec["versions"].as_array().context("the definition has no versions")? {
        if version["served"] != json!(true) {
            continue;
        }
        let mut schema = version["schema"]["openAPIV3Schema"].clone();
        strict(&mut schema);
        // The API server knows metadata itself.
        schema["properties"]["metadata"] = json!({"type": "object"});
        write(to, group, kind, version["name"].as_str().context("a version has no name")?, &schema)?;
    }
    Ok(())
}

fn write(to: &Path, group: &str, kind: &str, version: &str, schema: &Value) -> Result<()> {
    // kubeconform takes the core group, which has no name, by its version.
    let group = if group.is_empty() { version } else { group };
    let path = to.join(format!("{group}_{}_{version}.json", kind.to_lowercase()));
    fs::write(&path, schema.to_string()).with_context(|| format!("cannot write {}", path.display()))
}

/// The definitions that one refers to, itself among them.
fn reachable<'a>(definitions: &'a Map<String, Value>, name: &'a str, found: &mut BTreeSet<&'a str>) {
    if !found.insert(name) {
        return;
    }
    let mut open: Vec<&Value> = definitions.get(name).into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(name) =
                    map.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(REFERENCE))
                {
                    reachable(definitions, name, found);
                }
                open.extend(map.values());
            }
            Value::Array(list) => open.extend(list),
            _ => {}
        }
    }
}

/// Refuses keys that are not named, and turns what only Kubernetes knows into JSON schema.
fn strict(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    let yes = |key: &str, map: &Map<String, Value>| map.get(key) == Some(&json!(true));
    if yes("x-kubernetes-int-or-string", map) || map.get("format") == Some(&json!("int-or-string")) {
        map.insert("type".to_owned(), json!(["integer", "string"]));
        map.remove("format");
    }
    if yes("nullable", map)
        && let Some(kind @ Value::String(_)) = map.get("type").cloned()
    {
        map.insert("type".to_owned(), json!([kind, "null"]));
    }
    let open = yes("x-kubernetes-preserve-unknown-fields", map) || yes("x-kubernetes-embedded-resource", map);
    if map.contains_key("properties") && !map.contains_key("additionalProperties") && !open {
        map.insert("additionalProperties".to_owned(), json!(false));
    }
    // Not into anyOf and its like: their branches only restrict what is named beside them.
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(key) {
            strict(inner);
        }
    }
    if let Some(properties) = map.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(strict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_strict(mut schema: Value) -> Value {
        strict(&mut schema);
        schema
    }

    #[test]
    fn keys_that_are_not_named_are_refused_unless_the_definition_lets_them_in() {
        let schema = json!({"properties": {"spec": {"properties": {"a": {"type": "string"}}}}});
        let strict = made_strict(schema);
        assert_eq!(strict["additionalProperties"], json!(false));
        assert_eq!(strict["properties"]["spec"]["additionalProperties"], json!(false));
        let open = made_strict(json!({"properties": {}, "x-kubernetes-preserve-unknown-fields": true}));
        assert_eq!(open.get("additionalProperties"), None);
        let map = made_strict(json!({"additionalProperties": {"properties": {}}}));
        assert_eq!(map["additionalProperties"]["additionalProperties"], json!(false));
        let branches = json!({"anyOf": [{"properties": {"a": {}}}]});
        assert_eq!(made_strict(branches.clone()), branches, "a branch only restricts");
    }

    #[test]
    fn what_only_kubernetes_knows_becomes_json_schema() {
        assert_eq!(
            made_strict(json!({"type": "string", "format": "int-or-string"}))["type"],
            json!(["integer", "string"])
        );
        assert_eq!(made_strict(json!({"x-kubernetes-int-or-string": true}))["type"], json!(["integer", "string"]));
        assert_eq!(made_strict(json!({"type": "object", "nullable": true}))["type"], json!(["object", "null"]));
    }

    #[test]
    fn a_kind_is_written_with_what_it_refers_to_and_no_more() {
        let to = std::env::temp_dir().join(format!("millrace-schemas-{}", std::process::id()));
        fs::create_dir_all(&to).unwrap();
        let openapi = json!({"definitions": {
            "Pod": {
                "properties": {"spec": {"$ref": "#/definitions/Spec"}},
                "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "Pod"}],
            },
            "Spec": {"properties": {"again": {"items": {"$ref": "#/definitions/Spec"}}}},
            "Other": {},
            "Old": {"x-kubernetes-group-version-kind": [{"group": "", "version": "v1beta1", "kind": "Old"}]},
        }});
        core(&openapi, &to).unwrap();
        let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let written: Value = serde_json::from_slice(&fs::read(to.join("v1_pod_v1.json")).unwrap()).unwrap();
        fs::remove_dir_all(&to).unwrap();
        assert_eq!(names, ["v1_pod_v1.json"]);
        let definitions: Vec<_> = written["definitions"].as_object().unwrap().keys().collect();
        assert_eq!(definitions, ["Pod", "Spec"]);
    }
}
