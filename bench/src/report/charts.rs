//! The three sorts of picture: bars, bars in sections, and curves. Every axis says its unit, every line and section its name.

use super::svg::{Anchor, COLORS, FAINT, GRID, INK, ON_COLORS, Picture, number, tick_label, ticks};

const WIDTH: f64 = 860.0;
/// For the names of bars.
const LEFT: f64 = 200.0;
/// For what is written behind a bar.
const RIGHT: f64 = 110.0;
const TOP: f64 = 74.0;
const BAR: f64 = 26.0;
const GAP: f64 = 14.0;

/// One bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) name: String,
    /// From left to right; as many as there are sections.
    pub(super) values: Vec<f64>,
    /// Single runs, as dots.
    pub(super) runs: Vec<f64>,
}

/// Horizontal bars. With more than one section, a legend names them by colour.
pub(super) fn bars(title: &str, unit: &str, sections: &[&str], bars: &[Bar]) -> String {
    let height = TOP + bars.len() as f64 * (BAR + GAP) + 52.0;
    let mut picture = Picture::new(WIDTH, height, title);
    let total = |bar: &Bar| bar.values.iter().sum::<f64>();
    let most = bars.iter().flat_map(|bar| bar.runs.iter().copied().chain([total(bar)])).fold(0.0, f64::max);
    let ticks = ticks(most);
    let end = ticks.last().copied().unwrap_or(1.0);
    let x = |value: f64| LEFT + value / end * (WIDTH - LEFT - RIGHT);
    let bottom = height - 48.0;
    for &tick in &ticks {
        picture.line((x(tick), TOP - 8.0), (x(tick), bottom), GRID);
        picture.text(x(tick), bottom + 16.0, Anchor::Middle, 12.0, FAINT, &tick_label(tick));
    }
    picture.text(x(end / 2.0), bottom + 36.0, Anchor::Middle, 12.0, FAINT, unit);
    if sections.len() > 1 {
        let mut at = LEFT;
        for (section, color) in sections.iter().zip(COLORS) {
            picture.rectangle(at, 44.0, 12.0, 12.0, color, "");
            picture.text(at + 17.0, 54.0, Anchor::Start, 12.0, INK, section);
            at += 40.0 + 7.0 * section.chars().count() as f64;
        }
    }
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + row as f64 * (BAR + GAP);
        picture.text(LEFT - 10.0, y + BAR * 0.68, Anchor::End, 13.0, INK, &bar.name);
        let mut from = 0.0;
        for (at, &value) in bar.values.iter().enumerate() {
            let (left, right) = (x(from), x(from + value));
            let hint = sections.get(at).map_or(String::new(), |section| format!("{section}: {} {unit}", number(value)));
            picture.rectangle(left, y, right - left, BAR, COLORS[at % COLORS.len()], &hint);
            if bar.values.len() > 1 && right - left > 38.0 {
                picture.text(
                    f64::midpoint(left, right),
                    y + BAR * 0.68,
                    Anchor::Middle,
                    12.0,
                    ON_COLORS[at % ON_COLORS.len()],
                    &number(value),
                );
            }
            from += value;
        }
        let beyond = bar.runs.iter().copied().fold(from, f64::max);
        for &run in &bar.runs {
            picture.dot((x(run), y + BAR / 2.0), 4.0, INK);
        }
        picture.text(x(beyond) + 10.0, y + BAR * 0.68, Anchor::Start, 13.0, INK, &number(from));
    }
    picture.finish()
}

/// One curve.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// One diagram of a picture with curves.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) y_unit: String,
    pub(super) curves: Vec<Curve>,
}

/// How the values of x lie on their axis.
#[derive(Clone, Debug)]
pub(super) enum XAxis {
    /// To scale, from 0.
    Linear,
    /// Side by side, whatever their values, with these labels.
    Places(Vec<(f64, String)>),
}

const PANEL: f64 = 210.0;
const PANEL_GAP: f64 = 66.0;
const CURVES_LEFT: f64 = 90.0;
const CURVES_RIGHT: f64 = 170.0;

/// Diagrams one below the other that share their x axis; each curve is named at its end.
pub(super) fn curves(title: &str, x_unit: &str, axis: &XAxis, panels: &[Panel]) -> String {
    let height = 60.0 + panels.len() as f64 * (PANEL + PANEL_GAP);
    let mut picture = Picture::new(WIDTH, height, title);
    let far = panels.iter().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.points);
    let far = far.map(|point| point.0).fold(0.0, f64::max);
    let inner = WIDTH - CURVES_LEFT - CURVES_RIGHT;
    let places: Vec<(f64, String)> = match axis {
        XAxis::Linear => {
            ticks(far).into_iter().filter(|tick| *tick <= far * 1.001).map(|tick| (tick, tick_label(tick))).collect()
        }
        XAxis::Places(places) => places.clone(),
    };
    let x = |value: f64| match axis {
        XAxis::Linear => CURVES_LEFT + value / far.max(f64::MIN_POSITIVE) * inner,
        XAxis::Places(places) => {
            let at = places.iter().position(|place| place.0 == value).unwrap_or_default();
            CURVES_LEFT + inner * (at as f64 + 0.5) / places.len().max(1) as f64
        }
    };
    for (row, panel) in panels.iter().enumerate() {
        let top = 66.0 + row as f64 * (PANEL + PANEL_GAP);
        let bottom = top + PANEL;
        let most = panel.curves.iter().flat_map(|curve| &curve.points).map(|point| point.1).fold(0.0, f64::max);
        let ticks = ticks(most);
        let end = ticks.last().copied().unwrap_or(1.0);
        let y = |value: f64| bottom - value.max(0.0) / end * PANEL;
        picture.text(CURVES_LEFT, top - 10.0, Anchor::Start, 12.0, FAINT, &panel.y_unit);
        for &tick in &ticks {
            picture.line((CURVES_LEFT, y(tick)), (CURVES_LEFT + inner, y(tick)), GRID);
            picture.text(CURVES_LEFT - 8.0, y(tick) + 4.0, Anchor::End, 12.0, FAINT, &tick_label(tick));
        }
        for (place, label) in &places {
            picture.text(x(*place), bottom + 18.0, Anchor::Middle, 12.0, FAINT, label);
        }
        picture.text(CURVES_LEFT + inner / 2.0, bottom + 36.0, Anchor::Middle, 12.0, FAINT, x_unit);
        let mut labels: Vec<(f64, usize)> = Vec::new();
        for (at, curve) in panel.curves.iter().enumerate() {
            let color = COLORS[at % COLORS.len()];
            let points: Vec<(f64, f64)> = curve.points.iter().map(|point| (x(point.0), y(point.1))).collect();
            picture.curve(&points, color);
            if points.len() <= 12 {
                points.iter().for_each(|point| picture.dot(*point, 4.0, color));
            }
            labels.extend(points.last().map(|last| (last.1, at)));
        }
        for (y, at) in apart(labels) {
            let (color, name) = (COLORS[at % COLORS.len()], &panel.curves[at].name);
            picture.text(CURVES_LEFT + inner + 10.0, y + 4.0, Anchor::Start, 12.0, color, name);
        }
    }
    picture.finish()
}

/// Moves labels down until none covers another.
fn apart(mut labels: Vec<(f64, usize)>) -> Vec<(f64, usize)> {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for at in 1..labels.len() {
        labels[at].0 = labels[at].0.max(labels[at - 1].0 + 15.0);
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_do_not_cover_each_other() {
        assert_eq!(apart(vec![(30.0, 0), (10.0, 1), (12.0, 2)]), [(10.0, 1), (25.0, 2), (40.0, 0)]);
    }
}
