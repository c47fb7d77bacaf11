//! Times as text (RFC 3339) and back, in the calendar of Gregory. It knows no time zone by name.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// Reads `2026-01-31`, `2026-01-31T12:00`, seconds and a fraction of them, and `Z` or an offset such as `+02:00`, as
/// milliseconds since 1970; UTC where no zone is named; `None` for anything else.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once(['T', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.split('-');
    let [year, month, day] =
        [(4, 0..=9999), (2, 1..=12), (2, 1..=31)].map(|(len, range)| digits(parts.next()?, len, range));
    let days = days_from_civil(year?, month?, day?);
    if parts.next().is_some() || civil_from_days(days) != (year?, month?, day?) {
        return None;
    }
    let Some(time) = time else { return Some(days * DAY_MS) };
    let (clock, zone) = time.split_at(time.find(['Z', 'z', '+', '-']).unwrap_or(time.len()));
    let offset_minutes = match zone.split_at_checked(1) {
        None | Some(("Z" | "z", "")) => 0,
        Some((sign @ ("+" | "-"), offset)) => {
            let (hours, minutes) = offset.split_once(':')?;
            let minutes = digits(hours, 2, 0..=23)? * 60 + digits(minutes, 2, 0..=59)?;
            if sign == "-" { -minutes } else { minutes }
        }
        Some(_) => return None,
    };
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':');
    let [hours, minutes] = [23, 59].map(|most| digits(parts.next()?, 2, 0..=most));
    let seconds = parts.next().map_or(Some(0), |seconds| digits(seconds, 2, 0..=59));
    if parts.next().is_some() || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millis: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some(days * DAY_MS + ((hours? * 60 + minutes? - offset_minutes) * 60 + seconds?) * 1000 + millis)
}

/// Now, in milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

/// A time in milliseconds since 1970 as `2026-01-31T12:00:00.000Z`.
pub(crate) fn format_time(time_ms: i64) -> String {
    let of_day = time_ms.rem_euclid(DAY_MS);
    let (seconds, millis) = (of_day / 1000, of_day % 1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z", format_date(time_ms.div_euclid(DAY_MS)))
}

/// A date in days since 1970 as `2026-01-31`.
pub(crate) fn format_date(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn digits(text: &str, len: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
    let plain = text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| plain && range.contains(number))
}

/// Days since 1970. Howard Hinnant, <https://howardhinnant.github.io/date_algorithms.html>.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The way back.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_they_are_written() {
        for (text, time_ms) in [
            ("1970-01-01", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29", 951_782_400_000),
            ("2026-11-23T06:16:44Z", 1_795_414_604_000),
            ("2026-11-23T06:16:44.1237Z", 1_795_414_604_123),
            ("2026-11-23 08:16:44.5+02:00", 1_795_414_604_500),
            ("2026-11-22T23:46:44-06:30", 1_795_414_604_000),
            ("2026-11-23T06:16", 1_795_414_560_000),
            ("2026-11-23T07:16+01:00", 1_795_414_560_000),
        ] {
            assert_eq!(parse_time(text), Some(time_ms), "{text}");
            assert_eq!(parse_time(&format_time(time_ms)), Some(time_ms));
        }
        assert_eq!(format_time(951_782_400_007), "2000-02-29T00:00:00.007Z");
        assert_eq!(format_date(-25_567), "1900-01-01");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in [
            "",
            "2026",
            "2026-1-31",
            "2026-02-30",
            "2026-13-01",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12",
            "2026-01-31T12:00:60",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00+2",
            "2026-01-31T12:00Zulu",
            "2026-01-31T",
            "+026-01-31",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }

    #[test]
    fn days_and_dates_are_one_to_one() {
        for days in (-1_000_000..1_000_000).step_by(97) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
