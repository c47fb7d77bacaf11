//! The tables of `bench/README.md`, from the results. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::pictures::{Drawn, variants};
use super::svg::number;
use crate::scenario::result::{Outcome, Report, Run};

/// Columns of the first table of a report: heading, figure. Those that no variant has are left out.
const SPEED: [(&str, &str); 16] = [
    ("events/s", "events_per_second"),
    ("from start", "events_per_second_from_start"),
    ("offered/s", "offered_per_second"),
    ("held", "held"),
    ("most lag, events", "lag_events_max"),
    ("seen after, p50 ms", "freshness_p50_ms"),
    ("p99 ms", "freshness_p99_ms"),
    ("p99.9 ms", "freshness_p999_ms"),
    ("p99 ms, own histogram", "own_freshness_p99_ms"),
    ("first row after s", "first_row_after_seconds"),
    ("ids/s", "ids_per_second"),
    ("CPU µs/event: consumer", "cpu_us_consumer"),
    ("ClickHouse", "cpu_us_clickhouse"),
    ("Kafka", "cpu_us_kafka"),
    ("together", "cpu_us_total"),
    ("producer", "cpu_us_producer"),
];
/// Of the second.
const SPACE: [(&str, &str); 9] = [
    ("memory MiB: consumer", "memory_mib_consumer"),
    ("ClickHouse", "memory_mib_clickhouse"),
    ("Kafka", "memory_mib_kafka"),
    ("producer", "memory_mib_producer"),
    ("consumer grows MiB/h", "memory_growth_mib_per_hour"),
    ("disk bytes/row", "bytes_per_row"),
    ("parts made", "parts_made"),
    ("rows/part made", "rows_per_part_made"),
    ("rows/insert", "rows_per_batch"),
];

/// The section of a report.
pub(super) fn section(report: &Report, pictures: &[Drawn]) -> String {
    let machine = &report.machine;
    let mut text = format!(
        "### {}\n\n{}.\n\n`{}` on {}, {} cores, {} GiB, Linux {}, {}, commit {}, {}.\n",
        report.scenario,
        capital(&report.description),
        report.command,
        machine.cpu,
        machine.cores,
        machine.memory_gib,
        machine.kernel,
        machine.rustc,
        machine.commit,
        report.date
    );
    for Drawn { name, alt, .. } in pictures {
        text += &format!("\n![{alt}](results/{}_{name}.svg)\n", report.scenario);
    }
    if !report.goals.is_empty() {
        text += "\n| goal | measured | |\n| --- | ---: | --- |\n";
        for reached in &report.goals {
            let measured = reached.measured.map_or("-".to_owned(), number);
            let verdict = if reached.reached { "reached" } else { "**missed**" };
            text += &format!("| {} | {measured} | {verdict} |\n", reached.goal.text);
        }
    }
    text += &tables(report);
    text += &failures(report);
    text
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// A heading and the figure below it.
type Column = (String, String);

/// Medians by variant: speed and cost with what was lost, doubled or wrong in all runs together, then memory and disk.
fn tables(report: &Report) -> String {
    let known = |columns: &[(&str, &str)]| -> Vec<Column> {
        let has = |name: &str| report.medians.values().any(|figures| figures.contains_key(name));
        let known = columns.iter().filter(|(_, name)| has(name));
        known.map(|(head, name)| ((*head).to_owned(), (*name).to_owned())).collect()
    };
    let (mut speed, space) = (known(&SPEED), known(&SPACE));
    let asked =
        [named(report, "a query, ms", "query_", "_ms"), named(report, "bytes of a row", "bytes_per_row_", "")].concat();
    if speed.is_empty() && asked.is_empty() {
        // A program of its own: its figures by their own names.
        let names: BTreeSet<&String> = report.medians.values().flat_map(BTreeMap::keys).collect();
        speed = names.into_iter().map(|name| (name.replace('_', " "), name.clone())).collect();
    }
    let outcomes = report.runs.iter().any(|run| run.outcome.is_some());
    let mut text = table(report, &speed, |runs| {
        let failed = runs.iter().filter(|run| run.failure.is_some()).count();
        let correctness = if outcomes { correctness(runs) } else { Vec::new() };
        let counts = [("runs", runs.len().to_string()), ("failed", failed.to_string())];
        correctness.into_iter().chain(counts).collect()
    });
    if !space.is_empty() {
        text += &table(report, &space, |_| Vec::new());
    }
    text + &asked
}

/// Figures that share the beginning and the end of their names: one in a line, a column for each variant.
fn named(report: &Report, head: &str, begin: &str, end: &str) -> String {
    let short = |name: &String| {
        let inner = name.strip_prefix(begin)?.strip_suffix(end)?;
        Some((
            inner.replace("_p50", ", p50").replace("_p95", ", p95").replace("of_", "").replace("in_", "in "),
            name.clone(),
        ))
    };
    let names: BTreeSet<(String, String)> =
        report.medians.values().flat_map(BTreeMap::keys).filter_map(short).collect();
    if names.is_empty() {
        return String::new();
    }
    let variants = variants(report);
    let mut text = format!("\n| {head} | {} |\n| --- |{}\n", variants.join(" | "), " ---: |".repeat(variants.len()));
    for (short, name) in names {
        let cell = |variant: &&str| {
            let figure = report.medians.get(*variant).and_then(|figures| figures.get(&name));
            figure.map_or("-".to_owned(), |value| number(*value))
        };
        text += &format!("| {short} | {} |\n", variants.iter().map(cell).collect::<Vec<String>>().join(" | "));
    }
    text
}

/// One of them; `more` are columns behind those of the medians, from all runs of a variant.
fn table(report: &Report, columns: &[Column], more: impl Fn(&[&Run]) -> Vec<(&'static str, String)>) -> String {
    let (mut head, mut body) = (String::new(), String::new());
    for variant in variants(report) {
        let runs: Vec<&Run> = report.runs.iter().filter(|run| run.variant == variant).collect();
        let figures = report.medians.get(variant);
        let cell = |name: &str| {
            figures.and_then(|figures| figures.get(name)).map_or("-".to_owned(), |value| shown(name, *value))
        };
        let cells = columns.iter().map(|(head, name)| (head.as_str(), cell(name))).chain(more(&runs));
        let (heads, cells): (Vec<&str>, Vec<String>) = cells.unzip();
        if head.is_empty() {
            head = format!("\n| | {} |\n| --- |{}\n", heads.join(" | "), " ---: |".repeat(heads.len()));
        }
        body += &format!("| {variant} | {} |\n", cells.join(" | "));
    }
    head + &body
}

fn shown(name: &str, value: f64) -> String {
    match (name, value) {
        ("held", 1.0) => "yes".to_owned(),
        ("held", _) => "no".to_owned(),
        _ => number(value),
    }
}

/// Sums over the runs; a dash where nobody looked.
fn correctness(runs: &[&Run]) -> Vec<(&'static str, String)> {
    let outcomes: Vec<&Outcome> = runs.iter().filter_map(|run| run.outcome.as_ref()).collect();
    let sum = |of: fn(&Outcome) -> Option<u64>| {
        let values: Vec<u64> = outcomes.iter().filter_map(|outcome| of(outcome)).collect();
        if values.is_empty() { "-".to_owned() } else { number(values.iter().sum::<u64>() as f64) }
    };
    vec![
        ("lost", sum(|outcome| Some(outcome.lost))),
        ("doubled", sum(|outcome| Some(outcome.doubled))),
        ("duplicates kept", sum(|outcome| Some(outcome.duplicates_kept))),
        ("wrong", sum(|outcome| outcome.wrong)),
    ]
}

/// What went wrong, run by run.
fn failures(report: &Report) -> String {
    let failed = report.runs.iter().filter_map(|run| Some((run, run.failure.as_ref()?)));
    let lines: Vec<String> = failed
        .map(|(run, failure)| {
            let first = failure.lines().next().unwrap_or_default();
            format!("- {}, run {}, failed: {first}\n", run.variant, run.round)
        })
        .collect();
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}
