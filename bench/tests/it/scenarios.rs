//! The runner of scenarios, on a scenario so small that its figures say nothing: whether each is there is what is asked.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs a scenario of `tests/scenarios`; its results, and the page that is made of them.
fn run(scenario: &str) -> (Value, String) {
    let program = env!("CARGO_BIN_EXE_millrace-bench");
    let folder = std::env::temp_dir().join(format!("millrace-{scenario}-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let status = Command::new(program)
        .args(["scenario", scenario, "--stack"])
        .arg(std::env::var_os("MILLRACE_STACK").unwrap())
        .arg("--scenarios")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios"))
        .arg("--results")
        .arg(&folder)
        .status()
        .unwrap();
    let text = fs::read_to_string(folder.join(format!("{scenario}.json"))).unwrap();
    assert!(status.success(), "{status}: {text}");

    let page = folder.join("page.md");
    fs::write(&page, "<!-- results: written by `cargo xtask bench --report` -->\n<!-- end of results -->\n").unwrap();
    let report = Command::new(program).args(["report", "--results"]).arg(&folder).arg("--page").arg(&page).status();
    assert!(report.unwrap().success());
    let written = fs::read_to_string(&page).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    (serde_json::from_str(&text).unwrap(), written)
}

fn figure(run: &Value, name: &str) -> f64 {
    run["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {run}"))
}

#[test]
fn a_drain_is_measured_judged_and_reported() {
    let (results, page) = run("tiny_drain");
    let runs = results["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 3);
    for run in runs {
        assert_eq!(run["failure"], Value::Null);
        for name in [
            "events_per_second",
            "events_per_second_from_start",
            "cpu_us_clickhouse",
            "bytes_per_row",
            "memory_mib_kafka",
        ] {
            assert!(figure(run, name) > 0.0, "{name}: {run}");
        }
        assert!(figure(run, "parts_made") >= 1.0);
        assert_eq!((run["outcome"]["lost"].as_u64(), run["outcome"]["doubled"].as_u64()), (Some(0), Some(0)));
    }
    let [millrace, poison, engine] = &runs[..] else { panic!() };
    assert!(figure(millrace, "cpu_us_consumer") > 0.0 && figure(millrace, "memory_mib_consumer") > 0.0);
    assert_eq!(millrace["outcome"]["wrong"].as_u64(), Some(0));
    assert_eq!(poison["outcome"]["dead_letters_wrong"].as_u64(), Some(0));
    assert!(engine["outcome"]["duplicates_kept"].as_u64() > Some(0), "it does not look for duplicates");
    assert!(engine["figures"]["cpu_us_consumer"].is_null(), "it has no process of its own");
    assert_eq!(results["goals"][0]["reached"], Value::Bool(true));
    assert!(page.contains("### tiny_drain") && page.contains("results/tiny_drain_cost.svg"), "{page}");
}

#[test]
fn a_load_over_time_is_probed_for_freshness() {
    let (results, page) = run("tiny_live");
    let run = &results["runs"][0];
    assert_eq!(run["failure"], Value::Null);
    for name in
        ["freshness_p50_ms", "freshness_p99_ms", "own_freshness_p99_ms", "cpu_us_producer", "offered_per_second"]
    {
        assert!(figure(run, name) > 0.0, "{name}: {run}");
    }
    // 5 s at 4,000/s, without the first.
    let probed = figure(run, "freshness_events") + figure(run, "freshness_events_never_seen");
    assert!((13_000.0..19_000.0).contains(&probed), "{probed}");
    // Records that make no row, where no row of the same insert lies on both sides of them.
    assert!(figure(run, "freshness_events_never_seen") < 0.051 * 20_000.0);
    assert!(page.contains("results/tiny_live_freshness.svg"), "{page}");
}
