//! The alert rules in `k8s/observability/rules/`, by promtool: they can be read, each fires when it should and holds back when
//! it should.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::stack::{clone_root, tools};

const RULES: &str = "k8s/observability/rules";

/// Lets promtool check the rules and run their cases; how many files of cases have passed, and how many not.
///
/// # Errors
/// If promtool is missing, or the rules cannot be read at all, in its words.
pub(crate) fn check(install_missing: bool) -> Result<(u64, u64)> {
    tools::require_for_alerts(install_missing)?;
    let rules = rules_file()?;
    let checked = Command::new("promtool").args(["check", "rules"]).arg(&rules).output().context("start promtool")?;
    if !checked.status.success() {
        bail!("promtool check rules: {}", String::from_utf8_lossy(&checked.stderr));
    }
    let (mut passed, mut failed) = (0, 0);
    for path in cases()? {
        let output = Command::new("promtool").args(["test", "rules"]).arg(&path).output().context("start promtool")?;
        if output.status.success() {
            passed += 1;
        } else {
            failed += 1;
            println!("{}", String::from_utf8_lossy(&output.stdout));
            println!("{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    println!("{passed} alerts fire and hold back as they should, {failed} do not");
    Ok((passed, failed))
}

fn rules_file() -> Result<PathBuf> {
    Ok(clone_root()?.join(RULES).join("millrace.yml"))
}

/// A file for each alert.
fn cases() -> Result<Vec<PathBuf>> {
    let folder = clone_root()?.join(RULES).join("tests");
    let entries = fs::read_dir(&folder).with_context(|| format!("read the folder {}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Names of the alerts, and the text of each.
    fn alerts() -> Vec<(String, String)> {
        let text = fs::read_to_string(rules_file().unwrap()).unwrap();
        let alerts = text.split("\n      - alert: ").skip(1).map(|part| {
            let (name, body) = part.split_once('\n').unwrap();
            // The next group, if this is the last of one.
            let body = body.split("\n  - name: ").next().unwrap();
            (name.to_owned(), body.to_owned())
        });
        alerts.collect()
    }

    fn names(folder: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(clone_root().unwrap().join(folder)).unwrap();
        let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_string_lossy().into_owned();
        entries.map(|entry| stem(entry.unwrap())).collect()
    }

    #[test]
    fn each_alert_says_what_to_know_and_has_a_runbook_and_cases_that_fire_and_stay_silent() {
        let alerts = alerts();
        assert!(alerts.len() > 10, "{}", alerts.len());
        for (name, body) in &alerts {
            let severity = ["severity: critical\n", "severity: warning\n"];
            assert_eq!(severity.iter().filter(|severity| body.contains(**severity)).count(), 1, "{name}");
            for key in ["summary: ", "description: >-\n", &format!("runbook_url: docs/runbooks/{name}.md")] {
                assert!(body.contains(key), "{name} has no {key}");
            }
            let cases = clone_root().unwrap().join(RULES).join(format!("tests/{name}.yml"));
            let cases = fs::read_to_string(&cases).unwrap_or_else(|error| panic!("{}: {error}", cases.display()));
            for what in ["- name: \"fires: ", "- name: \"stays silent: ", &format!("alertname: {name}\n")] {
                assert!(cases.contains(what), "{name} has no case with {what}");
            }
        }
        let page = fs::read_to_string(clone_root().unwrap().join("docs/observability.md")).unwrap();
        for (name, body) in &alerts {
            let severity = if body.contains("severity: critical\n") { "critical" } else { "warning" };
            let row = format!("| [{name}](runbooks/{name}.md) | {severity} | ");
            assert!(page.contains(&row), "docs/observability.md has no row {row}");
        }
        let alerts: BTreeSet<String> = alerts.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names("docs/runbooks"), alerts, "a page in docs/runbooks for each alert, and no other");
        assert_eq!(names(&format!("{RULES}/tests")), alerts, "cases for each alert, and no other");
    }

    #[test]
    fn runbooks_say_what_it_means_how_to_look_and_what_to_do_and_their_links_lead_somewhere() {
        let folder = clone_root().unwrap().join("docs/runbooks");
        for name in names("docs/runbooks") {
            let text = fs::read_to_string(folder.join(format!("{name}.md"))).unwrap();
            let headings: Vec<&str> = text.lines().filter(|line| line.starts_with('#')).collect();
            let title = format!("# {name}");
            assert_eq!(headings, [title.as_str(), "## What it means", "## How to look", "## What to do"]);
            for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                assert!(folder.join(link).is_file(), "{name}: {link}");
            }
        }
    }
}
