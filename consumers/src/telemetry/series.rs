//! Gauges whose series come and go: of a partition, which is somebody else's once it is revoked, and of a broker. The
//! recorder knows no end of a series, and a lag that stays at its last value is a lie; so these are kept here and written
//! out behind the recorder's own.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, PoisonError},
};

use super::catalogue::metric;

/// This process's.
pub static SERIES: Series = Series::new();

/// Values by metric and labels.
#[derive(Debug)]
pub struct Series(Mutex<BTreeMap<&'static str, BTreeMap<Labels, f64>>>);

/// Label names and values, in the order of the catalogue; those by which series end come first.
type Labels = Vec<(&'static str, String)>;

impl Series {
    /// None.
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The present value of a series.
    pub fn set(&self, name: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default().insert(labels, value);
    }

    /// The present value of a series, if there is one; all its labels in their order.
    pub fn get(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Option<f64> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_meant = |of: &Labels| of.iter().map(|(name, value)| (*name, value.as_str())).eq(labels.iter().copied());
        all.get(name)?.iter().find(|(of, _)| is_meant(of)).map(|(_, value)| *value)
    }

    /// Ends every series of the metric whose first labels are these.
    pub fn end(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        let is_meant = |of: &Labels| {
            let firsts = of.iter().map(|(name, value)| (*name, value.as_str()));
            of.len() >= labels.len() && firsts.zip(labels).all(|(one, meant)| one == *meant)
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = all.get_mut(name) {
            series.retain(|of, _| !is_meant(of));
        }
    }

    /// Appends all of them in the text format of Prometheus.
    pub(crate) fn render(&self, text: &mut String) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, series) in all.iter().filter(|(_, series)| !series.is_empty()) {
            let help = metric(name).map_or("", |metric| metric.help);
            // Writing into a text never fails.
            _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
            for (labels, value) in series {
                let labels: Vec<String> =
                    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
                _ = writeln!(text, "{name}{{{}}} {value}", labels.join(","));
            }
        }
    }
}

impl Default for Series {
    fn default() -> Self {
        Self::new()
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::{KAFKA_BROKER_RTT, LAG};

    fn text(series: &Series) -> String {
        let mut text = String::new();
        series.render(&mut text);
        text
    }

    #[test]
    fn a_series_that_has_ended_is_not_written_and_the_others_are() {
        let series = Series::new();
        for (topic, partition, lag) in [("orders", "3", 7.0), ("orders", "12", 0.5), ("payments", "3", 9.0)] {
            series.set(LAG, &[("topic", topic), ("partition", partition)], lag);
        }
        series.set(LAG, &[("topic", "orders"), ("partition", "3")], 8.0);
        let all = text(&series);
        assert!(
            all.starts_with(&format!("# HELP {LAG} ")) && all.contains(&format!("\n# TYPE {LAG} gauge\n")),
            "{all}"
        );
        assert!(all.contains("millrace_lag_events{topic=\"orders\",partition=\"3\"} 8\n"), "{all}");
        assert_eq!(series.get(LAG, &[("topic", "orders"), ("partition", "3")]), Some(8.0));
        series.end(LAG, &[("topic", "orders"), ("partition", "3")]);
        assert_eq!(series.get(LAG, &[("topic", "orders"), ("partition", "3")]), None);
        let rest = text(&series);
        assert!(
            !rest.contains("partition=\"3\"} 8") && rest.contains("{topic=\"orders\",partition=\"12\"} 0.5"),
            "{rest}"
        );
        assert!(rest.contains("{topic=\"payments\",partition=\"3\"} 9"), "{rest}");
        series.end(LAG, &[("topic", "orders")]);
        series.end(LAG, &[("topic", "payments")]);
        assert_eq!(text(&series), "", "without series there is no metric");
        series.end(KAFKA_BROKER_RTT, &[("topic", "orders")]);
    }

    #[test]
    fn label_values_are_escaped() {
        let series = Series::new();
        series.set(LAG, &[("topic", "a\"b\\c\nd")], 1.0);
        assert!(text(&series).contains(r#"{topic="a\"b\\c\nd"} 1"#), "{}", text(&series));
    }
}
