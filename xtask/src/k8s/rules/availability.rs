//! Rules of what happens when nodes are drained, fail, or pods are replaced.

use std::time::Duration;

use serde_json::json;

use super::{
    super::manifest::{Manifest, Pod, list, of_kind, pods, selects, text},
    Sources,
};

/// Of a pod that needs no budget: why.
const REASON: &str = "millrace.dev/no-disruption-budget";
/// What a consumer needs after its last insert, for its commits and for leaving the group, and a margin for a slow node.
const AFTER_DRAIN: Duration = Duration::from_secs(20);
/// `[shutdown] drain_timeout` if the configuration does not say.
const DRAIN_TIMEOUT_S: u64 = 20;

/// Exactly one budget, which lets one pod go at a time whatever their number; or a reason.
pub(super) fn budgeted(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests) {
        if !text(&pod.metadata["annotations"][REASON]).is_empty() {
            continue;
        }
        let own = |budget: &&Manifest| selects(&budget.spec()["selector"], &pod.labels());
        let budgets: Vec<_> = of_kind(manifests, "PodDisruptionBudget").filter(own).collect();
        match budgets[..] {
            [budget] if budget.spec()["maxUnavailable"] == json!(1) => {}
            [budget] => found.push(format!("{}: does not let exactly one pod go", budget.title())),
            _ => found.push(format!("{}: has {} disruption budgets", pod.of.title(), budgets.len())),
        }
    }
    found
}

/// Two pods of a kind not on one node if it can be helped, and not all in one zone.
pub(super) fn spread(manifests: &[Manifest], _: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests).filter(|pod| !pod.ends()) {
        let anti = &pod.spec["affinity"]["podAntiAffinity"];
        let preferred =
            list(&anti["preferredDuringSchedulingIgnoredDuringExecution"]).map(|term| &term["podAffinityTerm"]);
        let mut terms = list(&anti["requiredDuringSchedulingIgnoredDuringExecution"]).chain(preferred);
        let of_itself = |key: &str, term: &serde_json::Value| {
            text(&term["topologyKey"]) == key && selects(&term["labelSelector"], &pod.labels())
        };
        if !terms.any(|term| of_itself("kubernetes.io/hostname", term)) {
            found.push(format!("{}: nothing keeps its pods off one node", pod.of.title()));
        }
        let mut constraints = list(&pod.spec["topologySpreadConstraints"]);
        if !constraints.any(|term| of_itself("topology.kubernetes.io/zone", term)) {
            found.push(format!("{}: nothing spreads its pods over zones", pod.of.title()));
        }
    }
    found
}

/// SIGKILL comes later than what a process takes to stop.
pub(super) fn graceful(manifests: &[Manifest], sources: &Sources) -> Vec<String> {
    let mut found = Vec::new();
    for pod in pods(manifests).filter(|pod| !pod.ends()) {
        let Some(grace) = pod.spec["terminationGracePeriodSeconds"].as_u64().map(Duration::from_secs) else {
            found.push(format!("{}: has no terminationGracePeriodSeconds", pod.of.title()));
            continue;
        };
        if runs_millrace(pod) {
            match drain_timeout(&sources.configuration) {
                Ok(drain) if grace < drain + AFTER_DRAIN => found.push(format!(
                    "{}: is killed after {grace:?}, though it drains for {drain:?} and needs {AFTER_DRAIN:?} after that",
                    pod.of.title()
                )),
                Ok(_) => {}
                Err(what) => found.push(what),
            }
        }
    }
    found
}

fn runs_millrace(pod: Pod<'_>) -> bool {
    pod.containers().any(|container| list(&container["args"]).any(|argument| text(argument) == "run"))
}

fn drain_timeout(configuration: &str) -> Result<Duration, String> {
    let table: toml::Table = configuration.parse().map_err(|error| format!("millrace.toml: {error}"))?;
    let Some(value) = table.get("shutdown").and_then(|section| section.get("drain_timeout")) else {
        return Ok(Duration::from_secs(DRAIN_TIMEOUT_S));
    };
    let text = value.as_str().unwrap_or_default();
    let seconds = text.strip_suffix('s').and_then(|text| text.parse().ok());
    seconds.map(Duration::from_secs).ok_or_else(|| format!("shutdown.drain_timeout is \"{text}\", not whole seconds"))
}

#[cfg(test)]
mod tests {
    use super::{
        super::sound::{broken, finds, manifests, sources},
        *,
    };

    #[test]
    fn a_pod_without_a_budget_or_with_one_that_holds_nodes_up_is_found() {
        finds(budgeted, &broken("kind: PodDisruptionBudget", "kind: ConfigMap"), "has 0 disruption budgets");
        finds(budgeted, &broken("maxUnavailable: 1", "maxUnavailable: 0"), "exactly one");
        finds(budgeted, &broken("maxUnavailable: 1", "minAvailable: 1"), "exactly one");
        finds(budgeted, &broken("millrace.dev/no-disruption-budget: it is run again", "other: reason"), "has 0");
    }

    #[test]
    fn pods_that_may_all_fall_together_are_found() {
        finds(spread, &broken("topologyKey: kubernetes.io/hostname", "topologyKey: rack"), "one node");
        finds(spread, &broken("topologyKey: topology.kubernetes.io/zone", "topologyKey: rack"), "zones");
    }

    #[test]
    fn a_grace_period_that_does_not_outlast_the_drain_is_found() {
        finds(graceful, &broken("terminationGracePeriodSeconds: 45", ""), "has no termination");
        finds(
            graceful,
            &broken("terminationGracePeriodSeconds: 45", "terminationGracePeriodSeconds: 39"),
            "is killed after 39s",
        );
        let mut longer = sources();
        longer.configuration = "[shutdown]\ndrain_timeout = \"26s\"\n".to_owned();
        assert!(graceful(&manifests(), &longer)[0].contains("is killed after 45s"));
        longer.configuration = "[shutdown]\ndrain_timeout = \"1 m\"\n".to_owned();
        assert!(graceful(&manifests(), &longer)[0].contains("not whole seconds"));
    }
}
