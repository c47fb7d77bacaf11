//! Manifests as kustomize prints them, and the questions that the rules ask of them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize as _;
use serde_json::Value;

/// Kinds that make pods, but for those of custom resources.
const WORKLOADS: [&str; 6] = ["Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod"];

/// Labels by key.
pub(super) type Labels = BTreeMap<String, String>;

/// One resource.
#[derive(Clone, Debug)]
pub(super) struct Manifest(pub(super) Value);

/// A pod as a workload describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pod<'a> {
    /// The resource that makes it.
    pub(super) of: &'a Manifest,
    pub(super) metadata: &'a Value,
    pub(super) spec: &'a Value,
}

/// Reads a stream of YAML documents.
///
/// # Errors
/// If one is no YAML.
pub(super) fn read(text: &str) -> Result<Vec<Manifest>> {
    let documents = serde_yaml_ng::Deserializer::from_str(text);
    let values = documents.map(|document| Value::deserialize(document).context("read YAML"));
    values.filter(|value| !matches!(value, Ok(Value::Null))).map(|value| Ok(Manifest(value?))).collect()
}

impl Manifest {
    pub(super) fn kind(&self) -> &str {
        text(&self.0["kind"])
    }

    pub(super) fn name(&self) -> &str {
        text(&self.0["metadata"]["name"])
    }

    /// Of it, or nothing for what is of no namespace.
    pub(super) fn namespace(&self) -> &str {
        text(&self.0["metadata"]["namespace"])
    }

    pub(super) fn spec(&self) -> &Value {
        &self.0["spec"]
    }

    /// `Kind/name`, for findings.
    pub(super) fn title(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }

    /// The pod that it makes, if it makes any.
    pub(super) fn pod(&self) -> Option<Pod<'_>> {
        let template = match self.kind() {
            "Pod" => &self.0,
            "CronJob" => &self.spec()["jobTemplate"]["spec"]["template"],
            kind if WORKLOADS.contains(&kind) => &self.spec()["template"],
            _ => return None,
        };
        Some(Pod { of: self, metadata: &template["metadata"], spec: &template["spec"] })
    }
}

impl<'a> Pod<'a> {
    /// Whether it runs to its end rather than for ever.
    pub(super) fn ends(self) -> bool {
        matches!(self.of.kind(), "Job" | "CronJob")
    }

    pub(super) fn labels(self) -> Labels {
        labels(&self.metadata["labels"])
    }

    /// With those that run before the others.
    pub(super) fn containers(self) -> impl Iterator<Item = &'a Value> {
        [&self.spec["initContainers"], &self.spec["containers"]].into_iter().flat_map(list)
    }

    /// `Kind/name, container name`, for findings.
    pub(super) fn title_of(self, container: &Value) -> String {
        format!("{}, container {}", self.of.title(), text(&container["name"]))
    }

    /// Names and numbers of its containers' ports.
    pub(super) fn ports(self) -> impl Iterator<Item = (&'a str, u64)> {
        let ports = self.containers().flat_map(|container| list(&container["ports"]));
        ports.filter_map(|port| Some((text(&port["name"]), port["containerPort"].as_u64()?)))
    }
}

/// All pods that the manifests make.
pub(super) fn pods(manifests: &[Manifest]) -> impl Iterator<Item = Pod<'_>> {
    manifests.iter().filter_map(Manifest::pod)
}

/// All manifests of a kind.
pub(super) fn of_kind<'a>(manifests: &'a [Manifest], kind: &'a str) -> impl Iterator<Item = &'a Manifest> {
    manifests.iter().filter(move |manifest| manifest.kind() == kind)
}

/// The items of a list; none if it is not there.
pub(super) fn list(value: &Value) -> std::slice::Iter<'_, Value> {
    value.as_array().map_or([].iter(), |items| items.iter())
}

/// The text; empty if it is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn labels(value: &Value) -> Labels {
    let map = value.as_object().into_iter().flatten();
    map.map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}

/// Whether a selector (`matchLabels`, `matchExpressions` with `In` and `Exists`) selects labels. An empty one selects all.
pub(super) fn selects(selector: &Value, of: &Labels) -> bool {
    let equal = labels(&selector["matchLabels"]).iter().all(|(key, value)| of.get(key) == Some(value));
    equal
        && list(&selector["matchExpressions"]).all(|expression| {
            let found = of.get(text(&expression["key"]));
            match text(&expression["operator"]) {
                "In" => found.is_some_and(|found| list(&expression["values"]).any(|value| text(value) == found)),
                "Exists" => found.is_some(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_read_one_by_one_and_empty_ones_passed_over() {
        let manifests = read("kind: A\nmetadata: {name: x}\n---\n---\nkind: B\n").unwrap();
        let titles: Vec<_> = manifests.iter().map(Manifest::title).collect();
        assert_eq!(titles, ["A/x", "B/"]);
        assert!(read("a: [").is_err());
    }

    #[test]
    fn selectors_select_by_labels_and_by_expressions() {
        let of = labels(&json!({"app": "a", "tier": "x"}));
        assert!(selects(&json!({}), &of));
        assert!(selects(&json!({"matchLabels": {"app": "a"}}), &of));
        assert!(!selects(&json!({"matchLabels": {"app": "a", "more": "b"}}), &of));
        assert!(selects(&json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["b", "a"]}]}), &of));
        assert!(!selects(&json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["b"]}]}), &of));
        assert!(!selects(&json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["b"]}]}), &of));
    }
}
