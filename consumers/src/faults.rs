//! Faults on purpose, at places that a signal from outside hits only by luck. Without the feature `fault-injection` all
//! of it compiles to nothing.
//!
//! `MILLRACE_FAULT="kill@acknowledged:3"` kills the process with SIGKILL the third time it has an acknowledgement from
//! ClickHouse and has not committed; `stall@polled:100=15s` makes the hundredth round of the poll loop last 15 s longer.
//! `MILLRACE_WITHOUT=fence` leaves a guard out, so that a test can show that it would notice.

/// A place at which a fault may strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A claim stands; nothing is quiet or loaded yet.
    Claimed,
    /// No insert of an earlier owner runs; nothing is loaded yet.
    Quiet,
    /// The ids of a partition are loaded; it is not read yet.
    Loaded,
    /// ClickHouse has rows of an insert and waits for its end.
    BodySent,
    /// ClickHouse has acknowledged an insert; its dead letters are not written.
    Acknowledged,
    /// Rows and dead letters are durable; nothing is committed.
    Durable,
    /// An offset was handed to Kafka.
    Committed,
    /// A round of the poll loop.
    Polled,
    /// What is revoked has been drained and is not given up yet.
    Drained,
}

/// A part of the protocol that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Inserts go without a look at the claims.
    Fence,
    /// Each attempt of an insert has a token of its own.
    Token,
    /// No ids are read back.
    Load,
    /// Rollups are not completed.
    Rollups,
    /// Ids are forgotten from chunk to chunk.
    #[cfg(feature = "fault-injection")]
    Dedup,
}

#[cfg(feature = "fault-injection")]
pub(crate) use armed::{at, said, without};

#[cfg(not(feature = "fault-injection"))]
mod disarmed {
    use super::{Guard, Point};

    pub(crate) const fn at(_: Point) {}

    pub(crate) const fn said() {}

    pub(crate) const fn without(_: Guard) -> bool {
        false
    }
}
#[cfg(not(feature = "fault-injection"))]
pub(crate) use disarmed::{at, said, without};

#[cfg(feature = "fault-injection")]
mod armed {
    use std::{
        env,
        sync::{
            LazyLock,
            atomic::{AtomicU64, Ordering},
        },
        time::Duration,
    };

    use super::{Guard, Point};
    use crate::config::parse_duration;

    /// What strikes, where, and the how manieth time the place is reached.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Fault {
        pub(super) stall: Option<Duration>,
        pub(super) point: Point,
        pub(super) time: u64,
    }

    static FAULT: LazyLock<Option<Fault>> =
        LazyLock::new(|| env::var("MILLRACE_FAULT").ok().map(|text| parse(&text).unwrap_or_else(|| wrong(&text))));
    static WITHOUT: LazyLock<Option<Guard>> =
        LazyLock::new(|| env::var("MILLRACE_WITHOUT").ok().map(|text| guard(&text).unwrap_or_else(|| wrong(&text))));
    static REACHED: AtomicU64 = AtomicU64::new(0);

    /// Says at the start what this process is.
    pub(crate) fn said() {
        tracing::warn!(fault = ?*FAULT, without = ?*WITHOUT, "built with fault injection: not for production");
    }

    /// The process has come to a place; this may be its end.
    pub(crate) fn at(point: Point) {
        let Some(fault) = FAULT.as_ref().filter(|fault| fault.point == point) else { return };
        if REACHED.fetch_add(1, Ordering::Relaxed) + 1 != fault.time {
            return;
        }
        tracing::warn!(?fault, "the fault strikes");
        match fault.stall {
            Some(time) => std::thread::sleep(time),
            None => {
                // A process can always signal itself.
                _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            }
        }
    }

    /// Whether a guard is left out.
    pub(crate) fn without(guard: Guard) -> bool {
        *WITHOUT == Some(guard)
    }

    /// A run whose fault does not strike would prove what it does not.
    fn wrong<T>(text: &str) -> T {
        panic!("no such fault or guard: {text}")
    }

    pub(super) fn parse(text: &str) -> Option<Fault> {
        let (what, place) = text.split_once('@')?;
        let (point, when) = place.split_once(':')?;
        let (time, stall) = match (what, when.split_once('=')) {
            ("kill", None) => (when, None),
            ("stall", Some((time, stall))) => (time, Some(parse_duration(stall)?)),
            _ => return None,
        };
        Some(Fault { stall, point: point_of(point)?, time: time.parse().ok()? })
    }

    fn point_of(name: &str) -> Option<Point> {
        Some(match name {
            "claimed" => Point::Claimed,
            "quiet" => Point::Quiet,
            "loaded" => Point::Loaded,
            "body-sent" => Point::BodySent,
            "acknowledged" => Point::Acknowledged,
            "durable" => Point::Durable,
            "committed" => Point::Committed,
            "polled" => Point::Polled,
            "drained" => Point::Drained,
            _ => return None,
        })
    }

    fn guard(name: &str) -> Option<Guard> {
        Some(match name {
            "fence" => Guard::Fence,
            "token" => Guard::Token,
            "load" => Guard::Load,
            "rollups" => Guard::Rollups,
            "dedup" => Guard::Dedup,
            _ => return None,
        })
    }
}

#[cfg(all(test, feature = "fault-injection"))]
mod tests {
    use std::time::Duration;

    use super::{
        Point,
        armed::{Fault, parse},
    };

    #[test]
    fn faults_are_read_and_what_is_none_is_refused() {
        let kill = Fault { stall: None, point: Point::BodySent, time: 3 };
        assert_eq!(parse("kill@body-sent:3"), Some(kill));
        let stall = Fault { stall: Some(Duration::from_secs(15)), point: Point::Polled, time: 100 };
        assert_eq!(parse("stall@polled:100=15s"), Some(stall));
        for wrong in ["kill@nowhere:1", "kill@polled", "stall@polled:1", "kill@polled:1=2s", ""] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
