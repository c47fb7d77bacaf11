//! The screen of `millrace top`: a pure function of what is known into cells. It asks nobody and knows no clock.

use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::history::{History, Rates};
use crate::{
    build,
    status::{
        answer::{Answer, Breaker, Partition, Topic},
        text::{lag, reasons, uptime},
        units::{count, offset, rate, seconds, time_of_day},
    },
};

const GOOD: Style = Style::new().fg(Color::Green);
const UNSURE: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);
const QUIET: Style = Style::new().add_modifier(Modifier::DIM);
const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);

/// Everything that is shown.
pub(super) struct Screen {
    /// Who is asked.
    pub(super) url: String,
    /// What was answered.
    pub(super) history: History,
    /// Why the last question was not answered.
    pub(super) failure: Option<String>,
    /// Which topic is shown, from 0.
    pub(super) topic: usize,
    /// Partitions above the first one shown.
    pub(super) scrolled: usize,
    /// Answers are not taken.
    pub(super) frozen: bool,
    /// Milliseconds since 1970.
    pub(super) now_ms: i64,
}

/// Writes the screen into `area`.
pub(super) fn draw(screen: &Screen, area: Rect, buffer: &mut Buffer) {
    let Some(sample) = screen.history.last() else {
        let waiting = format!("asks {} …", screen.url);
        let words = screen.failure.as_deref().map_or(Span::from(waiting), |failure| Span::styled(failure, BAD));
        for (row, text) in area.rows().zip(wrapped(&words.content, area.width)) {
            buffer.set_line(row.x, row.y, &Line::styled(text, words.style), row.width);
        }
        put(buffer, bottom(area), Line::styled(" q quit", QUIET));
        return;
    };
    let answer = &sample.answer;
    let topic = answer.topics.get(screen.topic.min(answer.topics.len().saturating_sub(1)));
    let (head, body) = (head(screen, answer), topic.map(|topic| body(screen, topic, area.width)));
    let body = body.unwrap_or_default();
    let problems = topic.map(|topic| problems(topic, area.height)).unwrap_or_default();
    let rows = |lines: &[Line]| Constraint::Length(u16::try_from(lines.len()).unwrap_or(u16::MAX));
    let [head_at, body_at, partitions_at, problems_at, foot] =
        Layout::vertical([rows(&head), rows(&body), Constraint::Min(0), rows(&problems), Constraint::Length(1)])
            .areas(area);
    put_all(buffer, head_at, head);
    put_all(buffer, body_at, body);
    if let Some(topic) = topic {
        partitions(screen, topic, partitions_at, buffer);
    }
    put_all(buffer, problems_at, problems);
    put(buffer, foot, Line::styled(" q quit   Tab next topic   ↑↓ PgUp PgDn Home partitions   p freeze", QUIET));
}

/// Who, since when, and whose topics.
fn head<'a>(screen: &'a Screen, answer: &'a Answer) -> Vec<Line<'a>> {
    let mut first = vec![
        Span::styled(format!(" millrace {}", answer.version), STRONG),
        Span::from(format!(
            " (commit {})  up {}  ",
            build::short(&answer.commit),
            seconds(uptime(answer, screen.now_ms))
        )),
        if answer.ready { Span::styled("ready", GOOD) } else { Span::styled("not ready", BAD) },
    ];
    if screen.frozen {
        first.push(Span::styled("  FROZEN", UNSURE));
    }
    first.push(Span::styled(format!("  {}", screen.url), QUIET));
    let mut lines = vec![Line::from(first)];
    if let Some(failure) = &screen.failure {
        lines.push(Line::styled(format!(" no answer: {failure}"), BAD));
    }
    let mut tabs = Vec::new();
    for (at, topic) in answer.topics.iter().enumerate() {
        let name = if at == screen.topic { format!(" [{}] ", topic.topic) } else { format!("  {}  ", topic.topic) };
        tabs.push(Span::styled(name, if at == screen.topic { STRONG } else { Style::new() }));
        tabs.push(Span::styled(&*topic.state, of_state(&topic.state)));
    }
    lines.push(Line::from(tabs));
    lines
}

/// How a topic is, stage by stage.
fn body<'a>(screen: &Screen, topic: &'a Topic, width: u16) -> Vec<Line<'a>> {
    let mut lines = vec![title(format!("{} into {}", topic.kafka_topic, topic.table))];
    for (what, words) in [("stopped", &topic.reason), ("why", &topic.why), ("waits for", &topic.waiting_for)] {
        if let Some(words) = words {
            lines
                .extend(wrapped(&format!("{what}: {words}"), width).into_iter().map(|line| Line::styled(line, UNSURE)));
        }
    }
    let freshness = topic.freshness_seconds;
    lines.push(Line::from(format!(
        " lag {}, {}   freshness p50 {}  p99 {}",
        lag(topic),
        seconds(topic.lag_seconds()),
        seconds(freshness.p50),
        seconds(freshness.p99)
    )));
    lines.push(Line::styled(format!(" {:<13}{:>11}{:>15}", "stage", "per second", "total"), QUIET));
    lines.extend(stages(topic, &screen.history.rates(&topic.topic)));
    let (closed, others): (Vec<&Breaker>, _) = topic.breakers.iter().partition(|breaker| breaker.state == "closed");
    for breaker in others {
        let error = breaker.error.as_deref().unwrap_or_default();
        let since = time_of_day(&breaker.since);
        let text = format!(" breaker {} {} since {since}  {error}", breaker.target, breaker.state);
        lines.push(Line::styled(text, if breaker.state == "open" { BAD } else { UNSURE }));
    }
    if !closed.is_empty() {
        let names: Vec<&str> = closed.iter().map(|breaker| &*breaker.target).collect();
        lines.push(Line::styled(format!(" breakers closed: {}", names.join(", ")), GOOD));
    }
    lines
}

fn stages(topic: &Topic, rates: &Rates) -> [Line<'static>; 5] {
    let share = |part: u64| 100.0 * part as f64 / topic.events.max(1) as f64;
    let row = |name: &str, per_second, total, note: String, style| {
        let figures = format!(" {name:<13}{:>11}{:>15}  ", rate(per_second), count(total));
        Line::from(vec![Span::from(figures), Span::styled(note, style)])
    };
    let duplicates = format!("{:.1} % dropped; {} ids held", share(topic.duplicates), count(topic.dedup_ids));
    let inserts = format!(
        "in flight {}, retries {}, fenced off {}",
        topic.inserts_in_flight,
        count(topic.insert_retries),
        count(topic.fence_refusals)
    );
    let retrying = if rates.retries.is_some_and(|retries| retries > 0.0) { BAD } else { Style::new() };
    let dying = if rates.dead_letters.is_some_and(|letters| letters > 0.0) { BAD } else { Style::new() };
    [
        row("read", rates.events, topic.events, String::new(), Style::new()),
        row("duplicates", rates.duplicates, topic.duplicates, duplicates, Style::new()),
        row("dead letters", rates.dead_letters, topic.dead_letters(), reasons(topic), dying),
        row("passed over", rates.passed_over, topic.passed_over, String::new(), Style::new()),
        row("rows", rates.rows, topic.rows, inserts, retrying),
    ]
}

fn partitions(screen: &Screen, topic: &Topic, area: Rect, buffer: &mut Buffer) {
    let room = usize::from(area.height).saturating_sub(2);
    let all = topic.partitions.len();
    let first = screen.scrolled.min(all.saturating_sub(room));
    let shown = &topic.partitions[first..all.min(first + room)];
    let range =
        if shown.len() < all { format!(", shown {} to {}", first + 1, first + shown.len()) } else { String::new() };
    let mut lines = vec![title(format!("partitions {all}, rebalances {}{range}", count(topic.rebalances)))];
    let names = ["state", "epoch", "per s", "next offset", "committed", "lag", "lag time"];
    let head = format!(
        " {:>4} {:<11} {:>5} {:>8} {:>13} {:>13} {:>9} {:>8}",
        "", names[0], names[1], names[2], names[3], names[4], names[5], names[6]
    );
    lines.push(Line::styled(head, QUIET));
    for partition in shown {
        let Partition { partition: number, state, epoch, .. } = partition;
        let figures = format!(
            " {:>5} {:>8} {:>13} {:>13} {:>9} {:>8}",
            epoch.map_or("-".to_owned(), |epoch| epoch.to_string()),
            rate(screen.history.partition_rate(&topic.topic, *number)),
            offset(partition.next_offset),
            offset(partition.committed),
            offset(partition.lag_events),
            seconds(partition.lag_seconds)
        );
        let state = Span::styled(format!("{state:<11}"), of_state(state));
        lines.push(Line::from(vec![Span::from(format!(" {number:>4} ")), state, Span::from(figures)]));
    }
    put_all(buffer, area, lines);
}

/// The newest warnings and errors, in at most a quarter of the screen.
fn problems(topic: &Topic, height: u16) -> Vec<Line<'_>> {
    let room = usize::from(height / 4).saturating_sub(2).max(1);
    let mut problems: Vec<_> = topic.recent_errors.iter().collect();
    problems.sort_by(|one, other| other.at.cmp(&one.at));
    let mut lines = vec![title(if problems.is_empty() { "no recent errors" } else { "recent errors" }.to_owned())];
    for problem in problems.into_iter().take(room) {
        let repeated =
            if problem.repeated > 0 { format!("(x{}) ", count(problem.repeated + 1)) } else { String::new() };
        let style = if problem.level == "ERROR" { BAD } else { UNSURE };
        lines.push(Line::from(vec![
            Span::from(format!(" {} ", time_of_day(&problem.at))),
            Span::styled(format!("{:<5} ", problem.level), style),
            // Whatever stands in a message, it is one line here.
            Span::from(format!("{repeated}{}", problem.message.replace(char::is_control, " "))),
        ]));
    }
    lines
}

fn of_state(state: &str) -> Style {
    match state {
        "running" => GOOD,
        "stopped" => BAD,
        _ => UNSURE,
    }
}

/// A rule with words on it, as wide as the screen; it is cut.
fn title(words: String) -> Line<'static> {
    const RULE: &str = "────────────────────────────────────────────────────────────────────────────────";
    Line::from(vec![Span::from("── "), Span::styled(words, STRONG), Span::from(" "), Span::from(RULE.repeat(4))])
}

fn bottom(area: Rect) -> Rect {
    area.rows().next_back().unwrap_or_default()
}

fn put(buffer: &mut Buffer, area: Rect, line: Line) {
    if !area.is_empty() {
        buffer.set_line(area.x, area.y, &line, area.width);
    }
}

fn put_all(buffer: &mut Buffer, area: Rect, lines: Vec<Line>) {
    for (row, line) in area.rows().zip(lines) {
        put(buffer, row, line);
    }
}

/// Words over as many lines as they need.
fn wrapped(text: &str, width: u16) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = lines.last().is_some_and(|line| line.chars().count() + word.chars().count() < usize::from(width));
        match lines.last_mut() {
            Some(line) if fits => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!(" {word}")),
        }
    }
    lines
}

#[cfg(test)]
pub(crate) mod tests;
