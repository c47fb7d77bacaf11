//! Whether a table lets rows go whose ids are still needed: what is read back at a take-over comes from the table, so an event
//! that comes again within the window lands again if its row is gone. It changes nothing.

use std::time::Duration;

use clickhouse::{Client, Row, error::Error};
use serde::Deserialize;

use super::report::Part;
use crate::{
    clickhouse::client::within,
    config::{ClickHouse, Topic},
};

/// Intervals as the server writes them, and their shortest lengths in days.
const UNITS: [(&str, f64); 8] = [
    ("Second", 1.0 / 86_400.0),
    ("Minute", 1.0 / 1_440.0),
    ("Hour", 1.0 / 24.0),
    ("Day", 1.0),
    ("Week", 7.0),
    ("Month", 28.0),
    ("Quarter", 90.0),
    ("Year", 365.0),
];

#[derive(Row, Deserialize)]
struct Engine {
    engine_full: String,
}

/// Compares the table's TTL with the window of its topic.
pub(super) async fn check(part: &mut Part, client: &Client, settings: &ClickHouse, topic: &Topic, timeout: Duration) {
    let engine = client
        .query("SELECT engine_full FROM system.tables WHERE database = ? AND name = ?")
        .bind(&settings.database)
        .bind(&topic.table)
        .fetch_optional::<Engine>();
    match within(timeout, engine).await {
        Ok(Some(Engine { engine_full })) => judge(part, &topic.table, &engine_full, topic.spec.dedup.window),
        // A table that is not there, or cannot be looked at, has been told already.
        Ok(None) | Err(Error::BadResponse(_)) => {}
        Err(error) => part.bad(format!("table {}: its TTL cannot be asked for: {error}", topic.table)),
    }
}

fn judge(part: &mut Part, table: &str, engine_full: &str, window: Duration) {
    let Some(ttl) = ttl(engine_full) else { return };
    let days = window.as_secs_f64() / 86_400.0;
    match shortest(ttl) {
        Some(kept) if kept <= days => part.bad(format!(
            "table {table} lets rows go after {kept:.1} days (TTL {ttl}), and dedup.window is {days:.1} days: an event that comes \
             again within the window lands again if its row is gone; make the TTL longer than the window, or the window shorter"
        )),
        Some(kept) if kept.is_infinite() => {}
        Some(kept) => part.good(format!("table {table} keeps rows for {kept:.0} days, dedup.window is {days:.1} days")),
        None => part.skipped(format!(
            "table {table}: TTL {ttl} is not understood; rows have to be kept for longer than dedup.window ({days:.1} days)"
        )),
    }
}

/// The clause, if there is one.
fn ttl(engine_full: &str) -> Option<&str> {
    let (_, rest) = engine_full.split_once(" TTL ")?;
    Some(rest.split(" SETTINGS ").next().unwrap_or(rest).trim())
}

/// Days until the first rule that deletes; `None` if an interval is none of the usual ones.
fn shortest(ttl: &str) -> Option<f64> {
    let mut shortest: Option<f64> = None;
    for rule in rules(ttl) {
        if [" TO DISK ", " TO VOLUME ", " RECOMPRESS "].iter().any(|moves| rule.contains(moves)) {
            continue;
        }
        let (_, interval) = rule.split_once("toInterval")?;
        let (unit, rest) = interval.split_once('(')?;
        let (_, days) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let number: f64 = rest.split(')').next()?.parse().ok()?;
        let kept = number * days;
        shortest = Some(shortest.map_or(kept, |other| other.min(kept)));
    }
    Some(shortest.unwrap_or(f64::INFINITY))
}

/// Rules are separated by commas outside parentheses.
fn rules(ttl: &str) -> Vec<String> {
    let (mut rules, mut depth) = (vec![String::new()], 0);
    for c in ttl.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match c {
            ',' if depth == 0 => rules.push(String::new()),
            c => rules.last_mut().into_iter().for_each(|rule| rule.push(c)),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::State;

    fn judged(ttl: &str, window_days: u64) -> Vec<State> {
        let engine =
            format!("MergeTree PARTITION BY toYYYYMM(timestamp) ORDER BY a{ttl} SETTINGS index_granularity = 8192");
        let mut part = Part::new("clickhouse");
        judge(&mut part, "orders", &engine, Duration::from_secs(86_400 * window_days));
        part.states().to_vec()
    }

    #[test]
    fn a_ttl_has_to_be_longer_than_the_window() {
        assert_eq!(judged("", 7), []);
        assert_eq!(judged(" TTL toDateTime(timestamp) + toIntervalDay(1) TO DISK 'cold'", 7), []);
        for (ttl, expected) in [
            ("toDateTime(timestamp) + toIntervalMonth(25)", State::Good),
            ("toDateTime(timestamp) + toIntervalDay(8)", State::Good),
            ("toDateTime(timestamp) + toIntervalDay(7)", State::Bad),
            ("toDateTime(timestamp) + toIntervalHour(8)", State::Bad),
            (
                "toDateTime(timestamp) + toIntervalYear(1), toDateTime(_ingested_at) + toIntervalDay(1) WHERE a = 1",
                State::Bad,
            ),
            ("toDateTime(timestamp) + a", State::Skipped),
        ] {
            assert_eq!(judged(&format!(" TTL {ttl}"), 7), [expected], "{ttl}");
        }
    }
}
