//! Reads what `millrace run` says of itself on `/metrics`.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::stack::http;

/// What has landed of a topic so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Landed {
    pub(super) rows: u64,
    pub(super) duplicates: u64,
    pub(super) dead_letters: u64,
    pub(super) lag: u64,
    /// Upper edge in seconds and events up to it.
    freshness: Vec<(f64, u64)>,
}

impl Landed {
    /// Records that are dealt with for good.
    pub(super) fn settled(&self) -> u64 {
        self.rows + self.duplicates + self.dead_letters
    }

    /// A quantile of freshness in milliseconds, interpolated inside its bucket as Prometheus does.
    pub(super) fn freshness_ms(&self, quantile: f64) -> u64 {
        let Some((_, all)) = self.freshness.last() else { return 0 };
        let rank = quantile * *all as f64;
        let (mut lower, mut below) = (0.0, 0);
        for (upper, up_to) in &self.freshness {
            if *up_to as f64 >= rank && *up_to > below {
                if upper.is_infinite() {
                    return (lower * 1000.0) as u64;
                }
                let share = (rank - below as f64) / (*up_to - below) as f64;
                return ((lower + (upper - lower) * share) * 1000.0).round() as u64;
            }
            (lower, below) = (*upper, *up_to);
        }
        0
    }
}

/// The address that `millrace run` says in its log, once it has.
pub(super) fn url(log: &str) -> Option<String> {
    let line = log.lines().find(|line| line.contains("metrics and health are served"))?;
    let address = line.split("address=").nth(1)?.split_whitespace().next()?;
    Some(format!("http://{address}"))
}

/// Whether it processes events, or would if there were any.
pub(super) fn ready(url: &str) -> bool {
    http::get(&format!("{url}/readyz")).is_ok()
}

/// Asks for the figures of each topic.
///
/// # Errors
/// If there is no answer.
pub(super) fn read(url: &str) -> Result<BTreeMap<String, Landed>> {
    Ok(parse(&http::get(&format!("{url}/metrics"))?))
}

fn parse(text: &str) -> BTreeMap<String, Landed> {
    let mut topics: BTreeMap<String, Landed> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let Some(topic) = label(labels, "topic") else { continue };
        let landed = topics.entry(topic.to_owned()).or_default();
        match name {
            "millrace_rows_inserted_total" => landed.rows += value as u64,
            "millrace_duplicates_dropped_total" => landed.duplicates += value as u64,
            "millrace_dead_letters_total" => landed.dead_letters += value as u64,
            "millrace_lag_events" => landed.lag += value as u64,
            "millrace_freshness_seconds_bucket" => {
                let edge = label(labels, "le").map(|edge| edge.parse().unwrap_or(f64::INFINITY));
                landed.freshness.extend(edge.map(|edge| (edge, value as u64)));
            }
            _ => {}
        }
    }
    topics.values_mut().for_each(|landed| landed.freshness.sort_by(|a, b| a.0.total_cmp(&b.0)));
    topics
}

fn label<'t>(labels: &'t str, name: &str) -> Option<&'t str> {
    labels.split(['{', ',', '}']).find_map(|label| label.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP millrace_rows_inserted_total Rows.
millrace_rows_inserted_total{topic=\"orders\"} 90
millrace_duplicates_dropped_total{topic=\"orders\"} 5
millrace_dead_letters_total{topic=\"orders\",reason=\"truncated\"} 3
millrace_dead_letters_total{topic=\"orders\",reason=\"bad_magic\"} 2
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"0.1\"} 0
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"0.2\"} 50
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"0.4\"} 100
millrace_freshness_seconds_bucket{topic=\"orders\",le=\"+Inf\"} 100
millrace_rows_inserted_total{topic=\"payments\"} 7
millrace_freshness_seconds_bucket{topic=\"payments\",le=\"0.1\"} 7
";

    #[test]
    fn figures_are_summed_over_labels_of_a_topic_and_quantiles_interpolated() {
        let topics = parse(TEXT);
        let landed = &topics["orders"];
        assert_eq!((landed.settled(), topics["payments"].settled()), (100, 7));
        assert_eq!(landed.freshness_ms(0.5), 200);
        assert_eq!(landed.freshness_ms(0.75), 300);
        assert_eq!(Landed::default().freshness_ms(0.99), 0);
    }

    #[test]
    fn the_address_is_read_from_the_log() {
        let log =
            "2026-01-01T00:00:00Z  INFO run: metrics and health are served address=127.0.0.1:4242 version=\"0.1.0\"\n";
        assert_eq!(url(log).as_deref(), Some("http://127.0.0.1:4242"));
        assert_eq!(url("starting"), None);
    }
}
