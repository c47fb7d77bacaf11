//! What keys wish for, and what a wish does to the screen.

use ratatui::crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};

use super::view::Screen;

/// Partitions that PgUp and PgDn go over.
const PAGE: isize = 10;

/// What somebody wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing more.
    Quit,
    /// Another topic, so many further.
    Topic(isize),
    /// Partitions further down, or up.
    Scroll(isize),
    /// What is there now, until asked again; or news again.
    Freeze,
}

/// What an event of the terminal means; `None`: nothing, or only that all is to be drawn anew.
pub(super) fn wish(event: &Event) -> Option<Wish> {
    let Event::Key(key) = event else { return None };
    if key.kind == KeyEventKind::Release {
        return None;
    }
    // A terminal in raw mode sends no signal for it.
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Wish::Quit);
    }
    Some(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Wish::Quit,
        KeyCode::Tab | KeyCode::Right => Wish::Topic(1),
        KeyCode::BackTab | KeyCode::Left => Wish::Topic(-1),
        KeyCode::Down => Wish::Scroll(1),
        KeyCode::Up => Wish::Scroll(-1),
        KeyCode::PageDown => Wish::Scroll(PAGE),
        KeyCode::PageUp => Wish::Scroll(-PAGE),
        KeyCode::Home => Wish::Scroll(isize::MIN),
        KeyCode::Char('p') => Wish::Freeze,
        _ => return None,
    })
}

impl Screen {
    /// Does it to the screen, and says what was done.
    pub(super) fn follow(&mut self, wish: Wish) -> Wish {
        let (topics, partitions) = self.history.last().map_or((0, 0), |sample| {
            let topics = &sample.answer.topics;
            (topics.len(), topics.get(self.topic).map_or(0, |topic| topic.partitions.len()))
        });
        match wish {
            Wish::Quit => {}
            Wish::Topic(by) if topics > 0 => {
                self.topic = (self.topic.min(topics - 1) + topics).saturating_add_signed(by) % topics;
                self.scrolled = 0;
            }
            Wish::Topic(_) => {}
            Wish::Scroll(by) => {
                self.scrolled = self.scrolled.saturating_add_signed(by).min(partitions.saturating_sub(1));
            }
            Wish::Freeze => self.frozen = !self.frozen,
        }
        wish
    }
}

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::KeyEvent;

    use super::*;
    use crate::top::view::tests::screen;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Wish> {
        wish(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn keys_mean_what_the_last_line_of_the_screen_says() {
        for (code, meant) in [
            (KeyCode::Char('q'), Some(Wish::Quit)),
            (KeyCode::Tab, Some(Wish::Topic(1))),
            (KeyCode::PageDown, Some(Wish::Scroll(10))),
            (KeyCode::Char('p'), Some(Wish::Freeze)),
            (KeyCode::Char('c'), None),
        ] {
            assert_eq!(key(code, KeyModifiers::NONE), meant, "{code:?}");
        }
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::Quit));
        assert_eq!(wish(&Event::Resize(80, 24)), None);
    }

    #[test]
    fn topics_go_round_and_partitions_end() {
        let mut screen = screen();
        let topics = screen.history.last().unwrap().answer.topics.len();
        for expected in (1..topics).chain([0, 1]) {
            screen.follow(Wish::Topic(1));
            assert_eq!(screen.topic, expected);
        }
        screen.follow(Wish::Topic(-1));
        screen.follow(Wish::Topic(-1));
        assert_eq!(screen.topic, topics - 1);
        screen.topic = 0;
        let partitions = screen.history.last().unwrap().answer.topics[0].partitions.len();
        screen.follow(Wish::Scroll(1));
        assert_eq!(screen.scrolled, 1);
        for _ in 0..20 {
            screen.follow(Wish::Scroll(PAGE));
        }
        assert_eq!(screen.scrolled, partitions - 1);
        screen.follow(Wish::Scroll(isize::MIN));
        assert_eq!(screen.scrolled, 0);
    }
}
