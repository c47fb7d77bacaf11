//! Durations (`500ms`, `24h`) and sizes (`64MiB`) as text, and back. It knows nothing of the configuration's keys.

use std::time::Duration;

const DURATIONS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: &[(&str, u64)] = &[("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads a whole number followed by `ms`, `s`, `m`, `h` or `d`; `None` for anything else.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, DURATIONS).map(Duration::from_millis)
}

/// Reads a whole number followed by `B`, `KiB`, `MiB` or `GiB`, in bytes; `None` for anything else.
pub(crate) fn parse_size(text: &str) -> Option<usize> {
    parse(text, SIZES).and_then(|bytes| usize::try_from(bytes).ok())
}

/// The shortest text that [`parse_duration`] reads as this duration, which is cut to milliseconds.
pub(crate) fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), DURATIONS)
}

/// The shortest text that [`parse_size`] reads as this size.
pub(crate) fn format_size(bytes: usize) -> String {
    format(bytes as u64, SIZES)
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '_'))?;
    let number: u64 = text[..digits].replace('_', "").parse().ok()?;
    let unit = text[digits..].trim_start();
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    let whole = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
    let (unit, factor) = units.iter().rev().find(whole).unwrap_or(&units[0]);
    format!("{}{unit}", value / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_numbers_with_a_unit() {
        for (text, ms) in [("500ms", 500), ("0s", 0), ("24h", 86_400_000), ("1_500 ms", 1_500), ("2d", 172_800_000)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "ms", "1.5s", "-1s", "5 parsecs", "99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        for text in ["64MB", "64", "MiB", "64 mib"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["500ms", "90s", "24h", "0ms", "1d"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }
        assert_eq!(format_duration(Duration::from_secs(90)), "90s");
        assert_eq!(format_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(format_size(64 << 20), "64MiB");
    }
}
