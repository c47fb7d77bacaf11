//! Rules of the autoscaler. What its query answers is tried by promtool, see `autoscaler`.

use serde_json::json;

use super::{
    super::manifest::{Manifest, of_kind, text},
    Sources,
};

/// From one consumer to one for each partition; the number is held where Prometheus does not answer; nobody else sets it.
pub(super) fn held(manifests: &[Manifest], sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for scaler in of_kind(manifests, "ScaledObject") {
        let (title, spec) = (scaler.title(), scaler.spec());
        if spec["minReplicaCount"].as_u64().is_none_or(|least| least < 1) {
            found.push(format!("{title}: may scale to none"));
        }
        let topic = topic(&sources.configuration);
        let partitions = of_kind(manifests, "KafkaTopic").find(|other| other.name() == topic);
        if let Some(partitions) = partitions.and_then(|topic| topic.spec()["partitions"].as_u64())
            && spec["maxReplicaCount"].as_u64().is_none_or(|most| most > partitions)
        {
            found.push(format!("{title}: topic {topic} has {partitions} partitions, fewer than maxReplicaCount"));
        }
        if spec["maxReplicaCount"].is_null() {
            found.push(format!("{title}: has no maxReplicaCount"));
        }
        if spec["fallback"]["behavior"] != json!("currentReplicas") {
            found.push(format!("{title}: does not hold the number of consumers when Prometheus does not answer"));
        }
        let target = text(&spec["scaleTargetRef"]["name"]);
        match of_kind(manifests, "Deployment").find(|deployment| deployment.name() == target) {
            None => found.push(format!("{title}: there is no Deployment {target}")),
            Some(deployment) if !deployment.spec()["replicas"].is_null() => {
                found.push(format!("{}: sets replicas, which are the autoscaler's", deployment.title()));
            }
            Some(_) => {}
        }
    }
    found
}

/// The first topic of a configuration.
fn topic(configuration: &str) -> String {
    let table = configuration.parse::<toml::Table>().unwrap_or_default();
    let name = table.get("topics").and_then(|topics| topics.get(0)).and_then(|topic| topic.get("name"));
    name.and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::sound::{broken, finds},
        *,
    };

    #[test]
    fn an_autoscaler_that_goes_too_far_or_lets_go_is_found() {
        finds(held, &broken("minReplicaCount: 1", "minReplicaCount: 0"), "scale to none");
        finds(held, &broken("minReplicaCount: 1", ""), "scale to none");
        finds(held, &broken("maxReplicaCount: 12", "maxReplicaCount: 13"), "fewer than maxReplicaCount");
        finds(held, &broken("maxReplicaCount: 12", ""), "has no maxReplicaCount");
        finds(held, &broken("behavior: currentReplicas", "behavior: static"), "does not hold");
        finds(held, &broken("scaleTargetRef: {name: app}", "scaleTargetRef: {name: other}"), "no Deployment other");
        finds(held, &broken("strategy: {}", "replicas: 3"), "which are the autoscaler's");
    }
}
