//! `cargo xtask k8s`: whether the manifests in `k8s/` are what a cluster takes and what we want, without a cluster.
//!
//! kustomize builds every overlay, kubeconform judges it strictly by the schemas of Kubernetes, Strimzi, KEDA and the Prometheus
//! operator, the rules in `rules/` by everything else, and promtool asks the autoscaler's query. It never talks to a cluster.

mod autoscaler;
mod manifest;
mod rules;
mod schemas;
mod tools;
mod validate;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result};

use self::{
    rules::{RULES, Sources},
    tools::Tools,
};
use crate::{cargo, dashboards, interrupt::Interrupt, stack::clone_root};

/// Users of the stack's ClickHouse.
const USERS: &str = "xtask/assets/users.xml";
/// Prometheus' rules as they are tested, and as the operator wants them.
const PROMETHEUS: [&str; 2] = ["observability/rules/millrace.yml", "observability/prometheusrule.yaml"];

/// Validate the manifests in k8s/ by real schemas and by rules of our own
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write k8s/observability/prometheusrule.yaml anew, of the rules beside it
    #[arg(long)]
    write: bool,
    /// Install missing tools with apt-get (as root; environment CI=true does the same)
    #[arg(long)]
    install_missing: bool,
}

/// # Errors
/// If the tools cannot be installed, or an overlay cannot be read. Findings are an exit status.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.write {
        let folder = folder()?;
        let [from, to] = PROMETHEUS.map(|path| folder.join(path));
        fs::write(&to, prometheus_rule(&read(&from)?)).with_context(|| format!("write {}", to.display()))?;
        println!("{}", to.display());
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::install().context("cannot watch for Ctrl-C")?;
    let begin = Instant::now();
    let (_, failed) = check(args.install_missing || cargo::in_ci(), &interrupt)?;
    println!("after {:.1} s", begin.elapsed().as_secs_f64());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks at every overlay; how many checks have passed, and how many not. Prints what is wrong.
///
/// # Errors
/// As [`run`].
pub(crate) fn check(install_missing: bool, interrupt: &Interrupt) -> Result<(u64, u64)> {
    let tools = Tools::installed(interrupt)?;
    let (mut passed, mut failed) = (0, 0);
    let mut count = |title: &str, found: &[String]| {
        for what in found {
            println!("{title}: {what}");
        }
        if found.is_empty() { passed += 1 } else { failed += 1 }
    };
    for (what, manifest, words) in validate::REFUSED {
        let (found, _) = validate::conform(&tools, manifest)?;
        let is_refused = found.iter().any(|found| found.contains(words));
        let missed = (!is_refused).then(|| format!("{what} is not refused by \"{words}\" but by {found:?}"));
        count("schemas", &missed.into_iter().collect::<Vec<_>>());
    }
    // Overlays share components, and so their queries.
    let mut queries = BTreeSet::new();
    for overlay in overlays()? {
        interrupt.check()?;
        let name = overlay.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = validate::build(&tools, &overlay)?;
        let (found, valid) = validate::conform(&tools, &text)?;
        count(&format!("{name}, schemas"), &found);
        let manifests = manifest::read(&text)?;
        let sources = sources(&overlay)?;
        for (title, rule) in RULES {
            count(&format!("{name}, {title}"), &rule(&manifests, &sources));
        }
        queries.extend(autoscaler::queries(&manifests).map(str::to_owned));
        println!("{name}: {valid} of {} manifests are valid", manifests.len());
    }
    for query in &queries {
        interrupt.check()?;
        autoscaler::check(query, install_missing)?.iter().for_each(|found| count("autoscaler", found));
    }
    println!("{passed} checks of manifests passed, {failed} failed");
    Ok((passed, failed))
}

fn folder() -> Result<PathBuf> {
    Ok(clone_root()?.join("k8s"))
}

fn overlays() -> Result<Vec<PathBuf>> {
    let folder = folder()?.join("overlays");
    let entries = fs::read_dir(&folder).with_context(|| format!("read the folder {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn sources(overlay: &Path) -> Result<Sources> {
    let folder = folder()?;
    let dashboards = dashboards::names().map(|name| {
        let file = format!("{name}.json");
        let text = read(&dashboards::folder()?.join(&file))?;
        Ok((file, text))
    });
    Ok(Sources {
        readme: read(&folder.join("README.md"))?,
        configuration: read(&overlay.join("millrace.toml"))?,
        users: read(&clone_root()?.join(USERS))?,
        rules: read(&folder.join(PROMETHEUS[0]))?,
        dashboards: dashboards.collect::<Result<_>>()?,
    })
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

/// The resource of the Prometheus operator whose spec is a file of rules, with the file's comments.
fn prometheus_rule(rules: &str) -> String {
    let head = "# Written by `cargo xtask k8s --write` from rules/millrace.yml; edit that.\n\
                apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: millrace\n  \
                labels: {app.kubernetes.io/part-of: millrace}\nspec:\n";
    let line = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") };
    rules.lines().map(line).fold(head.to_owned(), |text, line| text + &line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prometheus_rule_is_written_of_the_rules_that_are_tested() {
        let [from, to] = PROMETHEUS.map(|path| read(&folder().unwrap().join(path)).unwrap());
        assert!(prometheus_rule(&from) == to, "write {} anew with `cargo xtask k8s --write`", PROMETHEUS[1]);
        let spec = &manifest::read(&to).unwrap()[0].0["spec"];
        assert_eq!(*spec, serde_yaml_ng::from_str::<serde_json::Value>(&from).unwrap());
    }
}
