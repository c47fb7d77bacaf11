//! What manifests have to keep to besides their schemas. Each rule is a pure function of all manifests of an overlay, and has a
//! test that it finds what is broken.

mod addresses;
mod availability;
mod configuration;
mod network;
mod pods;
mod references;
mod scaling;
#[cfg(test)]
mod sound;

use super::manifest::Manifest;

/// What of the repository a rule compares with.
#[derive(Debug, Default)]
pub(super) struct Sources {
    /// Text of `k8s/README.md`.
    pub(super) readme: String,
    /// Configuration of the overlay.
    pub(super) configuration: String,
    /// Users of the stack's ClickHouse, with which all tests run.
    pub(super) users: String,
    /// Prometheus' rules, as they are tested.
    pub(super) rules: String,
    /// Names and texts of the dashboards' files.
    pub(super) dashboards: Vec<(String, String)>,
}

/// Findings in words; none if the manifests keep to the rule.
type Rule = fn(&[Manifest], &Sources) -> Vec<String>;

/// What each rule is called, and the rule.
pub(super) const RULES: [(&str, Rule); 16] = [
    ("pods keep to the profile `restricted`, with a root that cannot be written", pods::restricted),
    ("pods have a ServiceAccount of their own and no token", pods::without_token),
    ("images are pinned", pods::pinned),
    ("containers have probes", pods::probed),
    ("containers have requests and limits", pods::bounded),
    ("pods have a disruption budget that lets nodes be drained", availability::budgeted),
    ("pods are spread over nodes and zones", availability::spread),
    ("pods stop within their grace period", availability::graceful),
    ("the namespace denies what no policy allows", network::denied),
    ("policies open ports that containers have, at both ends", network::opened),
    ("there are no Secrets with data, and no passwords in the open", references::secret),
    ("what is referred to is there", references::there),
    ("names within the cluster are known", addresses::known),
    ("configuration, rules and dashboards are those of the repository", configuration::copied),
    ("the pipeline has the rights that it is tested with", configuration::granted),
    ("the autoscaler stays within the partitions and holds when it knows nothing", scaling::held),
];
