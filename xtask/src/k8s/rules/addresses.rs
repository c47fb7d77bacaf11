//! Rules of the names by which programs find each other.

use super::{
    super::manifest::{Manifest, list, of_kind, pods, text},
    Sources,
};

/// How a name within the cluster ends.
const ENDING: &str = ".svc.cluster.local";

/// Every name within the cluster, in ConfigMaps and in variables, is of a Service of the manifests or of Strimzi, with a port of it, and
/// of a replica that there is. Names in other namespaces are theirs.
pub(super) fn known(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let maps = of_kind(manifests, "ConfigMap").flat_map(|map| {
        let texts = map.0["data"].as_object().into_iter().flatten();
        texts.map(|(file, value)| (format!("{}, {file}", map.title()), text(value)))
    });
    let variables = pods(manifests).flat_map(|pod| {
        let variables = pod.containers().flat_map(|container| list(&container["env"]));
        variables.map(move |variable| (pod.of.title(), text(&variable["value"])))
    });
    let mut found = Vec::new();
    for (title, text) in maps.chain(variables) {
        for (host, port) in addresses(text) {
            found.extend(unknown(manifests, host, port).map(|why| format!("{title}: {host}{ENDING}: {why}")));
        }
    }
    found
}

/// Names within the cluster without their ending, and the ports behind them.
fn addresses(text: &str) -> impl Iterator<Item = (&str, Option<u64>)> {
    text.match_indices(ENDING).map(move |(at, _)| {
        let before = &text[..at];
        let is_name = |byte: char| byte.is_ascii_alphanumeric() || "-.$()_".contains(byte);
        let host = &before[before.trim_end_matches(is_name).len()..];
        let port = text[at + ENDING.len()..].strip_prefix(':').and_then(|rest| {
            let digits = rest.len() - rest.trim_start_matches(|byte: char| byte.is_ascii_digit()).len();
            rest[..digits].parse().ok()
        });
        (host, port)
    })
}

/// Why there is nothing under a name, if so.
fn unknown(manifests: &[Manifest], host: &str, port: Option<u64>) -> Option<String> {
    let parts: Vec<&str> = host.split('.').collect();
    let (pod, service, namespace) = match parts[..] {
        [service, namespace] => (None, service, namespace),
        [pod, service, namespace] => (Some(pod), service, namespace),
        _ => return Some("is no name of a Service or of a pod".to_owned()),
    };
    if !of_kind(manifests, "Namespace").any(|own| own.name() == namespace) {
        return None;
    }
    let bootstrap = of_kind(manifests, "Kafka").find(|kafka| service == format!("{}-kafka-bootstrap", kafka.name()));
    let ports: Vec<u64> = if let Some(kafka) = bootstrap {
        list(&kafka.spec()["kafka"]["listeners"]).filter_map(|listener| listener["port"].as_u64()).collect()
    } else if let Some(own) = of_kind(manifests, "Service").find(|own| own.name() == service) {
        list(&own.spec()["ports"]).filter_map(|port| port["port"].as_u64()).collect()
    } else {
        return Some(format!("there is no Service {service}"));
    };
    if port.is_some_and(|port| !ports.contains(&port)) {
        return Some(format!("has ports {ports:?} only"));
    }
    // A name that is put together in the pod is the pod's own.
    let pod = pod.filter(|pod| !pod.starts_with('$'))?;
    let set = of_kind(manifests, "StatefulSet").find(|set| text(&set.spec()["serviceName"]) == service);
    let is_there = set.is_some_and(|set| {
        let first = set.spec()["ordinals"]["start"].as_u64().unwrap_or(0);
        let count = set.spec()["replicas"].as_u64().unwrap_or(1);
        (first..first + count).any(|ordinal| pod == format!("{}-{ordinal}", set.name()))
    });
    (!is_there).then(|| format!("there is no pod {pod}"))
}

#[cfg(test)]
mod tests {
    use super::{super::super::manifest::read, *};

    const TEXT: &str = "
kind: Namespace
metadata: {name: shop}
---
kind: Service
metadata: {name: db}
spec: {ports: [{port: 8123}]}
---
kind: StatefulSet
metadata: {name: db}
spec: {serviceName: db, replicas: 2, ordinals: {start: 1}}
---
kind: Kafka
metadata: {name: kafka}
spec: {kafka: {listeners: [{port: 9093}]}}
---
kind: ConfigMap
metadata: {name: a}
data: {a.toml: 'url = \"http://ADDRESS\"'}
";

    #[test]
    fn names_of_services_and_pods_that_are_not_there_are_found() {
        let at = |address: &str| known(&read(&TEXT.replace("ADDRESS", address)).unwrap(), &Sources::default());
        for good in [
            "db.shop.svc.cluster.local",
            "db.shop.svc.cluster.local:8123/x",
            "db-2.db.shop.svc.cluster.local:8123",
            "$(POD_NAME).db.shop.svc.cluster.local",
            "kafka-kafka-bootstrap.shop.svc.cluster.local:9093,db-1.db.shop.svc.cluster.local:8123",
            "other.elsewhere.svc.cluster.local:1",
            "example.com:1",
        ] {
            assert_eq!(at(good), Vec::<String>::new(), "{good}");
        }
        for (bad, what) in [
            ("dbs.shop.svc.cluster.local", "no Service dbs"),
            ("db.shop.svc.cluster.local:8124", "has ports [8123] only"),
            ("db-0.db.shop.svc.cluster.local", "no pod db-0"),
            ("db-3.db.shop.svc.cluster.local", "no pod db-3"),
            ("kafka-kafka-bootstrap.shop.svc.cluster.local:9092", "has ports [9093] only"),
            ("a.db-1.db.shop.svc.cluster.local", "no name"),
        ] {
            let found = at(bad);
            assert!(found.len() == 1 && found[0].contains(what), "{bad}: {found:?}");
        }
    }
}
