//! Rules of what is copied out of the repository: it has to be what is tested here.

use serde_json::Value;

use super::{
    super::manifest::{Manifest, of_kind, text},
    Sources,
};

/// The file of the configuration, in its ConfigMap and in the overlay.
const CONFIGURATION: &str = "millrace.toml";
/// By which Grafana's sidecar knows a dashboard.
const DASHBOARD: &str = "grafana_dashboard";

/// One ConfigMap with the overlay's configuration, without static membership; rules and dashboards, where there are any, to the
/// letter and complete.
pub(super) fn copied(manifests: &[Manifest], sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    let maps = || of_kind(manifests, "ConfigMap");
    let texts: Vec<&str> = maps().filter_map(|map| map.0["data"][CONFIGURATION].as_str()).collect();
    if texts != [sources.configuration.as_str()] {
        found.push(format!("{} ConfigMaps have a {CONFIGURATION}, and not one that of the overlay", texts.len()));
    }
    if sources.configuration.lines().any(|line| line.trim_start_matches(['"', ' ']).starts_with("group.instance.id")) {
        found.push(format!("{CONFIGURATION}: pods change their names, so no member of the group is static"));
    }
    for rule in of_kind(manifests, "PrometheusRule") {
        if serde_yaml_ng::from_str::<Value>(&sources.rules).ok().as_ref() != Some(rule.spec()) {
            let how = "write it anew with `cargo xtask k8s --write`";
            found.push(format!("{} is not what k8s/observability/rules says: {how}", rule.title()));
        }
    }
    let shown: Vec<&Manifest> = maps().filter(|map| !map.0["metadata"]["labels"][DASHBOARD].is_null()).collect();
    for (name, dashboard) in sources.dashboards.iter().filter(|_| !shown.is_empty()) {
        if !shown.iter().any(|map| text(&map.0["data"][name]) == dashboard) {
            found.push(format!("no ConfigMap has the dashboard {name} as it is in k8s/observability/dashboards"));
        }
    }
    found
}

/// What the tests' ClickHouse grants the pipeline, a cluster's grants it too; but for tables of tests, and of topics that the
/// overlays do not have.
pub(super) fn granted(manifests: &[Manifest], sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for map in of_kind(manifests, "ConfigMap") {
        let Some(users) = map.0["data"]["users.xml"].as_str() else { continue };
        let own: Vec<&str> = grants(users).collect();
        let others = |grant: &&str| !["millrace_test_", "millrace.payments"].iter().any(|part| grant.contains(part));
        let missing = grants(&sources.users).filter(others).filter(|grant| !own.contains(grant));
        found.extend(
            missing.map(|grant| format!("{}: users.xml lacks {grant}, which the stack's users.xml has", map.title())),
        );
    }
    found
}

/// The grants of the pipeline in a file of users.
fn grants(users: &str) -> impl Iterator<Item = &str> {
    let pipeline = users.split_once("<millrace>").and_then(|(_, rest)| rest.split_once("</millrace>"));
    let grants = pipeline.map_or("", |(section, _)| section).split("<query>").skip(1);
    grants.filter_map(|rest| rest.split_once("</query>")).map(|(grant, _)| grant)
}

#[cfg(test)]
mod tests {
    use super::{
        super::sound::{broken, finds, manifests, sources},
        *,
    };

    #[test]
    fn another_configuration_than_the_overlays_is_found() {
        finds(copied, &broken("# nothing secret", "# another"), "that of the overlay");
        let mut fixed = sources();
        fixed.configuration.push_str("[kafka.properties]\n\"group.instance.id\" = \"a\"\n");
        assert!(copied(&manifests(), &fixed).iter().any(|what| what.contains("no member of the group is static")));
    }

    #[test]
    fn rules_and_dashboards_that_differ_or_are_missing_are_found() {
        finds(copied, &broken("expr: up < 1", "expr: up < 2"), "--write");
        finds(copied, &broken("{\"title\":\"A\"}", "{\"title\":\"B\"}"), "dashboard a.json");
        let mut more = sources();
        more.dashboards.push(("b.json".to_owned(), "{}".to_owned()));
        assert!(copied(&manifests(), &more)[0].contains("dashboard b.json"));
    }

    #[test]
    fn a_right_that_the_pipeline_is_tested_with_and_lacks_in_a_cluster_is_found() {
        finds(granted, &broken("GRANT SELECT ON shop.a", "GRANT INSERT ON shop.a"), "lacks GRANT SELECT ON shop.a");
        assert_eq!(
            grants("<other><query>A</query></other><millrace><query>B</query></millrace>").collect::<Vec<_>>(),
            ["B"]
        );
    }
}
