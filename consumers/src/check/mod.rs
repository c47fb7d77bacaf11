//! `millrace check`: tries everything that `millrace run` will need, and tells all that is wrong at once. It writes
//! nothing: not to Kafka, the registry or ClickHouse.

mod admin;
mod clickhouse;
mod defaults;
pub(crate) mod fields;
pub(crate) mod fit;
mod kafka;
pub(crate) mod registry;
mod report;
mod retention;
mod servers;
mod types;
pub(crate) mod widen;

use std::time::Duration;

use millrace_identity::causes;

use crate::{config::Config, tls::expiry};

pub use self::report::{Finding, Report, State};
use self::{report::Part, servers::Server};

/// Looks at everything that a valid configuration names; the parts concurrently, each bounded by `timeout`.
pub async fn check(config: &Config, timeout: Duration) -> Report {
    let admin = async {
        match &config.admin {
            Some(settings) => Some(admin::check(settings, timeout).await),
            None => None,
        }
    };
    let (kafka, (registry, schemas), servers, admin) = tokio::join!(
        kafka::check(config, timeout),
        registry::check(config, timeout),
        servers::check(config, timeout),
        admin,
    );
    let mut report = offline(config);
    [kafka, registry].into_iter().for_each(|part| report.add(part));
    let mut fits = Vec::new();
    for Server { part, tables, place } in servers {
        report.add(part);
        for ((topic, schemas), table) in config.topics.iter().zip(&schemas).zip(&tables) {
            let mut part = clickhouse::fit(topic, schemas, table.as_ref());
            part.placed(&place);
            fits.push(part);
        }
    }
    admin.into_iter().chain(fits).for_each(|part| report.add(part));
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
    for (has_expired, text) in expiry::complaints(config) {
        if has_expired { part.bad(text) } else { part.good(format!("but note: {text}")) }
    }
    let mut report = Report::default();
    report.add(part);
    report
}

/// `1 topic`, `2 topics`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}
