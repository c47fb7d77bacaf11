//! The tables of `bench/README.md`, from the results. Pure.

use super::pictures::{Drawn, variants};
use super::svg::number;
use crate::scenario::result::{Report, Run};

/// Columns of the table of a report: heading, figure. Those that no variant has are left out.
const COLUMNS: [(&str, &str); 24] = [
    ("events/s", "events_per_second"),
    ("events/s from start", "events_per_second_from_start"),
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
    ("memory MiB: consumer", "memory_mib_consumer"),
    ("ClickHouse", "memory_mib_clickhouse"),
    ("Kafka", "memory_mib_kafka"),
    ("growth MiB/h", "memory_growth_mib_per_hour"),
    ("bytes/row", "bytes_per_row"),
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
    text += &table(report);
    text += &failures(report);
    text
}

fn capital(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// Medians by variant, and what was lost, doubled or wrong in all runs together.
fn table(report: &Report) -> String {
    let figure = |variant: &str, name: &str| report.medians.get(variant).and_then(|figures| figures.get(name)).copied();
    let variants = variants(report);
    let has = |name: &str| variants.iter().any(|variant| figure(variant, name).is_some());
    let mut columns: Vec<(String, String)> = COLUMNS
        .iter()
        .filter(|(_, name)| has(name))
        .map(|(head, name)| ((*head).to_owned(), (*name).to_owned()))
        .collect();
    if columns.is_empty() {
        // A program of its own: its figures by their own names.
        let names = report.medians.values().flat_map(|figures| figures.keys().cloned());
        let names: std::collections::BTreeSet<String> = names.collect();
        columns = names.into_iter().map(|name| (name.replace('_', " "), name)).collect();
    }
    let outcomes = report.runs.iter().any(|run| run.outcome.is_some());
    let mut text = String::from("\n| |");
    let mut rule = String::from("| --- |");
    for (head, _) in &columns {
        text += &format!(" {head} |");
        rule += " ---: |";
    }
    if outcomes {
        text += " lost | doubled | duplicates kept | wrong |";
        rule += " ---: | ---: | ---: | ---: |";
    }
    text += &format!(" runs, failed |\n{rule} ---: |\n");
    for variant in variants {
        text += &format!("| {variant} |");
        for (_, name) in &columns {
            text += &format!(" {} |", figure(variant, name).map_or("-".to_owned(), number));
        }
        let runs: Vec<&Run> = report.runs.iter().filter(|run| run.variant == variant).collect();
        if outcomes {
            text += &correctness(&runs);
        }
        let failed = runs.iter().filter(|run| run.failure.is_some()).count();
        text += &format!(" {}, {failed} |\n", runs.len());
    }
    text
}

/// Sums over the runs; a dash where nobody looked.
fn correctness(runs: &[&Run]) -> String {
    let outcomes: Vec<_> = runs.iter().filter_map(|run| run.outcome.as_ref()).collect();
    if outcomes.is_empty() {
        return " - | - | - | - |".to_owned();
    }
    let sum = |of: fn(&crate::scenario::result::Outcome) -> u64| {
        number(outcomes.iter().map(|one| of(one)).sum::<u64>() as f64)
    };
    let wrong: Vec<u64> = outcomes.iter().filter_map(|outcome| outcome.wrong).collect();
    let wrong = if wrong.is_empty() { "-".to_owned() } else { number(wrong.iter().sum::<u64>() as f64) };
    format!(" {} | {} | {} | {wrong} |", sum(|one| one.lost), sum(|one| one.doubled), sum(|one| one.duplicates_kept))
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
