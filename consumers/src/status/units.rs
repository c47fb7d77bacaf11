//! Figures as people read them in a narrow column.

/// `12,345,678`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An offset or a lag; `-` if it is not known.
pub fn offset(number: Option<i64>) -> String {
    match number {
        Some(number) if number < 0 => format!("-{}", count(number.unsigned_abs())),
        Some(number) => count(number.unsigned_abs()),
        None => "-".to_owned(),
    }
}

/// A rate per second; `-` if it is not known.
pub fn rate(per_second: Option<f64>) -> String {
    match per_second {
        None => "-".to_owned(),
        Some(rate) if rate > 0.0 && rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(rate.round() as u64),
    }
}

/// A time in seconds as `593 ms`, `1.5 s`, `3m 12s`, `2h 05m` or `4d 03h`; `-` if it is not known.
pub fn seconds(time: Option<f64>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let time = time.max(0.0);
    if time < 0.9995 {
        return format!("{:.0} ms", time * 1000.0);
    }
    if time < 59.95 {
        return format!("{time:.1} s");
    }
    let whole = time.round() as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}m {:02}s", whole % 60),
        (0, _) => format!("{hours}h {minutes:02}m"),
        _ => format!("{days}d {hours:02}h"),
    }
}

/// The time of day of an RFC 3339 time in UTC; the text itself if it is none.
pub fn time_of_day(time: &str) -> &str {
    time.split_once('T').and_then(|(_, clock)| clock.get(..8)).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_size() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(number), text);
        }
        assert_eq!([offset(None), offset(Some(-1000)), offset(Some(7))], ["-", "-1,000", "7"]);
        let rates = [None, Some(0.0), Some(0.24), Some(9.94), Some(9.96), Some(198_012.4)];
        assert_eq!(rates.map(rate), ["-", "0", "0.2", "9.9", "10", "198,012"]);
        let times = [0.0, 0.593, 0.9996, 1.52, 59.94, 59.96, 192.0, 7_500.0, 356_400.0];
        let texts = ["0 ms", "593 ms", "1.0 s", "1.5 s", "59.9 s", "1m 00s", "3m 12s", "2h 05m", "4d 03h"];
        assert_eq!(times.map(|time| seconds(Some(time))), texts);
        assert_eq!(time_of_day("2026-11-23T06:16:44.123Z"), "06:16:44");
        assert_eq!(time_of_day("yesterday"), "yesterday");
    }
}
