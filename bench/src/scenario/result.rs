//! Results as they are written to `bench/results/*.json`. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::spec::Goal;
use super::stats::{median, rounded};

/// Figures by name; units stand in the names.
pub(crate) type Figures = BTreeMap<String, f64>;

/// Everything about a scenario that was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) kind: String,
    pub(crate) description: String,
    pub(crate) command: String,
    /// Few events: shows that it works, and nothing else.
    pub(crate) quick: bool,
    /// The day on which it ended, UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) goals: Vec<Reached>,
    /// Medians over the runs that went well, by variant.
    pub(crate) medians: BTreeMap<String, Figures>,
    pub(crate) runs: Vec<Run>,
}

/// A goal and what was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reached {
    #[serde(flatten)]
    pub(crate) goal: Goal,
    /// `None` if no run went well.
    pub(crate) measured: Option<f64>,
    pub(crate) reached: bool,
}

/// One measurement. One that failed stays, with what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) variant: String,
    /// From 1.
    pub(crate) round: u32,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) failure: Option<String>,
    pub(crate) figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) outcome: Option<Outcome>,
    /// What changed while it ran.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(crate) series: Vec<Series>,
}

/// What is in the table, compared with what was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Different readable events sent.
    pub(crate) events: u64,
    pub(crate) rows: u64,
    pub(crate) lost: u64,
    /// Rows beyond the first of their event, without the next.
    pub(crate) doubled: u64,
    /// Rows of events that the producer sent again, left in by a system that does not look for them.
    #[serde(default)]
    pub(crate) duplicates_kept: u64,
    /// Rows with another content than was sent; `None` where only ids were counted.
    pub(crate) wrong: Option<u64>,
    /// Unreadable records without a dead letter, and dead letters that are wrong; `None` where they were not looked at.
    pub(crate) dead_letters_wrong: Option<u64>,
}

impl Outcome {
    pub(crate) fn is_right(&self) -> bool {
        self.lost == 0
            && self.doubled == 0
            && self.wrong.unwrap_or_default() == 0
            && self.dead_letters_wrong.unwrap_or_default() == 0
    }
}

/// A figure over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// Seconds from the beginning, and the value.
    pub(crate) points: Vec<(f64, f64)>,
}

/// As many as a picture can show.
const POINTS: usize = 240;

impl Series {
    /// Rounded, and of each stretch the highest point if there are more than a picture can show.
    pub(crate) fn new(name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        let points: Vec<(f64, f64)> =
            points.into_iter().map(|(x, y)| ((x * 100.0).round() / 100.0, rounded(y))).collect();
        let highest = |stretch: &[(f64, f64)]| stretch.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        let points = points.chunks(points.len().div_ceil(POINTS).max(1)).filter_map(highest).collect();
        Self { name: name.to_owned(), points }
    }
}

impl Run {
    pub(crate) fn new(variant: &str, round: u32) -> Self {
        Self { variant: variant.to_owned(), round, ..Self::default() }
    }

    pub(crate) fn set(&mut self, name: &str, value: f64) {
        self.figures.insert(name.to_owned(), rounded(value));
    }

    pub(crate) fn extend(&mut self, figures: Figures) {
        figures.into_iter().for_each(|(name, value)| self.set(&name, value));
    }

    /// Seconds and values; none if it was not sampled.
    pub(crate) fn points(&self, series: &str) -> &[(f64, f64)] {
        self.series.iter().find(|known| known.name == series).map_or(&[], |known| &known.points)
    }

    /// Whether it came to its end, and nothing was lost, doubled or wrong.
    pub(crate) fn is_right(&self) -> bool {
        self.failure.is_none() && self.outcome.as_ref().is_none_or(Outcome::is_right)
    }

    /// For people who wait.
    pub(crate) fn line(&self) -> String {
        let Self { variant, round, .. } = self;
        if let Some(failure) = &self.failure {
            return format!("{variant} {round}: FAILED: {failure}");
        }
        let mut line = format!("{variant} {round}:");
        for name in [
            "events_per_second",
            "events_per_second_from_start",
            "offered_per_second",
            "lag_seconds_max",
            "cpu_us_consumer",
            "cpu_us_clickhouse",
            "cpu_us_kafka",
            "cpu_us_producer",
            "memory_mib_consumer",
            "rows_per_part_made",
            "freshness_p50_ms",
            "freshness_p99_ms",
            "seconds",
        ] {
            if let Some(value) = self.figures.get(name) {
                line += &format!(" {name} {value}");
            }
        }
        if let Some(outcome) = &self.outcome {
            line += &format!(" lost {} doubled {}", outcome.lost, outcome.doubled);
            line += &outcome.wrong.map_or(String::new(), |wrong| format!(" wrong {wrong}"));
        }
        line
    }
}

/// Medians of each figure, by variant, over the runs that did not fail.
pub(crate) fn medians(runs: &[Run]) -> BTreeMap<String, Figures> {
    let mut values: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.failure.is_none()) {
        let of_variant = values.entry(&run.variant).or_default();
        for (name, value) in &run.figures {
            of_variant.entry(name).or_default().push(*value);
        }
    }
    let of = |values: Vec<f64>| median(&values).map(rounded);
    values
        .into_iter()
        .map(|(variant, figures)| {
            let figures = figures.into_iter().filter_map(|(name, values)| Some((name.to_owned(), of(values)?)));
            (variant.to_owned(), figures.collect())
        })
        .collect()
}

/// Compares a goal with the medians. Without `of`, the goal speaks of the best of the variants.
pub(crate) fn judge(goal: &Goal, medians: &BTreeMap<String, Figures>) -> Reached {
    let figure = |variant: &str| medians.get(variant).and_then(|figures| figures.get(&goal.metric)).copied();
    let measured = match (&goal.of, &goal.over) {
        (Some(of), Some(over)) => figure(of).zip(figure(over)).map(|(of, over)| of / over),
        (Some(of), None) => figure(of),
        (None, _) => medians.keys().filter_map(|variant| figure(variant)).max_by(f64::total_cmp),
    };
    let measured = measured.filter(|value| value.is_finite()).map(rounded);
    let reached = measured.is_some_and(|is| goal.compare.holds(is, goal.value));
    Reached { goal: goal.clone(), measured, reached }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Comparison;
    use super::*;

    fn run(variant: &str, value: f64, failed: bool) -> Run {
        let mut run = Run::new(variant, 1);
        run.set("speed", value);
        run.failure = failed.then(|| "it broke".to_owned());
        run
    }

    fn goal(of: Option<&str>, over: Option<&str>) -> Goal {
        Goal {
            text: "fast".into(),
            metric: "speed".into(),
            of: of.map(str::to_owned),
            over: over.map(str::to_owned),
            compare: Comparison::AtLeast,
            value: 4.0,
        }
    }

    #[test]
    fn a_long_series_keeps_its_peaks() {
        let series = Series::new("lag", (0..10_000).map(|x| (f64::from(x), if x == 7_777 { 5.0 } else { 1.0 })));
        assert!(series.points.len() <= POINTS && series.points.len() > POINTS / 2, "{}", series.points.len());
        assert!(series.points.contains(&(7_777.0, 5.0)));
        assert_eq!(Series::new("few", [(0.0, 1.0), (1.0, 0.0)]).points, [(0.0, 1.0), (1.0, 0.0)]);
        assert_eq!(Series::new("none", []).points, []);
    }

    #[test]
    fn goals_are_judged_by_the_medians_of_runs_that_went_well() {
        let runs = [
            run("a", 8.0, false),
            run("a", 9.0, false),
            run("a", 1.0, true),
            run("a", 7.0, false),
            run("b", 2.0, false),
        ];
        let medians = medians(&runs);
        assert_eq!(medians["a"]["speed"], 8.0);
        let ratio = judge(&goal(Some("a"), Some("b")), &medians);
        assert_eq!((ratio.measured, ratio.reached), (Some(4.0), true));
        assert!(!judge(&goal(Some("b"), None), &medians).reached);
        assert_eq!(judge(&goal(None, None), &medians).measured, Some(8.0));
        let of_nothing = judge(&goal(Some("c"), None), &medians);
        assert_eq!((of_nothing.measured, of_nothing.reached), (None, false));
    }
}
