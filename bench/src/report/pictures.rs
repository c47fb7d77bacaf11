//! Which pictures a report gets, and what they show.

use std::collections::{BTreeMap, BTreeSet};

use super::charts::{Bar, Curve, Panel, XAxis, bars, curves};
use crate::scenario::result::{Report, Run};

/// A picture: what its file is called behind the name of the scenario, what it shows, its text.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) name: &'static str,
    pub(super) alt: String,
    pub(super) svg: String,
}

/// The pictures of a report; none where nothing went well.
pub(super) fn of(report: &Report) -> Vec<Drawn> {
    let drawn = match report.kind.as_str() {
        "drain" if grid(report).is_some() => vec![scale(report, "events_per_second"), scale(report, "cpu_us_total")],
        "drain" => vec![speed(report), cost(report)],
        "live" if has_series(report, "freshness_ms_by_percentile") => vec![freshness(report)],
        "live" if report.goals.iter().any(|reached| reached.goal.metric.starts_with("memory_")) => vec![memory(report)],
        "live" => vec![lag(report)],
        "restart" => vec![first_row(report)],
        _ => Vec::new(),
    };
    drawn.into_iter().flatten().collect()
}

/// Variants in the sequence in which they were run.
pub(super) fn variants(report: &Report) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    report.runs.iter().map(|run| run.variant.as_str()).filter(|variant| seen.insert(*variant)).collect()
}

fn median(report: &Report, variant: &str, metric: &str) -> Option<f64> {
    report.medians.get(variant)?.get(metric).copied()
}

fn good_runs<'a>(report: &'a Report, variant: &'a str) -> impl Iterator<Item = &'a Run> {
    report.runs.iter().filter(move |run| run.variant == variant && run.failure.is_none())
}

/// The run in the middle by a figure; the lower of two.
fn middle<'a>(report: &'a Report, variant: &'a str, metric: &str) -> Option<&'a Run> {
    let figure = |run: &&Run| run.figures.get(metric).copied().unwrap_or(f64::MAX);
    let mut runs: Vec<&Run> = good_runs(report, variant).collect();
    runs.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
    runs.get(runs.len().checked_sub(1)? / 2).copied()
}

fn has_series(report: &Report, name: &str) -> bool {
    report.runs.iter().any(|run| run.series.iter().any(|series| series.name == name))
}

fn bars_of(report: &Report, metric: &str) -> Vec<Bar> {
    let bar = |variant: &str| {
        let runs = good_runs(report, variant).filter_map(|run| run.figures.get(metric).copied()).collect();
        Some(Bar { name: variant.to_owned(), values: vec![median(report, variant, metric)?], runs })
    };
    variants(report).into_iter().filter_map(bar).collect()
}

fn drawn(name: &'static str, title: &str, any: bool, svg: impl FnOnce(&str) -> String) -> Option<Drawn> {
    any.then(|| Drawn { name, alt: title.to_owned(), svg: svg(title) })
}

fn speed(report: &Report) -> Option<Drawn> {
    let all = bars_of(report, "events_per_second");
    let title = format!("{}: speed, median of the runs (dots)", report.scenario);
    drawn("speed", &title, !all.is_empty(), |title| bars(title, "events per second", &[], &all))
}

fn cost(report: &Report) -> Option<Drawn> {
    let sections = ["consumer (millrace or the peer)", "ClickHouse", "Kafka"];
    let bar = |variant: &str| {
        // Medians of the parts would not add up to the median of all.
        let run = middle(report, variant, "cpu_us_total")?;
        let of = |role: &str| run.figures.get(&format!("cpu_us_{role}")).copied();
        let values = vec![of("consumer").unwrap_or_default(), of("clickhouse")?, of("kafka")?];
        Some(Bar { name: variant.to_owned(), values, runs: Vec::new() })
    };
    let all: Vec<Bar> = variants(report).into_iter().filter_map(bar).collect();
    let title = format!("{}: processor time per event, by process, run in the middle", report.scenario);
    drawn("cost", &title, !all.is_empty(), |title| bars(title, "µs of processor time per event", &sections, &all))
}

fn first_row(report: &Report) -> Option<Drawn> {
    let all = bars_of(report, "first_row_after_seconds");
    let title =
        format!("{}: from the start of the process to its first row, median of the runs (dots)", report.scenario);
    drawn("first_row", &title, !all.is_empty(), |title| bars(title, "seconds", &[], &all))
}

/// The last run that went well of each variant.
fn last_runs(report: &Report) -> Vec<&Run> {
    variants(report).into_iter().filter_map(|variant| good_runs(report, variant).last()).collect()
}

fn panel(runs: &[&Run], series: &str, y_unit: &str) -> Panel {
    let curve = |run: &&Run| {
        let points = run.points(series);
        (!points.is_empty()).then(|| Curve { name: run.variant.clone(), points: points.to_vec() })
    };
    Panel { y_unit: y_unit.to_owned(), curves: runs.iter().filter_map(curve).collect() }
}

fn lag(report: &Report) -> Option<Drawn> {
    let runs = last_runs(report);
    let panels = [
        panel(&runs, "landed_per_second", "events landed per second"),
        panel(&runs, "lag_events", "events not landed yet"),
    ];
    let title = format!("{}: speed and lag over time, last run at each rate", report.scenario);
    drawn("lag", &title, !runs.is_empty(), |title| curves(title, "seconds", &XAxis::Linear, &panels))
}

fn memory(report: &Report) -> Option<Drawn> {
    let runs = last_runs(report);
    let panels = [
        panel(&runs, "memory_mib", "resident memory of millrace, MiB"),
        panel(&runs, "lag_events", "events not landed yet"),
    ];
    let title = format!("{}: memory and lag over time", report.scenario);
    drawn("memory", &title, !runs.is_empty(), |title| curves(title, "seconds", &XAxis::Linear, &panels))
}

fn freshness(report: &Report) -> Option<Drawn> {
    let runs = last_runs(report);
    let panels = [panel(&runs, "freshness_ms_by_percentile", "milliseconds from publish to visible")];
    let mut shares: Vec<f64> = panels[0].curves.iter().flat_map(|curve| &curve.points).map(|point| point.0).collect();
    shares.sort_by(f64::total_cmp);
    shares.dedup();
    let places = XAxis::Places(shares.into_iter().map(|share| (share, format!("p{share}"))).collect());
    let title = format!("{}: freshness, last run at each rate", report.scenario);
    drawn("freshness", &title, !panels[0].curves.is_empty(), |title| {
        curves(title, "share of the events", &places, &panels)
    })
}

/// Numbers of consumers and partitions of each variant, if there is more than one number of partitions.
fn grid(report: &Report) -> Option<BTreeMap<u64, BTreeMap<u64, &str>>> {
    let mut by_consumers: BTreeMap<u64, BTreeMap<u64, &str>> = BTreeMap::new();
    let mut partitions = BTreeSet::new();
    for run in &report.runs {
        let of = |name: &str| run.figures.get(name).map(|value| *value as u64);
        if let (Some(count), Some(consumers)) = (of("partitions"), of("consumers")) {
            partitions.insert(count);
            by_consumers.entry(consumers).or_default().insert(count, &run.variant);
        }
    }
    (partitions.len() > 1).then_some(by_consumers)
}

fn scale(report: &Report, metric: &'static str) -> Option<Drawn> {
    let (name, what, unit) = match metric {
        "events_per_second" => ("speed", "speed", "events per second"),
        _ => ("cost", "processor time of all but the producer", "µs per event"),
    };
    let grid = grid(report)?;
    let curve = |(consumers, variants): (&u64, &BTreeMap<u64, &str>)| {
        let points =
            variants.iter().filter_map(|(count, variant)| Some((*count as f64, median(report, variant, metric)?)));
        Curve {
            name: format!("{consumers} consumer{}", if *consumers == 1 { "" } else { "s" }),
            points: points.collect(),
        }
    };
    let panels = [Panel { y_unit: unit.to_owned(), curves: grid.iter().map(curve).collect() }];
    let places: BTreeSet<u64> = grid.values().flat_map(BTreeMap::keys).copied().collect();
    let places = XAxis::Places(places.into_iter().map(|count| (count as f64, count.to_string())).collect());
    let title = format!("{}: {what} by partitions and consumers", report.scenario);
    drawn(name, &title, true, |title| curves(title, "partitions", &places, &panels))
}
