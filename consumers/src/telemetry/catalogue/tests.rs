use std::collections::BTreeSet;

use super::*;
use crate::tables::is_documented;

#[test]
fn names_follow_the_conventions_and_come_once() {
    for Metric { name, kind, unit, help, .. } in CATALOGUE {
        assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
        assert!(help.ends_with('.') && !help.contains('|'), "{name}");
        if let Kind::Histogram(buckets) = kind {
            assert_eq!(*unit == Unit::Seconds, name.ends_with("_seconds"), "{name}");
            assert!(buckets.is_sorted_by(|one, next| one < next), "{name}");
        }
    }
    let names: BTreeSet<&str> = CATALOGUE.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), CATALOGUE.len());
}

#[test]
fn freshness_is_told_to_a_tenth_and_exactly_at_its_objective() {
    let fine: Vec<f64> = FRESHNESS_SECONDS.iter().copied().filter(|edge| (0.05..=5.0).contains(edge)).collect();
    assert_eq!((fine.first(), fine.last()), (Some(&0.05), Some(&5.0)));
    for edges in fine.windows(2) {
        assert!(edges[1] / edges[0] <= 1.1 + 1e-9, "{edges:?}");
    }
    assert!(fine.contains(&0.5));
}

/// The documentation's table.
fn table() -> String {
    let mut rows = "| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for Metric { name, kind, labels, help, .. } in CATALOGUE {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        rows += &format!("| `{name}` | {} | {} | {help} |\n", kind.word(), labels.join(", "));
    }
    rows += "\nUpper edges of the histograms' buckets:\n\n| metric | edges |\n| --- | --- |\n";
    for Metric { name, kind, .. } in CATALOGUE {
        if let Kind::Histogram(buckets) = kind {
            let edges: Vec<String> = buckets.iter().map(f64::to_string).collect();
            rows += &format!("| `{name}` | {} |\n", edges.join(", "));
        }
    }
    rows
}

#[test]
fn the_documented_metrics_are_those_of_the_code() {
    is_documented("metrics.md", &table());
}
