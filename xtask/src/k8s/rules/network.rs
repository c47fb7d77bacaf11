//! Rules of who may talk to whom.

use serde_json::{Value, json};

use super::{
    super::manifest::{Labels, Manifest, labels, list, of_kind, pods, selects, text},
    Sources,
};

/// Of Strimzi's brokers and controllers, besides their listeners: the controllers' own, and replication.
const STRIMZI_PORTS: [u64; 2] = [9090, 9091];

/// A pod that policies may select: one of the manifests, or one that Strimzi will make.
struct End {
    title: String,
    labels: Labels,
    ports: Vec<u64>,
}

/// In each namespace with pods, one policy for all of them that lets nothing in.
pub(super) fn denied(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests) {
        let denies = |policy: &Manifest| {
            let spec = policy.spec();
            policy.namespace() == pod.of.namespace()
                && spec["podSelector"] == json!({})
                && ["Ingress", "Egress"].iter().all(|kind| list(&spec["policyTypes"]).any(|own| text(own) == *kind))
                && list(&spec["ingress"]).next().is_none()
        };
        if pod.of.namespace().is_empty() {
            found.push(format!("{}: has no namespace", pod.of.title()));
        } else if !of_kind(manifests, "NetworkPolicy").any(denies) {
            found.push(format!("namespace {}: nothing denies by default", pod.of.namespace()));
        }
    }
    found
}

/// Every policy selects pods that there are, every port is one of theirs, and a way within the namespace is open at both ends.
pub(super) fn opened(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let ends = ends(manifests);
    let mut found = Vec::new();
    for policy in of_kind(manifests, "NetworkPolicy") {
        let spec = policy.spec();
        let own: Vec<&End> = ends.iter().filter(|end| selects(&spec["podSelector"], &end.labels)).collect();
        if own.is_empty() {
            found.push(format!("{}: selects no pod", policy.title()));
        }
        for rule in list(&spec["ingress"]) {
            for port in numbers(rule) {
                let without = own.iter().filter(|end| !end.ports.contains(&port));
                found.extend(without.map(|end| format!("{}: {} has no port {port}", policy.title(), end.title)));
                let sources = list(&rule["from"]).filter(is_near).flat_map(|peer| selected(&ends, peer));
                for (source, end) in sources.flat_map(|source| own.iter().map(move |end| (source, end))) {
                    if !goes_out(manifests, source, end, port) {
                        found.push(format!(
                            "{}: {} may not go out to {} port {port}",
                            policy.title(),
                            source.title,
                            end.title
                        ));
                    }
                }
            }
        }
        for rule in list(&spec["egress"]) {
            for peer in list(&rule["to"]).filter(is_near) {
                let others: Vec<&End> = selected(&ends, peer).collect();
                for port in numbers(rule) {
                    if !others.iter().any(|other| other.ports.contains(&port)) {
                        found.push(format!("{}: goes to no pod with port {port}", policy.title()));
                    }
                    for other in others.iter().filter(|other| other.ports.contains(&port)) {
                        let shut = own.iter().filter(|end| !lets_in(manifests, end, other, port));
                        found.extend(shut.map(|end| {
                            format!("{}: {} does not let {} in at port {port}", policy.title(), other.title, end.title)
                        }));
                    }
                }
            }
        }
    }
    found
}

fn ends(manifests: &[Manifest]) -> Vec<End> {
    let mut ends: Vec<End> = pods(manifests)
        .map(|pod| End {
            title: pod.of.title(),
            labels: pod.labels(),
            ports: pod.ports().map(|(_, port)| port).collect(),
        })
        .collect();
    for kafka in of_kind(manifests, "Kafka") {
        let labels = |part: &str| {
            let cluster = kafka.name();
            labels(&json!({
                "strimzi.io/cluster": cluster, "strimzi.io/kind": "Kafka", "strimzi.io/name": format!("{cluster}-{part}"),
            }))
        };
        let listeners = list(&kafka.spec()["kafka"]["listeners"]).filter_map(|listener| listener["port"].as_u64());
        let ports = listeners.chain(STRIMZI_PORTS).collect();
        ends.push(End { title: kafka.title(), labels: labels("kafka"), ports });
        let title = format!("{}, entity operator", kafka.title());
        ends.push(End { title, labels: labels("entity-operator"), ports: Vec::new() });
    }
    ends
}

/// A peer of the policy's own namespace.
fn is_near(peer: &&Value) -> bool {
    peer["namespaceSelector"].is_null() && !peer["podSelector"].is_null()
}

fn selected<'a>(ends: &'a [End], peer: &'a Value) -> impl Iterator<Item = &'a End> {
    ends.iter().filter(|end| selects(&peer["podSelector"], &end.labels))
}

fn numbers(rule: &Value) -> impl Iterator<Item = u64> {
    list(&rule["ports"]).filter_map(|port| port["port"].as_u64())
}

/// Whether some policy of `from` names the way.
fn goes_out(manifests: &[Manifest], from: &End, to: &End, port: u64) -> bool {
    is_named(manifests, ("egress", "to"), from, to, port)
}

/// Whether some policy of `to` names the way; or Strimzi, which makes the policies of its own pods out of the listeners' peers.
fn lets_in(manifests: &[Manifest], from: &End, to: &End, port: u64) -> bool {
    let of_strimzi = of_kind(manifests, "Kafka").filter(|kafka| kafka.title() == to.title).any(|kafka| {
        let is_own = from.labels.get("strimzi.io/cluster").is_some_and(|cluster| cluster == kafka.name());
        let listeners =
            list(&kafka.spec()["kafka"]["listeners"]).filter(|listener| listener["port"].as_u64() == Some(port));
        let mut peers = listeners.flat_map(|listener| list(&listener["networkPolicyPeers"]));
        is_own || peers.any(|peer| is_near(&peer) && selects(&peer["podSelector"], &from.labels))
    });
    of_strimzi || is_named(manifests, ("ingress", "from"), to, from, port)
}

fn is_named(manifests: &[Manifest], (way, peers): (&str, &str), own: &End, other: &End, port: u64) -> bool {
    of_kind(manifests, "NetworkPolicy").filter(|policy| selects(&policy.spec()["podSelector"], &own.labels)).any(
        |policy| {
            list(&policy.spec()[way]).any(|rule| {
                let peer = |peer: &Value| is_near(&peer) && selects(&peer["podSelector"], &other.labels);
                numbers(rule).any(|number| number == port) && list(&rule[peers]).any(peer)
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::{
        super::sound::{broken, finds},
        *,
    };

    #[test]
    fn a_namespace_that_does_not_deny_is_found() {
        finds(denied, &broken("podSelector: {}", "podSelector: {matchLabels: {app: app}}"), "nothing denies");
        finds(denied, &broken("policyTypes: [Ingress, Egress] # all", "policyTypes: [Ingress]"), "nothing denies");
        finds(
            denied,
            &broken("policyTypes: [Ingress, Egress] # all", "policyTypes: [Ingress, Egress]\n  ingress: [{}]"),
            "nothing",
        );
        finds(denied, &broken("namespace: shop # app", ""), "has no namespace");
    }

    #[test]
    fn a_policy_for_pods_or_ports_that_are_not_there_is_found() {
        finds(
            opened,
            &broken("podSelector: {matchLabels: {app: app}} # in", "podSelector: {matchLabels: {app: ap}}"),
            "selects no pod",
        );
        finds(opened, &broken("ports: [{port: 9400}] # in", "ports: [{port: 9401}]"), "has no port 9401");
        finds(opened, &broken("ports: [{port: 9400}] # out", "ports: [{port: 9402}]"), "no pod with port 9402");
    }

    #[test]
    fn a_way_that_is_open_at_one_end_only_is_found() {
        finds(
            opened,
            &broken("- to: [{podSelector: {matchLabels: {app: app}}}]", "- to: [{ipBlock: {cidr: 192.0.2.0/24}}]"),
            "may not go out",
        );
        finds(
            opened,
            &broken("- from: [{podSelector: {matchLabels: {app: job}}}]", "- from: [{ipBlock: {cidr: 192.0.2.0/24}}]"),
            "does not let",
        );
    }

    #[test]
    fn brokers_of_strimzi_let_in_whom_their_listener_names() {
        let kafka = "
apiVersion: kafka.strimzi.io/v1
kind: Kafka
metadata: {name: kafka}
spec:
  kafka:
    listeners: [{port: 9093, networkPolicyPeers: [{podSelector: {matchLabels: {app: job}}}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: more, namespace: shop}
spec:
  podSelector: {matchLabels: {app: job}}
  egress:
    - to: [{podSelector: {matchLabels: {strimzi.io/name: kafka-kafka}}}]
      ports: [{port: 9093}]
";
        let with = |from: &str, to: &str| {
            let mut manifests = broken("", "");
            manifests.extend(super::super::super::manifest::read(&kafka.replace(from, to)).unwrap());
            opened(&manifests, &Sources::default())
        };
        assert_eq!(with("", ""), Vec::<String>::new());
        assert!(with("{app: job}}}]}]", "{app: other}}}]}]")[0].contains("does not let Job/job in"));
        assert!(with("ports: [{port: 9093}]", "ports: [{port: 9092}]")[0].contains("no pod with port 9092"));
    }
}
