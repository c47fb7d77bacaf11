//! `millrace check`: tries everything that `millrace run` will need, and tells all that is wrong at once. It writes
//! nothing: not to Kafka, the registry or ClickHouse.

mod clickhouse;
mod fields;
mod kafka;
mod registry;
mod report;
mod types;

use std::time::Duration;

use crate::config::Config;

use self::report::Part;
pub use self::report::{Finding, Report, State};

/// Looks at everything that a valid configuration names; the parts concurrently, each bounded by `timeout`.
pub async fn check(config: &Config, timeout: Duration) -> Report {
    let (kafka, (registry, schemas), (clickhouse, tables)) = tokio::join!(
        kafka::check(config, timeout),
        registry::check(config, timeout),
        clickhouse::check(config, timeout),
    );
    let mut report = offline(config);
    for part in [kafka, registry, clickhouse] {
        report.add(part);
    }
    for ((topic, schemas), table) in config.topics.iter().zip(&schemas).zip(&tables) {
        report.add(clickhouse::fit(topic, schemas, table.as_ref()));
    }
    report
}

/// What can be said without any connection.
pub fn offline(config: &Config) -> Report {
    let mut part = Part::new("config");
    let topics: Vec<&str> = config.topics.iter().map(|topic| topic.spec.topic.as_str()).collect();
    part.good(format!("valid, with {}: {}", count(topics.len(), "topic"), topics.join(", ")));
    for warning in &config.warnings {
        part.good(format!("but note: {warning}"));
    }
    kafka::properties(&mut part, &config.kafka);
    let mut report = Report::default();
    report.add(part);
    report
}

/// `1 topic`, `2 topics`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The causes of an error in one line, outermost first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat the cause in their own message.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.replace(['\n', '\r'], " ")
}
