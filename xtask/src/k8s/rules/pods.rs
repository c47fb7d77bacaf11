//! Rules of single pods and containers.

use serde_json::{Value, json};

use super::{
    super::manifest::{Manifest, list, of_kind, pods, text},
    Sources,
};

/// Volumes that the profile allows.
const VOLUMES: [&str; 7] =
    ["configMap", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];

/// The profile `restricted` of Kubernetes' Pod Security Standards, and a root that cannot be written. What Strimzi makes is judged by
/// its templates, without the latter: it writes its own files.
pub(super) fn restricted(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for namespace in of_kind(manifests, "Namespace") {
        let level = &namespace.0["metadata"]["labels"]["pod-security.kubernetes.io/enforce"];
        if text(level) != "restricted" {
            found.push(format!("{} does not enforce the profile restricted", namespace.title()));
        }
    }
    for pod in pods(manifests) {
        let title = pod.of.title();
        found.extend(pod_context(&title, &pod.spec["securityContext"]));
        if pod.spec["securityContext"]["runAsUser"].as_u64().is_none_or(|user| user == 0) {
            found.push(format!("{title}: runAsUser is not a number other than 0"));
        }
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            if pod.spec[key] == json!(true) {
                found.push(format!("{title}: {key}"));
            }
        }
        for volume in list(&pod.spec["volumes"]) {
            let kinds = volume.as_object().into_iter().flatten().map(|(key, _)| key).filter(|key| *key != "name");
            let others = kinds.filter(|kind| !VOLUMES.contains(&kind.as_str()));
            found.extend(others.map(|kind| format!("{title}: volume {} is a {kind}", text(&volume["name"]))));
        }
        for container in pod.containers() {
            let title = pod.title_of(container);
            let context = &container["securityContext"];
            found.extend(container_context(&title, context));
            if context["readOnlyRootFilesystem"] != json!(true) {
                found.push(format!("{title}: its root can be written"));
            }
            if list(&container["ports"]).any(|port| !port["hostPort"].is_null()) {
                found.push(format!("{title}: hostPort"));
            }
        }
    }
    for pool in of_kind(manifests, "KafkaNodePool") {
        let template = &pool.spec()["template"];
        found.extend(pod_context(&pool.title(), &template["pod"]["securityContext"]));
        found.extend(container_context(&pool.title(), &template["kafkaContainer"]["securityContext"]));
    }
    for kafka in of_kind(manifests, "Kafka") {
        let template = &kafka.spec()["entityOperator"]["template"];
        found.extend(pod_context(&kafka.title(), &template["pod"]["securityContext"]));
        for container in ["topicOperatorContainer", "userOperatorContainer"] {
            found.extend(container_context(&kafka.title(), &template[container]["securityContext"]));
        }
    }
    found
}

fn pod_context(title: &str, context: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if context["runAsNonRoot"] != json!(true) {
        found.push(format!("{title}: may run as root"));
    }
    if context["seccompProfile"]["type"] != json!("RuntimeDefault") {
        found.push(format!("{title}: its seccomp profile is not RuntimeDefault"));
    }
    found
}

fn container_context(title: &str, context: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if context["allowPrivilegeEscalation"] != json!(false) {
        found.push(format!("{title}: may gain privileges"));
    }
    if context["privileged"] == json!(true) {
        found.push(format!("{title}: is privileged"));
    }
    let capabilities = &context["capabilities"];
    if !list(&capabilities["drop"]).any(|name| text(name) == "ALL") || list(&capabilities["add"]).next().is_some() {
        found.push(format!("{title}: keeps capabilities"));
    }
    // A container's own word counts for more than its pod's.
    if context["runAsNonRoot"] == json!(false) || context["runAsUser"] == json!(0) {
        found.push(format!("{title}: runs as root"));
    }
    found
}

/// Nothing here talks to the API server; a token would be of use to an intruder only.
pub(super) fn without_token(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests) {
        let account = text(&pod.spec["serviceAccountName"]);
        let there = of_kind(manifests, "ServiceAccount").find(|other| other.name() == account);
        if there.is_none_or(|account| account.0["automountServiceAccountToken"] != json!(false)) {
            found.push(format!("{}: has no ServiceAccount without a token", pod.of.title()));
        }
        let projected = list(&pod.spec["volumes"]).flat_map(|volume| list(&volume["projected"]["sources"]));
        let token = projected.into_iter().any(|source| !source["serviceAccountToken"].is_null());
        if pod.spec["automountServiceAccountToken"] != json!(false) || token {
            found.push(format!("{}: mounts a token", pod.of.title()));
        }
    }
    found
}

/// A version, and a digest unless the README says that it is not known.
pub(super) fn pinned(manifests: &[Manifest], sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests) {
        for container in pod.containers() {
            let image = text(&container["image"]);
            let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
            // A colon before the last slash belongs to a port.
            let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
            let title = pod.title_of(container);
            if tag.is_none_or(|tag| !tag.starts_with(|first: char| first.is_ascii_digit())) {
                found.push(format!("{title}: image {image} has no version"));
            }
            match digest {
                Some(digest) => {
                    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
                    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                        found.push(format!("{title}: image {image} has no SHA-256 as its digest"));
                    }
                }
                None if !sources.readme.contains(&format!("| `{image}` |")) => {
                    found.push(format!("{title}: image {image} has no digest, and k8s/README.md does not say why"));
                }
                None => {}
            }
        }
    }
    found
}

/// Liveness and readiness, by a port that the container has; a Job's end tells all.
pub(super) fn probed(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests).filter(|pod| !pod.ends()) {
        for container in list(&pod.spec["containers"]) {
            let title = pod.title_of(container);
            for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
                let probe = &container[key];
                let port = ["httpGet", "tcpSocket"].into_iter().find_map(|how| probe[how].get("port"));
                match port {
                    None => found.push(format!("{title}: has no {key}")),
                    Some(port) => {
                        let known =
                            list(&container["ports"]).any(|own| own["name"] == *port || own["containerPort"] == *port);
                        if !known {
                            found.push(format!("{title}: {key} asks port {port}, which it does not have"));
                        }
                    }
                }
            }
        }
    }
    found
}

/// Processor time and memory, asked for and bounded; of memory no more than was asked for, so that nobody is evicted for it.
pub(super) fn bounded(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |title: String, resources: &Value, ends: bool| {
        for kind in ["requests", "limits"] {
            for key in ["cpu", "memory"] {
                if text(&resources[kind][key]).is_empty() {
                    found.push(format!("{title}: {kind} have no {key}"));
                }
            }
        }
        if !ends && resources["requests"]["memory"] != resources["limits"]["memory"] {
            found.push(format!("{title}: may use more memory than it asks for"));
        }
    };
    for pod in pods(manifests) {
        pod.containers().for_each(|container| look(pod.title_of(container), &container["resources"], pod.ends()));
    }
    for pool in of_kind(manifests, "KafkaNodePool") {
        look(pool.title(), &pool.spec()["resources"], false);
    }
    for kafka in of_kind(manifests, "Kafka") {
        for operator in ["topicOperator", "userOperator"] {
            look(
                format!("{}, {operator}", kafka.title()),
                &kafka.spec()["entityOperator"][operator]["resources"],
                false,
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{
        super::sound::{broken, finds},
        *,
    };

    #[test]
    fn what_the_profile_forbids_is_found() {
        for (change, what) in [
            ("runAsNonRoot: true", "may run as root"),
            ("runAsUser: 65532", "runAsUser"),
            ("seccompProfile: {type: RuntimeDefault}", "seccomp"),
            ("allowPrivilegeEscalation: false", "gain privileges"),
            ("capabilities: {drop: [ALL]}", "capabilities"),
            ("readOnlyRootFilesystem: true", "its root can be written"),
            ("pod-security.kubernetes.io/enforce: restricted", "does not enforce"),
        ] {
            finds(restricted, &broken(change, ""), what);
        }
        for (change, into, what) in [
            ("enableServiceLinks: false", "hostNetwork: true", "hostNetwork"),
            ("enableServiceLinks: false", "hostPID: true", "hostPID"),
            ("configMap: {name: app}", "hostPath: {path: /etc}", "is a hostPath"),
            ("capabilities: {drop: [ALL]}", "capabilities: {drop: [ALL], add: [SYS_ADMIN]}", "capabilities"),
            (
                "readOnlyRootFilesystem: true",
                "readOnlyRootFilesystem: true\n            privileged: true",
                "is privileged",
            ),
            ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: true\n            runAsUser: 0", "runs as root"),
            ("containerPort: 9400", "containerPort: 9400, hostPort: 80", "hostPort"),
        ] {
            finds(restricted, &broken(change, into), what);
        }
    }

    #[test]
    fn a_token_is_found_wherever_it_comes_from() {
        finds(without_token, &broken("serviceAccountName: app", ""), "no ServiceAccount");
        finds(without_token, &broken("serviceAccountName: app", "serviceAccountName: other"), "no ServiceAccount");
        finds(without_token, &broken("automountServiceAccountToken: false # account", ""), "no ServiceAccount");
        finds(without_token, &broken("automountServiceAccountToken: false # pod", ""), "mounts a token");
        let projected = "projected: {sources: [{serviceAccountToken: {path: token}}]}";
        finds(without_token, &broken("configMap: {name: app}", projected), "mounts a token");
    }

    #[test]
    fn an_image_without_a_version_or_an_unexplained_digest_is_found() {
        for image in ["registry:5000/app", "app:latest", "app"] {
            finds(pinned, &broken("image: app:1.0", &format!("image: {image}")), "has no version");
        }
        finds(pinned, &broken("image: app:1.0", "image: app:1.1"), "does not say why");
        finds(pinned, &broken("image: app:1.0", "image: app:1.0@sha256:12"), "no SHA-256");
        let digest = "0".repeat(64);
        let whole = broken("image: app:1.0", &format!("image: app:1.0@sha256:{digest}"));
        assert_eq!(pinned(&whole, &super::super::sound::sources()), Vec::<String>::new());
    }

    #[test]
    fn a_container_without_a_probe_or_with_one_for_no_port_is_found() {
        finds(probed, &broken("livenessProbe: {httpGet: {path: /healthz, port: http}}", ""), "has no livenessProbe");
        finds(probed, &broken("readinessProbe: {httpGet: {path: /readyz, port: http}}", ""), "has no readinessProbe");
        finds(probed, &broken("path: /readyz, port: http", "path: /readyz, port: https"), "does not have");
    }

    #[test]
    fn a_container_without_requests_or_limits_is_found() {
        finds(bounded, &broken("limits: {cpu: \"1\", memory: 1Gi}", ""), "limits have no");
        finds(
            bounded,
            &broken("requests: {cpu: 100m, memory: 1Gi}", "requests: {memory: 1Gi}"),
            "requests have no cpu",
        );
        finds(
            bounded,
            &broken("limits: {cpu: \"1\", memory: 1Gi}", "limits: {cpu: \"1\", memory: 2Gi}"),
            "more memory",
        );
    }
}
