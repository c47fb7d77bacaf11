//! Panels as a picture, laid out as Grafana lays them out.

use super::prometheus::{Range, Series};
use super::{Panel, Step};
use crate::report::svg::{Anchor, COLORS, FAINT, GRID, INK, Picture, number, tick_label, ticks};

const WIDTH: f64 = 1200.0;
const TOP: f64 = 50.0;
/// Height of a row of the grid.
const ROW: f64 = 30.0;
const GAP: f64 = 5.0;
const LEGEND_ROW: f64 = 16.0;
/// Curves of a panel that the legend names.
const NAMED: usize = 10;

/// A panel and what was found for it.
pub(super) struct Drawn<'a> {
    pub(super) panel: &'a Panel,
    pub(super) series: Vec<Series>,
}

struct Frame {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

/// The whole dashboard.
pub(super) fn picture(title: &str, range: Range, panels: &[Drawn]) -> String {
    let rows = panels.iter().map(|drawn| drawn.panel.grid_pos.y + drawn.panel.grid_pos.h).fold(0.0, f64::max);
    let mut picture = Picture::new(WIDTH, TOP + rows * ROW + 10.0, title);
    let span = format!("{} to {} UTC", clock(range.from), clock(range.until));
    picture.text(WIDTH - 20.0, 28.0, Anchor::End, 12.0, FAINT, &span);
    for drawn in panels {
        let place = drawn.panel.grid_pos;
        let column = WIDTH / 24.0;
        let frame = Frame {
            x: place.x * column + GAP,
            y: TOP + place.y * ROW + GAP,
            width: place.w * column - 2.0 * GAP,
            height: place.h * ROW - 2.0 * GAP,
        };
        match drawn.panel.kind.as_str() {
            "row" => heading(&mut picture, &frame, &drawn.panel.title),
            "stat" => stat(&mut picture, &frame, drawn),
            _ => curves(&mut picture, &frame, range, drawn),
        }
    }
    picture.finish()
}

fn heading(picture: &mut Picture, frame: &Frame, title: &str) {
    picture.text(frame.x + 5.0, frame.y + 15.0, Anchor::Start, 14.0, INK, title);
    let y = frame.y + frame.height;
    picture.line((frame.x, y), (frame.x + frame.width, y), GRID);
}

fn card(picture: &mut Picture, frame: &Frame, title: &str) {
    let Frame { x, y, width, height } = *frame;
    for (from, to) in [
        ((x, y), (x + width, y)),
        ((x, y + height), (x + width, y + height)),
        ((x, y), (x, y + height)),
        ((x + width, y), (x + width, y + height)),
    ] {
        picture.line(from, to, GRID);
    }
    picture.text(x + 10.0, y + 18.0, Anchor::Start, 12.0, INK, title);
}

/// The last value, large, in the colour of its threshold.
fn stat(picture: &mut Picture, frame: &Frame, drawn: &Drawn) {
    card(picture, frame, &drawn.panel.title);
    let defaults = &drawn.panel.field_config.defaults;
    let last = drawn.series.iter().filter_map(|series| series.points.last()).map(|point| point.1).reduce(f64::max);
    let text = last.map_or_else(|| "no data".to_owned(), |value| with_unit(value, &defaults.unit));
    let color = last.map_or(FAINT, |value| threshold(&defaults.thresholds.steps, value));
    picture.text(frame.x + frame.width / 2.0, frame.y + frame.height * 0.72, Anchor::Middle, 26.0, color, &text);
}

fn threshold(steps: &[Step], value: f64) -> &'static str {
    if steps.len() < 2 {
        return INK;
    }
    let reached = steps.iter().rfind(|step| step.value.is_none_or(|from| value >= from));
    match reached.map(|step| step.color.as_str()) {
        Some("red") => "#c0392b",
        Some("orange") => "#b9770e",
        Some("green") => "#1e8449",
        _ => INK,
    }
}

fn curves(picture: &mut Picture, frame: &Frame, range: Range, drawn: &Drawn) {
    card(picture, frame, &drawn.panel.title);
    let defaults = &drawn.panel.field_config.defaults;
    let shown = drawn.series.len().min(NAMED);
    let legend_rows = legend(picture, frame, &drawn.series, shown);
    if drawn.series.iter().all(|series| series.points.is_empty()) {
        let (x, y) = (frame.x + frame.width / 2.0, frame.y + frame.height / 2.0);
        picture.text(x, y, Anchor::Middle, 13.0, FAINT, "no data");
        return;
    }
    let (left, right) = (frame.x + 62.0, frame.x + frame.width - 12.0);
    let (top, bottom) = (frame.y + 34.0, frame.y + frame.height - 26.0 - LEGEND_ROW * legend_rows);
    let most = drawn.series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max);
    let scale = Scale::of(&defaults.unit, most);
    let ticks = ticks(most / scale.divisor);
    let end = ticks.last().copied().unwrap_or(1.0) * scale.divisor;
    let y = |value: f64| bottom - value.max(0.0) / end * (bottom - top);
    let x = |at: f64| left + (at - range.from) / (range.until - range.from) * (right - left);
    for (at, tick) in ticks.iter().enumerate() {
        let level = y(tick * scale.divisor);
        picture.line((left, level), (right, level), GRID);
        // Of many ticks every other has its label.
        if ticks.len() <= 6 || at % 2 == 0 {
            let label = if *tick == 0.0 { "0".to_owned() } else { tick_label(*tick) + scale.suffix };
            picture.text(left - 6.0, level + 4.0, Anchor::End, 11.0, FAINT, &label);
        }
    }
    for quarter in 0..=4 {
        let at = range.from + (range.until - range.from) * f64::from(quarter) / 4.0;
        let anchor = match quarter {
            0 => Anchor::Start,
            4 => Anchor::End,
            _ => Anchor::Middle,
        };
        picture.text(x(at), bottom + 15.0, anchor, 10.0, FAINT, &clock(at));
    }
    for step in defaults.thresholds.steps.iter().filter_map(|step| step.value).filter(|value| *value <= end) {
        picture.line((left, y(step)), (right, y(step)), "#c0392b");
    }
    for (at, series) in drawn.series.iter().enumerate() {
        let color = COLORS[at % COLORS.len()];
        for run in unbroken(&series.points, range.step * 1.5) {
            let points: Vec<(f64, f64)> = run.iter().map(|point| (x(point.0), y(point.1))).collect();
            match points.as_slice() {
                [only] => picture.dot(*only, 2.5, color),
                _ => picture.curve(&points, color),
            }
        }
    }
}

/// Names of the curves below the diagram; how many lines they take.
fn legend(picture: &mut Picture, frame: &Frame, series: &[Series], shown: usize) -> f64 {
    let mut lines: Vec<Vec<(f64, usize)>> = vec![Vec::new()];
    let mut at = 0.0;
    for (number, series) in series.iter().take(shown).enumerate() {
        let width = 26.0 + 6.2 * series.name.chars().count() as f64;
        if at > 0.0 && at + width > frame.width - 20.0 {
            lines.push(Vec::new());
            at = 0.0;
        }
        if let Some(line) = lines.last_mut() {
            line.push((at, number));
        }
        at += width;
    }
    let count = lines.len() as f64;
    for (row, line) in lines.iter().enumerate() {
        let y = frame.y + frame.height - 6.0 - LEGEND_ROW * (count - 1.0 - row as f64);
        for (at, number) in line {
            let x = frame.x + 10.0 + at;
            picture.rectangle(x, y - 8.0, 10.0, 8.0, COLORS[number % COLORS.len()], "");
            picture.text(x + 14.0, y, Anchor::Start, 11.0, INK, &series[*number].name);
        }
    }
    if series.len() > shown {
        let more = format!("and {} more", series.len() - shown);
        picture.text(frame.x + frame.width - 10.0, frame.y + 18.0, Anchor::End, 11.0, FAINT, &more);
    }
    count
}

/// Parts of a curve without a hole longer than `hole`.
fn unbroken(points: &[(f64, f64)], hole: f64) -> impl Iterator<Item = &[(f64, f64)]> {
    points.chunk_by(move |earlier, later| later.0 - earlier.0 <= hole)
}

/// What values of an axis are divided by, and what stands behind them then.
struct Scale {
    divisor: f64,
    suffix: &'static str,
}

impl Scale {
    /// By the unit, in Grafana's words, and the largest value.
    fn of(unit: &str, most: f64) -> Self {
        let (divisor, suffix) = match (unit, most) {
            ("s", most) if most < 0.001 => (1e-6, " µs"),
            ("s", most) if most < 1.0 => (1e-3, " ms"),
            ("s", _) => (1.0, " s"),
            ("bytes", most) if most < 1e6 => (1024.0, " KiB"),
            ("bytes", most) if most < 1e9 => (1024.0 * 1024.0, " MiB"),
            ("bytes", _) => (1024.0 * 1024.0 * 1024.0, " GiB"),
            ("percentunit", _) => (0.01, " %"),
            (_, most) if most >= 1e6 => (1e6, " M"),
            (_, most) if most >= 1e4 => (1e3, " k"),
            _ => (1.0, ""),
        };
        Self { divisor, suffix }
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    let scale = Scale::of(unit, value);
    let rate = if unit == "cps" { "/s" } else { "" };
    // 0.05 / 0.01 is a little more than 5.
    let shown = (value / scale.divisor * 1e6).round() / 1e6;
    format!("{}{}{rate}", number(shown), scale.suffix)
}

/// Time of day, UTC.
fn clock(at: f64) -> String {
    let seconds = at.rem_euclid(86_400.0) as u32;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_in_units_that_can_be_read() {
        for (value, unit, text) in [
            (0.25, "s", "250 ms"),
            (1.5, "s", "1.50 s"),
            (0.0001, "s", "100 µs"),
            (50.0 * 1024.0 * 1024.0, "bytes", "50 MiB"),
            (0.05, "percentunit", "5 %"),
            (123_456.0, "cps", "123 k/s"),
            (3.0, "short", "3"),
        ] {
            assert_eq!(with_unit(value, unit), text);
        }
        assert_eq!(clock(1_795_414_604.0), "06:16:44");
    }

    #[test]
    fn a_curve_breaks_where_values_are_missing() {
        let points = [(1.0, 5.0), (2.0, 5.0), (9.0, 5.0)];
        let runs: Vec<usize> = unbroken(&points, 1.5).map(<[_]>::len).collect();
        assert_eq!(runs, [2, 1]);
    }
}
