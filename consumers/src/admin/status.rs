//! The answer of `GET /v1/status`: what the threads of topics told last, and what was counted.

use std::{collections::BTreeMap, time::UNIX_EPOCH};

use millrace_pipeline::retry::BreakerState;
use serde::Serialize;

use super::board::{Board, Cell, Partition, State};
use crate::{
    build, retry,
    telemetry::{
        metrics as names,
        readings::Readings,
        recent::{self, Line},
    },
    time::format_time,
};

/// What is answered; counters are totals since the start of the process.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    version: &'static str,
    commit: &'static str,
    started_at: String,
    ready: bool,
    topics: Vec<TopicStatus>,
}

/// One topic.
#[derive(Debug, Serialize)]
pub(super) struct TopicStatus {
    topic: String,
    kafka_topic: String,
    table: String,
    state: State,
    reason: Option<&'static str>,
    why: Option<String>,
    owner: Option<String>,
    waiting_for: Option<String>,
    events: u64,
    rows: u64,
    duplicates: u64,
    dead_letters: BTreeMap<String, u64>,
    passed_over: u64,
    dedup_ids: u64,
    inserts_in_flight: u64,
    insert_retries: u64,
    fence_refusals: u64,
    rebalances: u64,
    breakers: Vec<BreakerStatus>,
    freshness_seconds: Freshness,
    partitions: Vec<Partition>,
    recent_errors: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct BreakerStatus {
    target: String,
    state: &'static str,
    since: String,
    error: Option<String>,
}

/// Ages of the last minute's events as their rows were acknowledged, in seconds.
#[derive(Debug, Serialize)]
struct Freshness {
    p50: Option<f64>,
    p99: Option<f64>,
}

/// The status of the whole process.
pub(super) fn status(board: &Board, readings: &Readings) -> Status {
    Status {
        version: build::VERSION,
        commit: build::COMMIT,
        started_at: board.started_at().to_owned(),
        ready: board.ready(),
        topics: board.topics().iter().map(|cell| topic_status(cell, readings)).collect(),
    }
}

/// The status of one topic.
pub(super) fn topic_status(cell: &Cell, readings: &Readings) -> TopicStatus {
    let view = cell.view();
    let topic = cell.label.as_str();
    let total = |name| readings.counter(name, Some(topic));
    let [p50, p99] = readings.freshness(topic, [0.5, 0.99]);
    let (reason, why) = view.stopped.clone().unzip();
    TopicStatus {
        topic: topic.to_owned(),
        kafka_topic: cell.kafka_topic.clone(),
        table: cell.table.clone(),
        // One that is starting has nobody yet who could say that it stands still.
        state: if view.state == State::Starting && cell.held() { State::Paused } else { view.state },
        reason,
        why,
        owner: view.owner.clone(),
        waiting_for: cell.waiting_for(),
        events: total(names::EVENTS),
        rows: total(names::ROWS_INSERTED),
        duplicates: total(names::DUPLICATES_DROPPED),
        dead_letters: readings.dead_letters(topic).into_iter().collect(),
        passed_over: total(names::PASSED_OVER),
        dedup_ids: view.dedup_ids,
        inserts_in_flight: view.inserts_in_flight,
        insert_retries: total(names::INSERT_RETRIES),
        fence_refusals: total(names::FENCE_REFUSALS),
        // Counted by topic, or for the process as a whole.
        rebalances: total(names::REBALANCES) + readings.counter(names::REBALANCES, None),
        breakers: view.breakers.iter().map(breaker).collect(),
        freshness_seconds: Freshness { p50, p99 },
        partitions: view.partitions.clone(),
        recent_errors: recent::lines(topic),
    }
}

fn breaker(status: &retry::Status) -> BreakerStatus {
    let state = match status.state {
        BreakerState::Closed => "closed",
        BreakerState::HalfOpen => "half_open",
        BreakerState::Open => "open",
    };
    let since_ms = status.since.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    BreakerStatus { target: status.target.clone(), state, since: format_time(since_ms), error: status.error.clone() }
}
