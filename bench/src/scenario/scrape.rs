//! What `millrace` says of itself on `/metrics`: the text format of Prometheus, as far as it is looked at.

/// Sum of a series over its labels; 0 if it is not there.
pub(crate) fn sum(text: &str, name: &str) -> f64 {
    series(text, name).map(|(_, value)| value).sum()
}

/// Upper edges and the counts up to them, summed over labels, ascending.
pub(crate) fn buckets(text: &str, name: &str) -> Vec<(f64, f64)> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (labels, value) in series(text, &format!("{name}_bucket")) {
        let edge = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
        let edge = edge.map_or(f64::INFINITY, |edge| edge.parse().unwrap_or(f64::INFINITY));
        match buckets.iter_mut().find(|(known, _)| *known == edge) {
            Some((_, count)) => *count += value,
            None => buckets.push((edge, value)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

/// A quantile, interpolated inside its bucket as Prometheus does; `None` of nothing.
pub(crate) fn quantile(buckets: &[(f64, f64)], share: f64) -> Option<f64> {
    let (_, all) = buckets.last().filter(|(_, all)| *all > 0.0)?;
    let rank = share * all;
    let (mut lower, mut below) = (0.0, 0.0);
    for &(upper, up_to) in buckets {
        if up_to >= rank && up_to > below {
            return Some(if upper.is_finite() {
                lower + (upper - lower) * (rank - below) / (up_to - below)
            } else {
                lower
            });
        }
        (lower, below) = (upper, up_to);
    }
    None
}

fn series<'a>(text: &'a str, name: &str) -> impl Iterator<Item = (&'a str, f64)> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(move |line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        (found == name).then_some((labels, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP millrace_rows_inserted_total Rows.
millrace_rows_inserted_total{topic=\"orders\"} 90
millrace_dead_letters_total{topic=\"orders\",reason=\"truncated\"} 3
millrace_dead_letters_total{topic=\"orders\",reason=\"bad_magic\"} 2
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"0.1\"} 0
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"0.2\"} 50
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"0.4\"} 100
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"+Inf\"} 100
";

    #[test]
    fn figures_are_summed_over_labels_and_quantiles_interpolated() {
        assert_eq!(sum(TEXT, "millrace_dead_letters_total"), 5.0);
        assert_eq!(sum(TEXT, "millrace_dead"), 0.0);
        let buckets = buckets(TEXT, "millrace_freshness_seconds");
        assert_eq!(buckets.len(), 4);
        assert_eq!(quantile(&buckets, 0.5), Some(0.2));
        assert!((quantile(&buckets, 0.75).unwrap() - 0.3).abs() < 1e-12);
        assert_eq!(quantile(&[], 0.5), None);
    }
}
