//! A status as a few lines of text, for a terminal or a message. What is well takes a line; what is not is named.

use std::fmt::Write as _;

use super::{
    answer::{Answer, Topic},
    units::{count, offset, seconds},
};
use crate::{build, time::parse_time};

/// The lines; `now_ms` is in milliseconds since 1970.
pub fn lines(answer: &Answer, now_ms: i64) -> String {
    let ready = if answer.ready { "ready" } else { "not ready" };
    let commit = build::short(&answer.commit);
    let mut text =
        format!("millrace {} (commit {commit}), up {}: {ready}\n", answer.version, seconds(uptime(answer, now_ms)));
    for topic in &answer.topics {
        add_topic(&mut text, topic);
    }
    text
}

/// Seconds since the process was started.
pub fn uptime(answer: &Answer, now_ms: i64) -> Option<f64> {
    parse_time(&answer.started_at).map(|started_ms| (now_ms - started_ms) as f64 / 1000.0)
}

/// The reasons of dead letters with their counts, the most frequent first; empty without any.
pub fn reasons(topic: &Topic) -> String {
    let mut reasons: Vec<_> = topic.dead_letters.iter().filter(|(_, letters)| **letters > 0).collect();
    reasons.sort_by_key(|(_, letters)| std::cmp::Reverse(**letters));
    let words: Vec<String> = reasons.iter().map(|(reason, letters)| format!("{reason} {}", count(**letters))).collect();
    words.join(", ")
}

/// Records behind the ends of the partitions, in words.
pub fn lag(topic: &Topic) -> String {
    let known: Vec<i64> = topic.partitions.iter().filter_map(|partition| partition.lag_events).collect();
    let events = format!("{} events", offset(Some(known.iter().sum())));
    match known.len() {
        all if all == topic.partitions.len() => events,
        0 => "not known".to_owned(),
        _ => format!("at least {events}"),
    }
}

fn add_topic(text: &mut String, topic: &Topic) {
    let Topic { topic: name, kafka_topic, table, state, .. } = topic;
    // A String takes whatever is written.
    _ = write!(text, "{name} ({kafka_topic} into {table}): {state}");
    let freshness = topic.freshness_seconds;
    _ = writeln!(
        text,
        "; lag {}, {}; freshness p50 {}, p99 {}",
        lag(topic),
        seconds(topic.lag_seconds()),
        seconds(freshness.p50),
        seconds(freshness.p99)
    );
    for (what, words) in [("reason", &topic.reason), ("why", &topic.why), ("waits for", &topic.waiting_for)] {
        if let Some(words) = words {
            _ = writeln!(text, "  {what}: {words}");
        }
    }
    _ = writeln!(
        text,
        "  {} events: {} rows, {} duplicates, {} dead letters, {} passed over",
        count(topic.events),
        count(topic.rows),
        count(topic.duplicates),
        count(topic.dead_letters()),
        count(topic.passed_over)
    );
    if topic.dead_letters() > 0 {
        _ = writeln!(text, "  dead letters: {}", reasons(topic));
    }
    let not_running = topic.partitions.iter().filter(|partition| partition.state != "running");
    let not_running: Vec<String> =
        not_running.map(|partition| format!("{} {}", partition.partition, partition.state)).collect();
    _ = match not_running.is_empty() {
        true => writeln!(text, "  {} partitions", topic.partitions.len()),
        false => writeln!(text, "  {} partitions, of them {}", topic.partitions.len(), not_running.join(", ")),
    };
    for breaker in topic.breakers.iter().filter(|breaker| breaker.state != "closed") {
        let error = breaker.error.as_deref().unwrap_or("no error told");
        _ = writeln!(text, "  breaker {}: {} since {}: {error}", breaker.target, breaker.state, breaker.since);
    }
    for problem in &topic.recent_errors {
        _ = write!(text, "  {} {} {}", problem.at, problem.level, problem.message.replace(char::is_control, " "));
        _ = if problem.repeated > 0 { writeln!(text, " (x{})", problem.repeated + 1) } else { writeln!(text) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_is_named() {
        let answer: Answer = serde_json::from_str(include_str!("example.json")).unwrap();
        let now_ms = parse_time("2026-11-23T12:31:05Z").unwrap();
        assert_eq!(
            lines(&answer, now_ms),
            "millrace 0.1.0 (commit 0123456), up 3h 12m: not ready\n\
             orders (orders into orders): running; lag at least 12,530 events, 410 ms; freshness p50 593 ms, p99 1.5 s\n  \
             12,345,678 events: 11,727,353 rows, 617,283 duplicates, 1,042 dead letters, 0 passed over\n  \
             dead letters: truncated 542, unknown_schema_id 500\n  \
             8 partitions, of them 3 taking_over\n  \
             breaker registry: open since 2026-11-23T12:30:12Z: connection refused\n  \
             2026-11-23T12:30:59.120Z WARN schema id 7 cannot be had from the registry: connection refused; it is asked \
             again, and partition 3 waits (x47)\n  \
             2026-11-23T12:30:12.001Z ERROR registry: circuit breaker opens after 5 failures\n\
             payments (payments into payments): stopped; lag 0 events, -; freshness p50 -, p99 -\n  \
             reason: no_table\n  \
             why: table millrace.payments is not there; `millrace migrate --apply` makes it\n  \
             waits for: topic payments: stopped\n  \
             40,000 events: 39,000 rows, 1,000 duplicates, 0 dead letters, 0 passed over\n  \
             0 partitions\n"
        );
    }

    #[test]
    fn all_is_well_when_it_is_ready_and_each_topic_runs() {
        let mut answer: Answer = serde_json::from_str(include_str!("example.json")).unwrap();
        answer.topics.pop();
        assert!(!answer.is_well(), "not ready");
        answer.ready = true;
        assert!(answer.is_well());
        answer.topics[0].state = "paused".to_owned();
        assert!(!answer.is_well());
    }
}
