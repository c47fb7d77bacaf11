//! The port that operators see: `/metrics`, `/healthz`, `/readyz`. It knows neither Kafka nor ClickHouse; it is told.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use crate::telemetry::metrics::Rendering;

const FOLD_EVERY: Duration = Duration::from_secs(5);

/// What one running part, such as a topic's thread, tells the outside.
pub struct Health {
    start: Instant,
    stale_after: Duration,
    last_beat_ms: AtomicU64,
    waiting_for: Mutex<Option<String>>,
    stopped: AtomicBool,
}

impl Health {
    /// Alive from now; not ready, with this reason. Without a beat for `stale_after` it counts as stuck.
    pub fn new(stale_after: Duration, waiting_for: impl Into<String>) -> Self {
        Self {
            start: Instant::now(),
            stale_after,
            last_beat_ms: AtomicU64::new(0),
            waiting_for: Mutex::new(Some(waiting_for.into())),
            stopped: AtomicBool::new(false),
        }
    }

    /// The poll loop has come round; cheap enough for every round.
    pub fn beat(&self) {
        self.last_beat_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Events are being processed, or would be if there were any.
    pub fn ready(&self) {
        *self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Why no events are processed: what is waited for, with progress if there is any.
    pub fn not_ready(&self, waiting_for: impl Into<String>) {
        *self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner) = Some(waiting_for.into());
    }

    /// The part has ended for good, and why: it is not ready. A restart alone would not help it and would interrupt the
    /// others, so it counts as alive.
    pub fn stopped(&self, why: impl Into<String>) {
        self.stopped.store(true, Ordering::Relaxed);
        self.not_ready(why);
    }

    /// What is waited for, unless it is ready.
    pub fn waiting_for(&self) -> Option<String> {
        self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn silent_for(&self) -> Duration {
        if self.stopped.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        Duration::from_millis(self.now_ms().saturating_sub(self.last_beat_ms.load(Ordering::Relaxed)))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A port that is taken and not yet answered.
pub struct Port {
    listener: TcpListener,
}

/// Takes the port.
///
/// # Errors
/// Somebody else has it, or the address is none of this machine's.
pub async fn bind(listen: SocketAddr) -> Result<Port> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("listen on {listen} (key http.listen); choose a free address and port, or 0 for any")
    })?;
    Ok(Port { listener })
}

impl Port {
    /// Where it listens, with the port that the system chose for 0.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().context("ask for the address listened on")
    }

    /// Answers until `shutdown` ends.
    ///
    /// # Errors
    /// Those of the operating system.
    pub async fn serve(
        self,
        health: Vec<Arc<Health>>,
        rendering: Rendering,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let folding = rendering.clone();
        let fold = tokio::spawn(async move {
            let mut every = tokio::time::interval(FOLD_EVERY);
            loop {
                every.tick().await;
                folding.fold();
            }
        });
        let served = axum::serve(self.listener, routes(health, rendering)).with_graceful_shutdown(shutdown).await;
        fold.abort();
        served.context("serve metrics and health")
    }
}

fn routes(health: Vec<Arc<Health>>, rendering: Rendering) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(rendering);
    Router::new().route("/healthz", get(alive)).route("/readyz", get(ready)).with_state(health).merge(metrics)
}

async fn metrics(State(rendering): State<Rendering>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], rendering.render())
}

async fn alive(State(parts): State<Vec<Arc<Health>>>) -> (StatusCode, String) {
    let stuck = parts.iter().find(|part| part.silent_for() > part.stale_after);
    if let Some(stuck) = stuck {
        let text = format!("a poll loop has not come round for {:.1} s\n", stuck.silent_for().as_secs_f64());
        return (StatusCode::SERVICE_UNAVAILABLE, text);
    }
    (StatusCode::OK, "alive\n".to_owned())
}

async fn ready(State(parts): State<Vec<Arc<Health>>>) -> (StatusCode, String) {
    let reasons: Vec<String> = parts.iter().filter_map(|part| part.waiting_for()).collect();
    if reasons.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_tells_what_is_waited_for_and_health_whether_the_loop_comes_round() {
        let orders = Arc::new(Health::new(Duration::from_secs(30), "orders: reading customers"));
        let payments = Arc::new(Health::new(Duration::from_secs(30), "payments: starting"));
        let parts = vec![orders.clone(), payments.clone()];
        assert_eq!(
            ready(State(parts.clone())).await,
            (StatusCode::SERVICE_UNAVAILABLE, "orders: reading customers\npayments: starting\n".to_owned())
        );
        orders.ready();
        assert_eq!(ready(State(parts.clone())).await.1, "payments: starting\n");
        payments.ready();
        assert_eq!(ready(State(parts.clone())).await.0, StatusCode::OK);
        assert_eq!(alive(State(parts)).await.0, StatusCode::OK);

        let stuck = Arc::new(Health {
            start: Instant::now() - Duration::from_secs(9),
            ..Health::new(Duration::from_secs(5), "")
        });
        assert_eq!(alive(State(vec![stuck.clone()])).await.0, StatusCode::SERVICE_UNAVAILABLE);
        stuck.beat();
        assert_eq!(alive(State(vec![stuck])).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_part_that_has_stopped_is_not_ready_and_not_stuck() {
        let stopped = Arc::new(Health {
            start: Instant::now() - Duration::from_secs(9),
            ..Health::new(Duration::from_secs(5), "")
        });
        stopped.stopped("topic payments: stopped (start): no table");
        let (status, text) = ready(State(vec![stopped.clone()])).await;
        assert_eq!((status, &*text), (StatusCode::SERVICE_UNAVAILABLE, "topic payments: stopped (start): no table\n"));
        assert_eq!(alive(State(vec![stopped])).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_that_names_it() {
        let first = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = first.address().unwrap();
        let error = format!("{:#}", bind(address).await.err().unwrap());
        assert!(error.contains(&address.to_string()) && error.contains("http.listen"), "{error}");
    }
}
