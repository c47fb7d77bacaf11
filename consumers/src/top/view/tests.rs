//! The screen as text. `MILLRACE_BLESS=1` writes the pictures anew.

use std::{env, fs, path::Path, time::Duration};

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::{time::parse_time, top::history::Sample};

/// An answer with two topics, one of them in trouble.
pub(crate) fn example() -> Answer {
    serde_json::from_str(include_str!("../../status/example.json")).unwrap()
}

/// The example, and the same four seconds before with fewer events.
pub(crate) fn screen() -> Screen {
    let now = example();
    let mut before = now.clone();
    for topic in &mut before.topics {
        topic.events -= 8_000;
        topic.rows -= 7_600;
        topic.duplicates -= 396;
        for partition in &mut topic.partitions {
            partition.next_offset = partition.next_offset.map(|offset| offset - 1000);
        }
    }
    *before.topics[0].dead_letters.get_mut("truncated").unwrap() -= 4;
    let mut history = History::default();
    history.push(Sample { at: Duration::from_secs(1), answer: before });
    history.push(Sample { at: Duration::from_secs(5), answer: now });
    let now_ms = parse_time("2026-11-23T12:31:05Z").unwrap();
    let url = "http://127.0.0.1:9465".to_owned();
    Screen { url, history, failure: None, topic: 0, scrolled: 0, frozen: false, now_ms }
}

fn text(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(screen, frame.area(), frame.buffer_mut())).unwrap();
    let cells = terminal.backend().buffer().content();
    let lines =
        cells.chunks(usize::from(width).max(1)).map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>());
    lines.map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn is_as_painted(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/top/view/golden").join(name);
    if env::var_os("MILLRACE_BLESS").is_some() {
        fs::write(&file, text).unwrap();
        return;
    }
    let painted = fs::read_to_string(&file).unwrap_or_default();
    assert!(painted == text, "{} differs; look at it, then MILLRACE_BLESS=1:\n{text}", file.display());
}

#[test]
fn the_screen_is_as_painted() {
    let mut screen = screen();
    is_as_painted("orders_80x24.txt", &text(&screen, 80, 24));
    is_as_painted("orders_160x50.txt", &text(&screen, 160, 50));
    screen.scrolled = 5;
    screen.frozen = true;
    screen.failure = Some("http://127.0.0.1:9465/v1/status: no answer within 5s".to_owned());
    is_as_painted("orders_scrolled_80x24.txt", &text(&screen, 80, 24));
    screen.topic = 1;
    is_as_painted("payments_80x24.txt", &text(&screen, 80, 24));
}

#[test]
fn without_an_answer_it_says_whom_it_asks_or_why_there_is_none() {
    let mut screen = Screen { history: History::default(), ..screen() };
    assert_eq!(text(&screen, 40, 3), " asks http://127.0.0.1:9465 …\n\n q quit\n");
    screen.failure = Some("http://127.0.0.1:9465/v1/status: connection refused".to_owned());
    assert_eq!(text(&screen, 40, 3), " http://127.0.0.1:9465/v1/status:\n connection refused\n q quit\n");
}

#[test]
fn no_size_and_no_answer_is_too_small() {
    let mut empty = screen();
    let mut answer = example();
    answer.topics.clear();
    empty.history.push(Sample { at: Duration::from_secs(6), answer });
    for screen in [screen(), empty] {
        for (width, height) in [(0, 0), (1, 1), (20, 3), (80, 8), (300, 2)] {
            text(&screen, width, height);
        }
    }
}

#[test]
fn colours_tell_good_from_bad() {
    let screen = screen();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| draw(&screen, frame.area(), frame.buffer_mut())).unwrap();
    let buffer = terminal.backend().buffer();
    let colour_of = |words: &str| {
        let rows = (0..24).map(|y| (y, (0..80).map(|x| buffer[(x, y)].symbol()).collect::<String>()));
        let (y, row) = rows.into_iter().find(|(_, row)| row.contains(words)).unwrap();
        let x = row[..row.find(words).unwrap()].chars().count();
        buffer[(u16::try_from(x).unwrap(), y)].fg
    };
    assert_eq!(colour_of("not ready"), Color::Red);
    assert_eq!(colour_of("running"), Color::Green);
    assert_eq!(colour_of("taking_over"), Color::Yellow);
    assert_eq!(colour_of("breaker registry open"), Color::Red);
}
