//! Where a range of a topic begins or ends, as the command line has it: an offset or a point in time. Pure.

use std::{fmt, time::Duration};

use crate::{
    config::parse_duration,
    time::{format_time, parse_time},
};

/// A place in the topic of events, or a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Offset of the source, in each partition that is looked at.
    Offset(i64),
    /// Kafka timestamp of the source, in milliseconds since 1970.
    Time(i64),
}

impl fmt::Display for Bound {
    /// In a form that it is read from.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Offset(offset) => write!(f, "{offset}"),
            Self::Time(time_ms) => f.write_str(&format_time(time_ms)),
        }
    }
}

impl Bound {
    /// Reads an offset (`1200`), a time (`2026-01-31T12:00:00Z`, `2026-01-31`) or an age as of `now_ms` (`2h`); `None` for
    /// anything else.
    pub fn parse(text: &str, now_ms: i64) -> Option<Self> {
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().ok().map(Self::Offset);
        }
        let ago = |age: Duration| Some(now_ms.saturating_sub(i64::try_from(age.as_millis()).ok()?));
        parse_duration(text).and_then(ago).or_else(|| parse_time(text)).map(Self::Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_an_offset_a_time_or_an_age() {
        const NOW: i64 = 1_700_000_000_000;
        for (text, bound) in [
            ("0", Some(Bound::Offset(0))),
            ("1200", Some(Bound::Offset(1_200))),
            ("2h", Some(Bound::Time(NOW - 7_200_000))),
            ("1970-01-02", Some(Bound::Time(86_400_000))),
            ("1970-01-01T00:00:01Z", Some(Bound::Time(1_000))),
            ("", None),
            ("-5", None),
            ("99999999999999999999", None),
            ("yesterday", None),
        ] {
            assert_eq!(Bound::parse(text, NOW), bound, "{text}");
        }
    }

    #[test]
    fn a_bound_is_written_as_it_is_read() {
        for bound in [Bound::Offset(7), Bound::Time(0), Bound::Time(1_795_413_600_250), Bound::Time(951_782_399_999)] {
            assert_eq!(Bound::parse(&bound.to_string(), 0), Some(bound));
        }
    }
}
