//! Replays of dead letters, begun and stopped by command: one at a time for each topic, by the very code behind
//! `millrace dead replay`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use axum::http::StatusCode;
use millrace_pipeline::{reason::Reason, spec::BatchLimits};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::problem::Problem;
use crate::{
    audit::progress::Progress,
    bound::Bound,
    config::{Config, Topic, parse_duration},
    dead::filter::Filter,
    replay::{self, Options, Report, What},
    time::{format_time, now_ms},
};

/// Longest silence of a server.
const TIMEOUT: Duration = Duration::from_secs(120);
/// How long the answer to a stop waits for the replay to come to its end.
const STOPS_WITHIN: Duration = Duration::from_secs(2);
/// How long the end of the process waits for them.
const LEAVES_WITHIN: Duration = Duration::from_secs(5);
/// Longest pause between landings.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What to replay and how, as a command has it; what is left out is as for `millrace dead replay`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Wanted {
    dry_run: bool,
    reasons: Vec<String>,
    schema_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Edge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Edge>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_rows: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<String>,
}

/// Where to begin or to end.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Edge {
    Offset(i64),
    /// A time or an age.
    Time(String),
}

/// The last replay of each topic, by its label.
#[derive(Default)]
pub(super) struct Replays(Mutex<BTreeMap<String, Arc<Replay>>>);

struct Replay {
    wanted: Wanted,
    started_ms: i64,
    progress: Progress,
    stop: Arc<AtomicBool>,
    ended: watch::Sender<Option<Ended>>,
}

/// When, and how.
#[derive(Clone, Debug)]
struct Ended {
    at_ms: i64,
    /// The report, or why it could not begin.
    outcome: Result<Value, String>,
    finished: bool,
}

impl Replays {
    /// Begins one.
    pub(super) fn start(&self, config: &Arc<Config>, topic: &Topic, wanted: Wanted) -> Result<Value, Problem> {
        let (filter, options) = understood(&wanted)?;
        let mut replays = self.lock();
        if replays.get(&topic.label()).is_some_and(|replay| replay.runs()) {
            let detail = "a replay of this topic is running; wait for its end, or stop it with DELETE";
            return Err(Problem::new(StatusCode::CONFLICT, "replay_running", detail));
        }
        let replay = Arc::new(Replay {
            wanted,
            started_ms: now_ms(),
            progress: Progress::default(),
            stop: Arc::default(),
            ended: watch::Sender::new(None),
        });
        replays.insert(topic.label(), Arc::clone(&replay));
        let status = replay.status();
        let (config, topic) = (Arc::clone(config), topic.clone());
        tokio::spawn(async move { replay.run(&config, &topic, filter, options).await });
        Ok(status)
    }

    /// The last one of a topic.
    pub(super) fn status(&self, label: &str) -> Result<Value, Problem> {
        Ok(self.of(label)?.status())
    }

    /// Stops it at its next step, and waits a moment for that.
    pub(super) async fn stop(&self, label: &str) -> Result<Value, Problem> {
        let replay = self.of(label)?;
        replay.stop.store(true, Ordering::Relaxed);
        replay.until_ended(STOPS_WITHIN).await;
        Ok(replay.status())
    }

    /// Stops all.
    pub(super) async fn leave(&self) {
        let replays: Vec<Arc<Replay>> = self.lock().values().cloned().collect();
        replays.iter().for_each(|replay| replay.stop.store(true, Ordering::Relaxed));
        let ended = replays.iter().map(|replay| replay.until_ended(LEAVES_WITHIN));
        futures::future::join_all(ended).await;
    }

    fn of(&self, label: &str) -> Result<Arc<Replay>, Problem> {
        self.lock().get(label).cloned().ok_or_else(|| {
            let detail = "no replay of this topic was started since this process began";
            Problem::new(StatusCode::NOT_FOUND, "no_replay", detail)
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Replay>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Replay {
    async fn run(&self, config: &Config, topic: &Topic, filter: Filter, options: Options) {
        tracing::info!(topic = topic.label(), "a replay of dead letters begins by command");
        let outcome = replay::work(config, topic, What::Letters(filter), options, &self.progress, &self.stop).await;
        let finished = matches!(&outcome, Ok(Report { stopped: None, .. }));
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        match &outcome {
            Ok(report) => tracing::info!(
                topic = topic.label(),
                landed = report.total().landed,
                records = report.total().records,
                stopped = report.stopped,
                "a replay of dead letters has ended"
            ),
            Err(error) => tracing::warn!(topic = topic.label(), error, "a replay of dead letters could not begin"),
        }
        // The report makes its own JSON, for `millrace dead replay --json`.
        let outcome = outcome.map(|report| serde_json::from_str(&report.to_json()).unwrap_or(Value::Null));
        self.ended.send_replace(Some(Ended { at_ms: now_ms(), outcome, finished }));
    }

    fn runs(&self) -> bool {
        self.ended.borrow().is_none()
    }

    async fn until_ended(&self, patience: Duration) {
        let mut ended = self.ended.subscribe();
        _ = tokio::time::timeout(patience, ended.wait_for(Option::is_some)).await;
    }

    fn status(&self) -> Value {
        let ended = self.ended.borrow().clone();
        let state = match &ended {
            None if self.stop.load(Ordering::Relaxed) => "stopping",
            None => "running",
            Some(Ended { finished: true, .. }) => "finished",
            Some(Ended { outcome: Err(_), .. }) if !self.stop.load(Ordering::Relaxed) => "failed",
            Some(_) => "stopped",
        };
        let progress =
            self.progress.now().map(|(step, done, total)| json!({"step": step, "done": done, "total": total}));
        let (report, error) = match ended.as_ref().map(|ended| &ended.outcome) {
            None => (None, None),
            Some(Ok(report)) => (Some(report), None),
            Some(Err(error)) => (None, Some(error)),
        };
        json!({
            "state": state,
            "started_at": format_time(self.started_ms),
            "ended_at": ended.as_ref().map(|ended| format_time(ended.at_ms)),
            "wanted": self.wanted,
            "progress": progress,
            "report": report,
            "error": error,
        })
    }
}

fn understood(wanted: &Wanted) -> Result<(Filter, Options), Problem> {
    let refuse = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "body_invalid", detail);
    let known = || Reason::ALL.map(Reason::code).join(", ");
    let reason = |code: &String| {
        let reason = Reason::ALL.into_iter().find(|reason| reason.code() == code);
        reason.ok_or_else(|| refuse(format!("reasons: {code:?} is none; expected some of {}", known())))
    };
    let bound = |key: &str, edge: &Option<Edge>| {
        let bound = match edge {
            None => return Ok(None),
            Some(Edge::Offset(offset)) => (*offset >= 0).then_some(Bound::Offset(*offset)),
            Some(Edge::Time(text)) => Bound::parse(text, now_ms()).filter(|bound| matches!(bound, Bound::Time(_))),
        };
        bound.map(Some).ok_or_else(|| {
            refuse(format!("{key}: expected an offset (1200), a time (\"2026-01-31T12:00:00Z\") or an age (\"2h\")"))
        })
    };
    let pause = match &wanted.pause {
        None => Duration::from_secs(15),
        Some(text) => parse_duration(text)
            .filter(|pause| *pause <= LONGEST_PAUSE)
            .ok_or_else(|| refuse("pause: expected a duration such as \"15s\", an hour at most".to_owned()))?,
    };
    if wanted.partition.is_some_and(|partition| partition < 0) {
        return Err(refuse("partition: expected a number from 0".to_owned()));
    }
    if wanted.rate == Some(0) {
        return Err(refuse("rate: expected a number from 1".to_owned()));
    }
    let batch_rows = wanted.batch_rows.unwrap_or(400_000);
    if !(1..=BatchLimits::MAX_ROWS).contains(&batch_rows) {
        return Err(refuse(format!("batch_rows: expected a number from 1 to {}", BatchLimits::MAX_ROWS)));
    }
    let filter = Filter {
        reasons: wanted.reasons.iter().map(reason).collect::<Result<_, _>>()?,
        schema_ids: wanted.schema_ids.clone(),
        partition: wanted.partition,
        from: bound("from", &wanted.from)?,
        to: bound("to", &wanted.to)?,
    };
    let options =
        Options { dry_run: wanted.dry_run, rate: wanted.rate, batch_rows, pause, samples: 10, timeout: TIMEOUT };
    Ok((filter, options))
}
