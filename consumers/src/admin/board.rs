//! What the threads of topics tell of themselves for `GET /v1/status`, and the way by which commands reach them. It knows
//! neither HTTP nor tokens, and nothing here is on the way of an event: a topic tells once a second.

use std::sync::{Arc, Mutex, PoisonError, mpsc};

use serde::Serialize;
use tokio::sync::{Notify, watch};

use crate::{config::Topic, http::Health, retry, run::crew::Told, time};

/// All topics of this process.
pub struct Board {
    started_at: String,
    topics: Vec<Arc<Cell>>,
    drain: Notify,
    draining: watch::Sender<bool>,
}

/// One topic.
pub struct Cell {
    /// What log lines and metrics call it.
    pub label: String,
    /// Kafka topic.
    pub kafka_topic: String,
    /// ClickHouse table, without its database.
    pub table: String,
    health: Arc<Health>,
    told: watch::Sender<Arc<View>>,
    control: Mutex<Control>,
}

/// The thread's ear, once there is a thread, and whether it is to stand still.
#[derive(Default)]
struct Control {
    tell: Option<mpsc::Sender<Told>>,
    hold: bool,
}

/// What a topic's thread tells of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// What it does.
    pub state: State,
    /// Code of the reason and its text, if it is stopped.
    pub stopped: Option<(&'static str, String)>,
    /// Name in its claims.
    pub owner: Option<String>,
    /// Ids in the deduplication index.
    pub dedup_ids: u64,
    /// Inserts under way.
    pub inserts_in_flight: u64,
    /// Circuit breakers of what it calls.
    pub breakers: Vec<retry::Status>,
    /// Of this process, by number.
    pub partitions: Vec<Partition>,
}

/// What a topic does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for what it needs before it joins the group.
    #[default]
    Starting,
    /// Reads, or would if there were anything.
    Running,
    /// Was told to read nothing.
    Paused,
    /// Lands what it has read, and leaves.
    Draining,
    /// Has ended.
    Stopped,
}

/// One partition of this process.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Partition {
    /// Its number.
    pub partition: i32,
    /// `taking_over`, `running`, `paused` (by command), `blocked` (nothing can be taken: inserts are in use, or a lookup is
    /// waited for) or `waiting_for_schema`.
    pub state: &'static str,
    /// Of its claim.
    pub epoch: Option<u64>,
    /// First offset that has not been read.
    pub next_offset: Option<i64>,
    /// What was last committed here.
    pub committed: Option<i64>,
    /// Offset of the next record to be written to it.
    pub high_watermark: Option<i64>,
    /// Events not read yet.
    pub lag_events: Option<i64>,
    /// Age of the oldest of them, in seconds.
    pub lag_seconds: Option<f64>,
}

impl Board {
    /// A board of topics that are all starting.
    pub fn new(topics: &[Topic], health: &[Arc<Health>]) -> Self {
        let cell = |(topic, health): (&Topic, &Arc<Health>)| {
            Arc::new(Cell {
                label: topic.label(),
                kafka_topic: topic.spec.topic.clone(),
                table: topic.table.clone(),
                health: Arc::clone(health),
                told: watch::Sender::default(),
                control: Mutex::default(),
            })
        };
        Self {
            started_at: time::format_time(time::now_ms()),
            topics: topics.iter().zip(health).map(cell).collect(),
            drain: Notify::new(),
            draining: watch::Sender::new(false),
        }
    }

    /// All topics, in the order of the configuration.
    pub fn topics(&self) -> &[Arc<Cell>] {
        &self.topics
    }

    /// The topic of this label.
    pub fn topic(&self, label: &str) -> Option<&Arc<Cell>> {
        self.topics.iter().find(|cell| cell.label == label)
    }

    /// When this process began, as RFC 3339.
    pub fn started_at(&self) -> &str {
        &self.started_at
    }

    /// Whether every topic processes events, or would if there were any.
    pub fn ready(&self) -> bool {
        self.topics.iter().all(|cell| cell.health.waiting_for().is_none())
    }

    /// Asks the process to drain, as SIGTERM does; `false` if it does so already.
    pub fn ask_to_drain(&self) -> bool {
        if *self.draining.borrow() {
            return false;
        }
        self.drain.notify_one();
        true
    }

    /// Waits until somebody asks the process to drain.
    pub(crate) async fn asked_to_drain(&self) {
        self.drain.notified().await;
    }

    /// The process is leaving.
    pub(crate) fn drains(&self) {
        self.draining.send_replace(true);
        for cell in &self.topics {
            cell.update(|view| match view.state {
                State::Starting => view.state = State::Stopped,
                State::Running | State::Paused => view.state = State::Draining,
                State::Draining | State::Stopped => {}
            });
        }
    }
}

impl Cell {
    /// What the thread has told last.
    pub fn view(&self) -> Arc<View> {
        self.told.borrow().clone()
    }

    /// What is waited for before events are processed.
    pub fn waiting_for(&self) -> Option<String> {
        self.health.waiting_for()
    }

    /// The thread tells.
    pub(crate) fn tell(&self, view: View) {
        self.told.send_replace(Arc::new(view));
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut View)) {
        self.told.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// The topic's thread begins to listen; it hears at once if it is to stand still.
    pub(crate) fn listens(&self, tell: mpsc::Sender<Told>) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if control.hold {
            _ = tell.send(Told::Hold(true));
        }
        control.tell = Some(tell);
    }

    /// Tells the topic to read nothing, or to read on; one that is starting stands still from its first moment. `false` if
    /// it is leaving or has ended.
    pub fn hold(&self, hold: bool) -> bool {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.told.borrow().state, State::Draining | State::Stopped) {
            return false;
        }
        control.hold = hold;
        control.tell.as_ref().is_none_or(|tell| tell.send(Told::Hold(hold)).is_ok())
    }

    /// Whether it was told last to stand still.
    pub fn held(&self) -> bool {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).hold
    }

    /// Waits until the topic does as `hold` says; it has ended, or is starting, else.
    pub async fn until_held(&self, hold: bool) -> Arc<View> {
        let mut told = self.told.subscribe();
        let done = |view: &Arc<View>| match view.state {
            State::Paused => hold,
            State::Running => !hold,
            State::Starting | State::Draining | State::Stopped => true,
        };
        // The sender lives as long as this cell.
        told.wait_for(done).await.map_or_else(|_| Arc::default(), |view| Arc::clone(&view))
    }
}
