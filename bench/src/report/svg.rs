//! Pictures as text: shapes and words at places, nothing more.

use std::fmt::Write as _;

/// Colours of words and lines.
pub(crate) const INK: &str = "#1f2933";
pub(crate) const FAINT: &str = "#6b7785";
pub(crate) const GRID: &str = "#e3e8ee";
/// Told apart by people who see no red or green, too (Okabe and Ito 2008).
pub(crate) const COLORS: [&str; 6] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"];

/// What can be read on each of them.
pub(crate) const ON_COLORS: [&str; 6] = ["#ffffff", INK, "#ffffff", INK, INK, "#ffffff"];

/// Where a text begins, is centred, or ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture of a size in pixels; y grows downwards.
#[derive(Debug)]
pub(crate) struct Picture {
    width: f64,
    height: f64,
    body: String,
}

impl Picture {
    /// An empty one, with a title.
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut picture = Self { width, height, body: String::new() };
        picture.rectangle(0.0, 0.0, width, height, "#ffffff", "");
        picture.text(20.0, 28.0, Anchor::Start, 16.0, INK, title);
        picture
    }

    /// With words that show when a reader points at it.
    pub(crate) fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, color: &str, hint: &str) {
        let hint = if hint.is_empty() { String::new() } else { format!("<title>{}</title>", escape(hint)) };
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{color}\">{hint}</rect>"
        );
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{color}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    pub(crate) fn curve(&mut self, points: &[(f64, f64)], color: &str) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.body,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" stroke-linejoin=\"round\"/>",
            points.join(" ")
        );
    }

    pub(crate) fn dot(&mut self, at: (f64, f64), radius: f64, color: &str) {
        let _ = writeln!(
            self.body,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{color}\" stroke=\"#ffffff\"/>",
            at.0, at.1
        );
    }

    pub(crate) fn text(&mut self, x: f64, y: f64, anchor: Anchor, size: f64, color: &str, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"{color}\">{}</text>",
            escape(words)
        );
    }

    /// The text of the file.
    pub(crate) fn finish(self) -> String {
        let Self { width, height, body } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif\">\n{body}</svg>\n"
        )
    }
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// From 0 to at least `most`, in four to ten steps of 1, 2 or 5 times a power of ten.
pub(crate) fn ticks(most: f64) -> Vec<f64> {
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0, 1.0];
    }
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let step = [5.0, 2.0, 1.0].into_iter().map(|times| times * power).find(|step| most / step >= 4.0).unwrap_or(power);
    let count = (most / step - 1e-9).ceil() as u32;
    (0..=count).map(|n| f64::from(n) * step).collect()
}

/// A number for people: three digits that count, thousands apart.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        whole if whole.fract() == 0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.01 => 2,
        _ => 4,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let (sign, whole) = whole.strip_prefix('-').map_or(("", whole), |whole| ("-", whole));
    let mut apart = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            apart.push(',');
        }
        apart.push(digit);
    }
    if rest.is_empty() { format!("{sign}{apart}") } else { format!("{sign}{apart}.{rest}") }
}

/// A tick's label: no more digits than it needs.
pub(crate) fn tick_label(value: f64) -> String {
    let text = number(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_cover_the_values_in_round_steps() {
        assert_eq!(ticks(10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks(43_000.0), [0.0, 10_000.0, 20_000.0, 30_000.0, 40_000.0, 50_000.0]);
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        for most in [0.003, 1.0, 7.0, 99.0, 123_456.0] {
            let ticks = ticks(most);
            assert!((5..=12).contains(&ticks.len()) && ticks[ticks.len() - 1] >= most, "{most}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [
            (0.0, "0"),
            (1_234_567.0, "1,234,567"),
            (-1234.4, "-1,234"),
            (999.6, "1,000"),
            (21.64, "21.6"),
            (1.5, "1.50"),
            (0.8333, "0.83"),
            (0.0012, "0.0012"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!(tick_label(1.5), "1.5");
        assert_eq!(tick_label(200.0), "200");
    }
}
