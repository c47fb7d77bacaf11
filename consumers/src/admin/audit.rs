//! One log line for each command, whoever gave it and whatever became of it: target `millrace::audit`, written at every log
//! level. Never a token.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{auth::Caller, listener::Peer};

/// Refusals of callers that are not known, told in full within [`WINDOW`]; the others are counted.
const TOLD: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// What callers may have chosen themselves is cut here, in characters.
const LONGEST: usize = 200;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'r> {
    /// Of the API's operations.
    pub(super) action: &'static str,
    /// Of the topic, as the path has it.
    pub(super) topic: Option<&'r str>,
    /// From where.
    pub(super) peer: &'r Peer,
}

/// What a command was about besides its topic, such as the level; an answer carries it to here.
#[derive(Clone, Debug)]
pub(super) struct Detail(pub(super) String);

/// Writes the line of a caller who is known.
pub(super) fn tell(request: Request<'_>, caller: &Caller, outcome: &str, status: u16, detail: Option<&Detail>) {
    let Request { action, topic, peer } = request;
    tracing::info!(
        target: crate::telemetry::logs::AUDIT,
        who = plain(&caller.who),
        client = caller.client.as_deref().map(plain),
        certificate = peer.certificate.as_deref().map(plain),
        action,
        topic = topic.map(plain),
        detail = detail.map(|Detail(text)| plain(text)),
        outcome,
        status,
        remote = %peer.address,
        "command"
    );
}

/// Callers who are not known, so many a minute: nobody may fill the log without a token.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<(Option<Instant>, u32)>);

impl Strangers {
    /// Writes the line, or counts it.
    pub(super) fn tell(&self, request: Request<'_>, outcome: &str, status: u16) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, refused) = &mut *window;
        let over = began.is_none_or(|began| began.elapsed() >= WINDOW);
        let untold = if over { refused.saturating_sub(TOLD) } else { 0 };
        if over {
            (*began, *refused) = (Some(Instant::now()), 0);
        }
        *refused += 1;
        if *refused > TOLD {
            return;
        }
        let Request { action, topic, peer } = request;
        tracing::info!(
            target: crate::telemetry::logs::AUDIT,
            certificate = peer.certificate.as_deref().map(plain),
            action,
            topic = topic.map(plain),
            outcome,
            status,
            remote = %peer.address,
            untold,
            "refused"
        );
    }
}

/// Without control characters, which could pretend to be another line.
fn plain(text: &str) -> String {
    text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
