//! `millrace top`: a live view of a running process in the terminal. It only looks.

mod history;
mod keys;
mod view;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use self::{
    history::{History, Sample},
    keys::Wish,
    view::Screen,
};
use crate::{
    status::{Client, answer::Answer},
    time::now_ms,
};

const REFRESH: Duration = Duration::from_secs(1);

/// Shows until somebody has seen enough. The terminal is as it was afterwards, also after a panic or a signal.
///
/// # Errors
/// The terminal cannot be used.
pub async fn run(client: Client, url: String) -> Result<()> {
    // Restores the terminal when a panic comes, too.
    let terminal = ratatui::try_init().context("set up the terminal")?;
    let shown = show(terminal, client, url).await;
    ratatui::try_restore().context("restore the terminal")?;
    shown
}

async fn show(mut terminal: DefaultTerminal, client: Client, url: String) -> Result<()> {
    let mut interrupted = signal(SignalKind::interrupt()).context("watch for signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("watch for signals")?;
    let (mut answers, mut events) = (ask_for_ever(client), read_for_ever());
    let history = History::default();
    let mut screen = Screen { url, history, failure: None, topic: 0, scrolled: 0, frozen: false, now_ms: now_ms() };
    let began = Instant::now();
    loop {
        terminal
            .draw(|frame| view::draw(&screen, frame.area(), frame.buffer_mut()))
            .context("write to the terminal")?;
        tokio::select! {
            answer = answers.recv() => match answer.context("nobody asks any more")? {
                _ if screen.frozen => {}
                Ok(answer) => {
                    screen.history.push(Sample { at: began.elapsed(), answer });
                    (screen.failure, screen.now_ms) = (None, now_ms());
                }
                Err(error) => screen.failure = Some(format!("{error:#}")),
            },
            event = events.recv() => {
                let event = event.context("read the terminal")?;
                if keys::wish(&event).is_some_and(|wish| screen.follow(wish) == Wish::Quit) {
                    return Ok(());
                }
            }
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
        }
    }
}

/// Asks each second, or as often as answers come.
fn ask_for_ever(client: Client) -> mpsc::Receiver<Result<Answer>> {
    let (told, answers) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut each = interval(REFRESH);
        each.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            each.tick().await;
            let answer = client.status().await.map(|(_, answer)| answer);
            if told.send(answer).await.is_err() {
                return;
            }
        }
    });
    answers
}

/// Keys and changes of size, from a thread: reading them blocks.
fn read_for_ever() -> mpsc::Receiver<Event> {
    let (told, events) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if told.blocking_send(event).is_err() {
                return;
            }
        }
    });
    events
}
