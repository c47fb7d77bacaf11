//! What operators get, on a real Prometheus: every expression of dashboards, rules and runbooks has data while events flow;
//! ClickHouse goes, the right alerts fire; it comes back, they resolve.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use millrace_chaos::parts::Part;
use millrace_chaos::prometheus::{Prometheus, as_figure, faster, shipped};
use millrace_chaos::stack::{program, until};
use millrace_chaos::world::{Load, World};

/// Far more than are sent before the test ends.
const LOAD: Load = Load { events: 2_000_000, rate: 2_000, duplicates: 0.05, poison: 0.0 };
/// Rules run so much faster: two minutes are four seconds.
const FACTOR: u64 = 30;
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn alerts_fire_while_clickhouse_is_away_and_every_expression_has_data_while_it_is_there() {
    let world = World::new("alerts");
    let mut millrace = world.start(&world.config());
    millrace.until_ready();
    let generator = world.generate_with(LOAD, world.seed, &["--metrics", "127.0.0.1:0"]);
    let bare = |url: &str| url.trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let (pipeline, clickhouse) = (bare(&millrace.url().unwrap()), bare(&world.stack.clickhouse));
    let producer = bare(&generator.metrics());
    let rules = fs::read_to_string(shipped("k8s/observability/rules/millrace.yml")).unwrap();
    let prometheus = Prometheus::start(
        &world.file("prometheus"),
        &faster(&rules, FACTOR),
        &[
            ("millrace", &pipeline, "/metrics"),
            ("producer", &producer, "/metrics"),
            ("clickhouse", &clickhouse, "/metrics/all"),
        ],
    );

    let mut missing = expressions(&prometheus);
    let (begun, all) = (Instant::now(), missing.len());
    assert!(all > 100, "{all} expressions");
    while begun.elapsed() < PATIENCE && !missing.is_empty() {
        missing.retain(|expression, _| prometheus.query(expression).is_empty());
    }
    assert!(missing.is_empty(), "no data for {missing:#?}");
    println!("{all} expressions have data after {:?}", begun.elapsed());
    let critical = |firing: &BTreeMap<String, String>| firing.values().any(|severity| severity == "critical");
    let firing = prometheus.firing();
    assert!(!critical(&firing), "{firing:?} while all is well");

    let down = Part::ClickHouse.take_down();
    let begun = Instant::now();
    let expected = ["MillraceBreakerOpen", "MillraceOrdersNotArriving"];
    until("the right alerts fire", PATIENCE, || expected.iter().all(|name| prometheus.firing().contains_key(*name)));
    println!("{expected:?} fire after {:?}", begun.elapsed());
    let firing = prometheus.firing();
    for wrong in ["MillraceAbsent", "MillraceTopicUnread", "MillraceTopicStopped", "MillraceProducerFailing"] {
        assert!(!firing.contains_key(wrong), "{firing:?}");
    }

    let begun = Instant::now();
    drop(down);
    until("they resolve", PATIENCE, || {
        let firing = prometheus.firing();
        expected.iter().all(|name| !firing.contains_key(*name))
    });
    println!("they resolve after {:?}", begun.elapsed());
    drop(generator);
    millrace.terminate();
}

/// What must have a value while all is well, and where it stands.
fn expressions(prometheus: &Prometheus) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |expression: &str, place: String| {
        // ClickHouse is scraped once a second.
        let expression = expression.replace("$__rate_interval", "4s").replace("$topic", ".*");
        found.insert(expression, place);
    };
    for path in files("k8s/observability/dashboards", "json") {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                add(target["expr"].as_str().unwrap(), format!("{} {}", dashboard["title"], panel["title"]));
            }
        }
    }
    let (recording, alerting) = prometheus.rules();
    recording.into_iter().for_each(|(name, expression)| add(&expression, name));
    alerting.into_iter().for_each(|(name, expression)| add(&as_figure(&expression), name));
    for (name, text) in runbooks() {
        for expression in blocks(&text, "promql") {
            // One expression over several lines, or one in each: lines that begin with a blank go on.
            for expression in expression.replace("\n ", " ").lines() {
                add(&as_figure(expression), name.clone());
            }
        }
    }
    found
}

#[test]
fn commands_and_metrics_that_runbooks_name_exist() {
    let mut helps: BTreeMap<Vec<String>, String> = BTreeMap::new();
    let known: String = ["docs/metrics.md", "producers/src/telemetry.rs", "k8s/observability/rules/millrace.yml"]
        .iter()
        .map(|file| fs::read_to_string(shipped(file)).unwrap())
        .collect();
    let mut commands = 0;
    for (name, text) in runbooks() {
        for line in blocks(&text, "console").iter().flat_map(|block| block.lines()) {
            let Some(command) = line.strip_prefix("$ millrace ") else { continue };
            commands += 1;
            let words: Vec<&str> = command.split_whitespace().collect();
            let verbs = words.iter().take_while(|word| !word.starts_with('-')).map(|word| (*word).to_owned()).collect();
            let help = helps.entry(verbs).or_insert_with_key(|verbs| {
                let output = Command::new(program("millrace")).args(verbs).arg("--help").output().unwrap();
                assert!(output.status.success(), "{name}: {command}: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).unwrap()
            });
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let is_there = help.split([' ', ',', '\n', '=', '[']).any(|word| word == *option);
                assert!(is_there, "{name}: {command}: no {option} in\n{help}");
            }
        }
        for metric in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| {
            ["millrace_", "process_"].iter().any(|prefix| word.starts_with(prefix))
                && !word.starts_with("millrace_test")
        }) {
            let base = ["_bucket", "_count", "_sum"].iter().find_map(|end| metric.strip_suffix(end)).unwrap_or(metric);
            assert!(known.contains(base), "{name} names {metric}, which nothing tells");
        }
    }
    assert!(commands > 10, "{commands} commands");
}

fn runbooks() -> Vec<(String, String)> {
    let runbooks: Vec<_> = files("docs/runbooks", "md")
        .into_iter()
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    assert!(!runbooks.is_empty());
    runbooks
}

fn files(folder: &str, extension: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(shipped(folder)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// Contents of the fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let blocks = text.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default().trim_end().to_owned()).collect()
}
