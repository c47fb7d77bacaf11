//! The query of the autoscaler, by promtool: what it answers in cases that matter.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::manifest::{Manifest, list, of_kind, text};
use crate::stack::tools;

/// When it is asked, in a series with a sample every 15 s.
const ASKED_AT: &str = "20m";

/// A case: what it shows, the series that it changes or adds to those of a pipeline that is well (no values: the series is gone),
/// and what has to hold of the answer.
struct Case {
    what: &'static str,
    series: &'static [(&'static str, &'static str)],
    holds: &'static str,
}

/// A pipeline that is well: events land within 0.3 s, a tenth of a core is in use, ClickHouse is up.
const WELL: [(&str, &str); 8] = [
    (LAG, "0.5x90"),
    (FRESH, "0+100x90"),
    (ALL, "0+100x90"),
    (BUSY, "0+1.5x90"),
    (BREAKER, "0x90"),
    (UP[0], "1x90"),
    (UP[1], "1x90"),
    (UP[2], "1x90"),
];

const LAG: &str = r#"millrace_lag_seconds{namespace="millrace",job="millrace",pod="a",topic="orders",partition="0"}"#;
const FRESH: &str =
    r#"millrace_freshness_seconds_bucket{namespace="millrace",job="millrace",pod="a",topic="orders",le="0.3"}"#;
const ALL: &str =
    r#"millrace_freshness_seconds_bucket{namespace="millrace",job="millrace",pod="a",topic="orders",le="+Inf"}"#;
const LATE: &str =
    r#"millrace_freshness_seconds_bucket{namespace="millrace",job="millrace",pod="a",topic="orders",le="30"}"#;
const BUSY: &str = r#"process_cpu_seconds_total{namespace="millrace",job="millrace",pod="a"}"#;
const BUSY_TOO: &str = r#"process_cpu_seconds_total{namespace="millrace",job="millrace",pod="b"}"#;
const BREAKER: &str =
    r#"millrace_breaker_state{namespace="millrace",job="millrace",pod="a",target="clickhouse/orders"}"#;
const REGISTRY: &str = r#"millrace_breaker_state{namespace="millrace",job="millrace",pod="a",target="registry"}"#;
const UP: [&str; 3] = [
    r#"up{namespace="millrace",job="clickhouse",pod="clickhouse-0"}"#,
    r#"up{namespace="millrace",job="clickhouse",pod="clickhouse-1"}"#,
    r#"up{namespace="millrace",job="clickhouse",pod="clickhouse-2"}"#,
];

const CASES: [Case; 15] = [
    Case { what: "fewer do when rows are fresh and nobody is busy", series: &[], holds: "< bool 0.5" },
    Case { what: "more are needed when events wait", series: &[(LAG, "60x90")], holds: "== bool 12" },
    Case {
        what: "more are needed when rows land late",
        series: &[(FRESH, "0x90"), (LATE, "0+100x90")],
        holds: "> bool 5",
    },
    Case {
        what: "more are needed when they are busy, fresh or not",
        series: &[(BUSY, "0+14x90")],
        holds: "> bool 1.3",
    },
    Case {
        what: "one of two can go only if the other could do its work",
        series: &[(BUSY, "0+9x90"), (BUSY_TOO, "0+9x90")],
        holds: "> bool 0.8",
    },
    Case {
        what: "their number is held while ClickHouse's breaker is open",
        series: &[(LAG, "600x90"), (BREAKER, "2x90")],
        holds: "== bool 1",
    },
    Case { what: "their number is held while it is half open", series: &[(BREAKER, "1x90")], holds: "== bool 1" },
    Case {
        what: "their number is held for a while after it has closed",
        series: &[(BREAKER, "2x68 0x20")],
        holds: "== bool 1",
    },
    Case {
        what: "the backlog counts once it has been closed for long",
        series: &[(LAG, "600x90"), (BREAKER, "2x40 0x50")],
        holds: "== bool 120",
    },
    Case { what: "the registry's breaker holds nothing", series: &[(REGISTRY, "2x90")], holds: "< bool 0.5" },
    Case {
        what: "their number is held while no server of ClickHouse is up, though nothing waits",
        series: &[(UP[0], "0x90"), (UP[1], "0x90"), (UP[2], "0x90")],
        holds: "== bool 1",
    },
    Case { what: "one replica that is down holds nothing", series: &[(UP[0], "0x90")], holds: "< bool 0.5" },
    Case {
        what: "their number is held while nobody tells of ClickHouse",
        series: &[(UP[0], ""), (UP[1], ""), (UP[2], "")],
        holds: "== bool 1",
    },
    Case {
        what: "their number is held while no partition is read, so that nobody knows what waits",
        series: &[(LAG, "")],
        holds: "== bool 1",
    },
    Case {
        what: "their number is held while consumers tell nothing",
        series: &[(LAG, ""), (FRESH, ""), (ALL, ""), (BUSY, "")],
        holds: "== bool 1",
    },
];

/// An answer that is wrong in every case: a case that took it would show nothing.
const WRONG: &str = "vector(0.7)";

/// The queries of all autoscalers.
pub(super) fn queries(manifests: &[Manifest]) -> impl Iterator<Item = &str> {
    let triggers = of_kind(manifests, "ScaledObject").flat_map(|scaler| list(&scaler.spec()["triggers"]));
    triggers.map(|trigger| text(&trigger["metadata"]["query"]))
}

/// What is wrong with the answer of a query, for each case.
///
/// # Errors
/// If promtool is missing, or its file cannot be written.
pub(super) fn check(query: &str, install_missing: bool) -> Result<Vec<Vec<String>>> {
    tools::require_for_alerts(install_missing)?;
    let found = CASES.iter().map(|case| {
        let mut found = Vec::new();
        if let Some(words) = refused(query, case)? {
            found.push(format!("{}: {words}", case.what));
        }
        if refused(WRONG, case)?.is_none() {
            found.push(format!("{}: is taken for true of {WRONG}", case.what));
        }
        Ok(found)
    });
    found.collect()
}

/// What promtool says against a case.
fn refused(query: &str, case: &Case) -> Result<Option<String>> {
    let path = std::env::temp_dir().join(format!("millrace-autoscaler-{}.yml", std::process::id()));
    fs::write(&path, test(query, case).to_string()).with_context(|| format!("write {}", path.display()))?;
    let output = Command::new("promtool").args(["test", "rules"]).arg(&path).output().context("start promtool");
    let _ = fs::remove_file(&path);
    let output = output?;
    let words = [output.stdout, output.stderr].concat();
    Ok((!output.status.success()).then(|| String::from_utf8_lossy(&words).into_owned()))
}

/// promtool's file, in JSON, which is YAML too.
fn test(query: &str, case: &Case) -> Value {
    let changed = |name: &str| case.series.iter().find(|(other, _)| *other == name).map(|(_, values)| *values);
    let well = WELL.iter().map(|(name, values)| (*name, changed(name).unwrap_or(values)));
    let added = case.series.iter().filter(|(name, _)| !WELL.iter().any(|(other, _)| other == name)).copied();
    let series: Vec<Value> = well
        .chain(added)
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| json!({"series": name, "values": values}))
        .collect();
    json!({
        "rule_files": [],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series": series,
            "promql_expr_test": [{
                "expr": format!("({query}) {}", case.holds),
                "eval_time": ASKED_AT,
                "exp_samples": [{"labels": "{}", "value": 1}],
            }],
        }],
    })
}
