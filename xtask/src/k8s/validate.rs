//! What kustomize makes of an overlay, and what kubeconform says of it by the real schemas.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::tools::Tools;

/// Manifests that have to be refused, or the schemas would look at nothing: what is wrong, the manifest, and what is said of it.
pub(super) const REFUSED: [(&str, &str, &str); 7] = [
    (
        "a kind without a schema",
        "apiVersion: example.com/v1\nkind: Unknown\nmetadata: {name: a}\n",
        "could not find schema for Unknown",
    ),
    (
        "an unknown key of a core resource",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatum: {}\n",
        "additional properties 'datum' not allowed",
    ),
    (
        "an unknown key deep in a core resource",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, securityContext: {readonly: true}}]}\n",
        "additional properties 'readonly' not allowed",
    ),
    (
        "a missing key",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {}}\n",
        "missing property 'selector'",
    ),
    (
        "an unknown key of a custom resource",
        "apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec: {minReplicas: 1}\n",
        "additional properties 'minReplicas' not allowed",
    ),
    (
        "a wrong value in a custom resource",
        "apiVersion: kafka.strimzi.io/v1\nkind: KafkaTopic\nmetadata: {name: a}\nspec: {partitions: 0}\n",
        "minimum: got 0, want 1",
    ),
    (
        "an old version of a custom resource",
        "apiVersion: kafka.strimzi.io/v1beta2\nkind: KafkaTopic\nmetadata: {name: a}\nspec: {partitions: 1}\n",
        "could not find schema for KafkaTopic",
    ),
];

#[derive(Deserialize)]
struct Answer {
    resources: Vec<Resource>,
    summary: Summary,
}

/// One that is not valid.
#[derive(Deserialize)]
struct Resource {
    kind: String,
    name: String,
    msg: String,
}

#[derive(Deserialize)]
struct Summary {
    valid: u64,
    invalid: u64,
    errors: u64,
    skipped: u64,
}

/// The manifests of an overlay, as YAML.
///
/// # Errors
/// If kustomize cannot be run or refuses the overlay, in its words.
pub(super) fn build(tools: &Tools, overlay: &Path) -> Result<String> {
    let output = tools.kustomize().arg("build").arg(overlay).output().context("start kustomize")?;
    if !output.status.success() {
        bail!("kustomize build {}: {}", overlay.display(), String::from_utf8_lossy(&output.stderr));
    }
    String::from_utf8(output.stdout).context("read what kustomize prints")
}

/// What is wrong with manifests by their schemas, and how many of them were looked at. None is ever passed over.
///
/// # Errors
/// If kubeconform cannot be run.
pub(super) fn conform(tools: &Tools, manifests: &str) -> Result<(Vec<String>, u64)> {
    let answer = answer(tools.kubeconform(), manifests)?;
    let text = |one: &Resource| format!("{}/{}: {}", one.kind, one.name, one.msg);
    let mut found: Vec<String> = answer.resources.iter().map(text).collect();
    let Summary { valid, invalid, errors, skipped } = answer.summary;
    if found.is_empty() && invalid + errors + skipped > 0 {
        found.push(format!("{invalid} invalid, {errors} errors, {skipped} skipped"));
    }
    Ok((found, valid))
}

fn answer(mut kubeconform: Command, manifests: &str) -> Result<Answer> {
    let piped = kubeconform.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().context("start kubeconform")?;
    let mut input = child.stdin.take().context("write to kubeconform")?;
    input.write_all(manifests.as_bytes()).context("write to kubeconform")?;
    drop(input);
    let output = child.wait_with_output().context("read what kubeconform prints")?;
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("read what kubeconform prints: {}", String::from_utf8_lossy(&output.stderr)))
}
