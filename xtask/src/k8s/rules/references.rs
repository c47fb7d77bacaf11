//! Rules of what manifests refer to: ConfigMaps, Secrets, volumes.

use serde_json::{Value, json};

use super::{
    super::manifest::{Manifest, Pod, list, of_kind, pods, text},
    Sources,
};

/// Parts of the names of variables whose values are secrets.
const SECRET_NAMES: [&str; 5] = ["PASSWORD", "SECRET", "TOKEN", "SHA256", "JAAS"];
/// Beginnings of lines that hold a secret: TOML, XML and properties.
const SECRET_LINES: [&str; 7] =
    ["password =", "token =", "client_secret =", "<password>", "<password_sha256_hex>", "<secret>", "password="];

/// Secrets are made in the cluster, by their owners.
pub(super) fn secret(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for manifest in of_kind(manifests, "Secret") {
        found.push(format!("{}: secrets do not belong into the repository", manifest.title()));
    }
    for pod in pods(manifests) {
        for container in pod.containers() {
            let plain = list(&container["env"]).filter(|variable| !variable["value"].is_null());
            let secret =
                plain.filter(|variable| SECRET_NAMES.iter().any(|part| text(&variable["name"]).contains(part)));
            found.extend(secret.map(|variable| {
                format!("{}: {} is written in the open", pod.title_of(container), text(&variable["name"]))
            }));
        }
    }
    for map in of_kind(manifests, "ConfigMap") {
        for (file, value) in map.0["data"].as_object().into_iter().flatten() {
            let lines = text(value).lines().map(str::trim).enumerate();
            let secret = lines.filter(|(_, line)| SECRET_LINES.iter().any(|start| line.starts_with(start)));
            found.extend(secret.map(|(at, _)| format!("{}: {file}:{}: a secret in the open", map.title(), at + 1)));
        }
    }
    found
}

/// ConfigMaps are among the manifests, unless they are optional; Secrets are in the README's table; mounts are of volumes.
pub(super) fn there(manifests: &[Manifest], sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests) {
        let title = pod.of.title();
        for (kind, name) in referred(pod) {
            let known = match kind {
                "ConfigMap" => of_kind(manifests, kind).any(|map| map.name() == name),
                _ => sources.readme.contains(&format!("| `{name}` |")),
            };
            if !known {
                found.push(format!("{title}: {kind} {name} is neither here nor in the tables of k8s/README.md"));
            }
        }
        let claims = list(&pod.of.spec()["volumeClaimTemplates"]).map(|claim| text(&claim["metadata"]["name"]));
        let volumes: Vec<&str> = list(&pod.spec["volumes"]).map(|volume| text(&volume["name"])).chain(claims).collect();
        for container in pod.containers() {
            let mounts = list(&container["volumeMounts"]).map(|mount| text(&mount["name"]));
            found
                .extend(mounts.filter(|name| !volumes.contains(name)).map(|name| format!("{title}: no volume {name}")));
        }
    }
    found
}

/// ConfigMaps and Secrets of a pod, but for optional ConfigMaps.
fn referred(pod: Pod<'_>) -> Vec<(&'static str, &str)> {
    let volumes = || list(&pod.spec["volumes"]);
    let projected = || volumes().flat_map(|volume| list(&volume["projected"]["sources"]));
    let env = || pod.containers().flat_map(|container| list(&container["env"])).map(|variable| &variable["valueFrom"]);
    let maps = volumes().chain(projected()).map(|volume| &volume["configMap"]);
    let maps = maps.chain(env().map(|from| &from["configMapKeyRef"])).filter(|map| map["optional"] != json!(true));
    let of_volumes = volumes().map(|volume| &volume["secret"]["secretName"]);
    let of_projected = projected().map(|source| &source["secret"]["name"]);
    let secrets = of_volumes.chain(of_projected).chain(env().map(|from| &from["secretKeyRef"]["name"]));
    let named = |value: &'_ Value| !value.is_null();
    let maps = maps.map(|map| &map["name"]).filter(|name| named(name)).map(|name| ("ConfigMap", text(name)));
    maps.chain(secrets.filter(|name| named(name)).map(|name| ("Secret", text(name)))).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::sound::{broken, finds},
        *,
    };

    #[test]
    fn a_secret_is_found_wherever_it_is_written() {
        finds(secret, &broken("kind: PodDisruptionBudget", "kind: Secret"), "do not belong");
        let plain = "{name: APP_PASSWORD, value: hunter2}";
        finds(
            secret,
            &broken("{name: APP_PASSWORD, valueFrom: {secretKeyRef: {name: app-users, key: a}}}", plain),
            "in the open",
        );
        for line in ["password = \"hunter2\"", "<password>hunter2</password>", "token = \"abc\""] {
            finds(secret, &broken("# nothing secret", line), "a secret in the open");
        }
    }

    #[test]
    fn what_is_not_there_is_found() {
        finds(there, &broken("configMap: {name: app}", "configMap: {name: other}"), "ConfigMap other");
        finds(there, &broken("secretKeyRef: {name: app-users", "secretKeyRef: {name: others"), "Secret others");
        finds(there, &broken("secret: {name: app-password", "secret: {name: more"), "Secret more");
        finds(
            there,
            &broken("{name: config, mountPath: /etc/app}", "{name: conf, mountPath: /etc/app}"),
            "no volume conf",
        );
        let optional = broken("configMap: {name: app}", "configMap: {name: other, optional: true}");
        assert_eq!(there(&optional, &super::super::sound::sources()), Vec::<String>::new());
    }
}
