//! The operations of the API. Each but the description of itself is guarded by a permission; each that changes something is
//! told by [`super::audit`].

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, get, post, put},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    audit::{self, Detail, Strangers},
    auth::Gate,
    board::{Board, Cell, State as TopicState},
    body,
    listener::Peer,
    page,
    problem::{Code, Problem},
    queries::{self, Queries},
    replays::{Replays, Wanted},
    status::{self, status},
};
use crate::{
    config::{self, Config, LogLevel, Permission, Topic},
    telemetry::{logs, readings::Readings},
};

/// What the API is, as OpenAPI 3.1; kept by hand, and held against the routes by a test.
pub(super) const DESCRIPTION: &str = include_str!("../../assets/openapi.json");
/// How long the answer to a pause waits for the topic's thread to stand still.
const HOLDS_WITHIN: Duration = Duration::from_secs(3);
const TOPICS: &str = "/v1/topics/";

/// What operations work on.
pub(super) struct Api {
    config: Arc<Config>,
    board: Arc<Board>,
    readings: Readings,
    gate: Gate,
    replays: Replays,
    queries: Queries,
    strangers: Strangers,
}

/// What guards an operation.
#[derive(Clone)]
struct Guard {
    api: Arc<Api>,
    permission: Permission,
    action: &'static str,
}

type Shared = State<Arc<Api>>;
type Label = Result<Path<String>, PathRejection>;

impl Api {
    /// # Errors
    /// The certificates of ClickHouse cannot be used.
    pub(super) fn new(
        admin: &config::Admin,
        config: Arc<Config>,
        board: Arc<Board>,
        readings: Readings,
    ) -> anyhow::Result<Self> {
        let gate = Gate::new(admin.jwt.clone());
        let queries = Queries::new(&config.clickhouse, admin.request_timeout)?;
        let (replays, strangers) = (Replays::default(), Strangers::default());
        Ok(Self { config, board, readings, gate, replays, queries, strangers })
    }

    /// The named queries.
    pub(super) fn queries(&self) -> &Queries {
        &self.queries
    }

    /// Keeps the issuer's keys fresh, for ever.
    pub(super) async fn keep_fresh(&self) {
        self.gate.keep_fresh().await;
    }

    /// Stops what it has begun.
    pub(super) async fn leave(&self) {
        self.replays.leave().await;
    }

    fn cell(&self, label: Label) -> Result<&Arc<Cell>, Problem> {
        let Path(label) = label.map_err(|_| unknown_topic(&self.board))?;
        self.board.topic(&label).ok_or_else(|| unknown_topic(&self.board))
    }

    fn topic(&self, label: Label) -> Result<&Topic, Problem> {
        let label = &self.cell(label)?.label;
        self.config.topics.iter().find(|topic| topic.label() == *label).ok_or_else(|| unknown_topic(&self.board))
    }
}

/// All operations.
pub(super) fn routes(api: &Arc<Api>) -> Router {
    let guarded = |permission, action, operation: MethodRouter<Arc<Api>>| {
        let guard = Guard { api: Arc::clone(api), permission, action };
        operation.route_layer(from_fn_with_state(guard, admit))
    };
    use Permission::{DeadLettersReplay, ProcessControl, QueriesRead, StatusRead, TopicsControl};
    let replay = guarded(DeadLettersReplay, "replay.start", post(start_replay))
        .merge(guarded(DeadLettersReplay, "replay.status", get(replay_status)))
        .merge(guarded(DeadLettersReplay, "replay.stop", delete(stop_replay)));
    let log_level = guarded(StatusRead, "log_level.read", get(log_level)).merge(guarded(
        ProcessControl,
        "log_level.set",
        put(set_log_level),
    ));
    Router::new()
        .route("/v1/openapi.json", get(description))
        .route("/v1/status", guarded(StatusRead, "status", get(whole_status)))
        .route("/v1/queries", guarded(QueriesRead, "queries.list", get(queries::list)))
        .route("/v1/queries/{name}", guarded(QueriesRead, "queries.ask", get(queries::ask)))
        .route("/v1/topics/{topic}/pause", guarded(TopicsControl, "topic.pause", post(pause)))
        .route("/v1/topics/{topic}/resume", guarded(TopicsControl, "topic.resume", post(resume)))
        .route("/v1/topics/{topic}/dead-letters/replay", replay)
        .route("/v1/drain", guarded(ProcessControl, "process.drain", post(drain)))
        .route("/v1/log-level", log_level)
        .merge(page::routes(api.gate.wants_tokens()))
        .fallback(async || {
            Problem::new(StatusCode::NOT_FOUND, "no_such_path", "there is nothing here; see /v1/openapi.json")
        })
        .method_not_allowed_fallback(async || {
            let detail = "the path has no such method; see the header Allow and /v1/openapi.json";
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", detail)
        })
        .with_state(Arc::clone(api))
}

/// Lets a caller through who may do this, and tells of commands and of who was refused.
async fn admit(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let Guard { api, permission, action } = guard;
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let Some(peer) = request.extensions().get::<Peer>().cloned() else {
        return Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "this is a defect").into_response();
    };
    let topic = request.uri().path().strip_prefix(TOPICS).and_then(|rest| rest.split('/').next()).map(str::to_owned);
    let asked = audit::Request { action, topic: topic.as_deref(), peer: &peer };
    let caller = match api.gate.caller(request.headers(), request.uri(), reads).await {
        Ok(caller) => caller,
        Err(problem) => {
            api.strangers.tell(asked, problem.code, problem.status.as_u16());
            return problem.into_response();
        }
    };
    if !caller.may(permission) {
        let detail = format!("this needs the permission {}, which none of the token's roles has", permission.name());
        let problem = Problem::new(StatusCode::FORBIDDEN, "forbidden", detail);
        audit::tell(asked, &caller, problem.code, problem.status.as_u16(), None);
        return problem.into_response();
    }
    if reads {
        return next.run(request).await;
    }
    // The line is written also if the caller hangs up, or takes too long.
    let mut line = Line { asked, caller: &caller, done: false };
    let response = next.run(request).await;
    line.tell(&response);
    response
}

/// The line of a command that is under way.
struct Line<'r> {
    asked: audit::Request<'r>,
    caller: &'r super::auth::Caller,
    done: bool,
}

impl Line<'_> {
    fn tell(&mut self, response: &Response) {
        self.done = true;
        let outcome = response.extensions().get::<Code>().map_or("done", |Code(code)| code);
        audit::tell(self.asked, self.caller, outcome, response.status().as_u16(), response.extensions().get());
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.done {
            audit::tell(self.asked, self.caller, "given_up", StatusCode::REQUEST_TIMEOUT.as_u16(), None);
        }
    }
}

async fn description() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DESCRIPTION)
}

async fn whole_status(State(api): Shared) -> Response {
    json_of(StatusCode::OK, &status(&api.board, &api.readings))
}

async fn pause(State(api): Shared, label: Label) -> Result<Response, Problem> {
    hold(&api, label, true).await
}

async fn resume(State(api): Shared, label: Label) -> Result<Response, Problem> {
    hold(&api, label, false).await
}

async fn hold(api: &Api, label: Label, hold: bool) -> Result<Response, Problem> {
    let cell = api.cell(label)?;
    if !cell.hold(hold) {
        let detail = format!("the topic is {}; it reads nothing any more", state_of(cell));
        return Err(Problem::new(StatusCode::CONFLICT, "topic_ended", detail));
    }
    // In the answer's status it stands as it is by then.
    _ = tokio::time::timeout(HOLDS_WITHIN, cell.until_held(hold)).await;
    Ok(json_of(StatusCode::OK, &status::topic_status(cell, &api.readings)))
}

fn state_of(cell: &Cell) -> &'static str {
    if cell.view().state == TopicState::Stopped { "stopped" } else { "draining" }
}

async fn drain(State(api): Shared) -> Response {
    let asked = api.board.ask_to_drain();
    let mut response = json_of(StatusCode::ACCEPTED, &json!({ "draining": true }));
    response.extensions_mut().insert(Detail(if asked { "begins" } else { "was draining" }.to_owned()));
    response
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedLevel {
    level: String,
}

async fn log_level() -> Result<Response, Problem> {
    let level = logs::level().ok_or_else(|| no_logs("log lines were never set up"))?;
    Ok(json_of(StatusCode::OK, &json!({ "level": level_name(level) })))
}

async fn set_log_level(request: Request) -> Result<Response, Problem> {
    let WantedLevel { level } = body::read(request).await?;
    let Some((name, level)) = LogLevel::NAMES.iter().find(|(name, _)| *name == level) else {
        let names: Vec<&str> = LogLevel::NAMES.iter().map(|(name, _)| *name).collect();
        let detail = format!("level: expected one of {}", names.join(", "));
        return Err(Problem::new(StatusCode::BAD_REQUEST, "body_invalid", detail));
    };
    let before = logs::set_level(*level).map_err(no_logs)?;
    let mut response = json_of(StatusCode::OK, &json!({ "level": name, "before": level_name(before) }));
    response.extensions_mut().insert(Detail(format!("{name}, before {}", level_name(before))));
    Ok(response)
}

fn no_logs(error: impl std::fmt::Display) -> Problem {
    tracing::error!(error = %error, "the log level cannot be told or set");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the log level cannot be told or set; see the log")
}

fn level_name(level: LogLevel) -> &'static str {
    LogLevel::NAMES.iter().find(|(_, named)| *named == level).map_or("", |(name, _)| name)
}

async fn start_replay(State(api): Shared, label: Label, request: Request) -> Result<Response, Problem> {
    let topic = api.topic(label)?;
    let wanted: Wanted = body::read(request).await?;
    let detail = Detail(serde_json::to_string(&wanted).unwrap_or_default());
    let started = api.replays.start(&api.config, topic, wanted)?;
    let mut response = json_of(StatusCode::ACCEPTED, &started);
    response.extensions_mut().insert(detail);
    Ok(response)
}

async fn replay_status(State(api): Shared, label: Label) -> Result<Response, Problem> {
    Ok(json_of(StatusCode::OK, &api.replays.status(&api.cell(label)?.label)?))
}

async fn stop_replay(State(api): Shared, label: Label) -> Result<Response, Problem> {
    let label = &api.cell(label)?.label;
    Ok(json_of(StatusCode::OK, &api.replays.stop(label).await?))
}

fn unknown_topic(board: &Board) -> Problem {
    let known: Vec<&str> = board.topics().iter().map(|cell| cell.label.as_str()).collect();
    let detail = format!("no such topic in this process; it has {}", known.join(", "));
    Problem::new(StatusCode::NOT_FOUND, "no_such_topic", detail)
}

pub(super) fn json_of(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "an answer of the admin API cannot be written");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the answer cannot be written").into_response()
        }
    }
}
