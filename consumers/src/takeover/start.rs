//! Where a partition is read from, and whether what the group knew of it still holds. Nothing here asks anybody.

use std::{collections::BTreeMap, fmt};

use metrics::counter;

use crate::{
    config::{LostPosition, StartOffset},
    kafka::{
        mark::{Mark, Seen},
        source::Position,
    },
    telemetry::metrics as names,
};

/// Where a partition is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) from: i64,
    /// Whether that is decided here and not by a commit, so that it must be committed before anything is read.
    pub(super) decided: bool,
    /// Why the group's own offset could not be used, though it had one.
    pub(super) lost: Option<Cause>,
    /// A record that the log is known by.
    pub(super) mark: Option<Mark>,
    /// Whether there is something to read.
    pub(super) behind: bool,
}

/// Why a partition cannot be read from where the group stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Kafka has deleted records that were never read.
    Retention,
    /// The topic was deleted and made anew, or has lost its end.
    Recreated,
    /// The group has no offset any more: it has expired or was deleted.
    Expired,
}

/// A partition that is not read on, as `on_lost_position = "stop"` demands.
#[derive(Clone, Debug)]
pub struct Stopped {
    topic: String,
    partition: i32,
    what: String,
    committed: String,
    low: i64,
    high: i64,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, what, committed, low, high } = self;
        write!(
            f,
            "topic {topic}, partition {partition}: {what}; committed offset {committed}, Kafka has {low} to {high}. \
             on_lost_position = \"stop\" ends here, and nothing was committed. To go on with the oldest event, set it \
             to \"resume\" for one start; to go on elsewhere, commit that offset for the group, as with \
             `kafka-consumer-groups.sh --reset-offsets --to-offset N --topic {topic}:{partition} --execute`"
        )
    }
}

impl std::error::Error for Stopped {}

impl Cause {
    /// Every cause, for counters that start at 0.
    pub const ALL: [Self; 3] = [Self::Retention, Self::Recreated, Self::Expired];

    /// Value of the `cause` label.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::Recreated => "recreated",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Retention => "Kafka's retention has deleted events that were never read",
            Self::Recreated => "the topic was deleted and made anew, or has lost its end",
            Self::Expired => {
                "the table has rows of the partition, but the group has no offset: it expired or was deleted"
            }
        })
    }
}

impl Start {
    /// Decides it. `landed` has the greatest offset of each partition that the table has rows of; it is asked for only
    /// if a partition has no commit.
    pub(super) fn decide(partition: i32, position: &Position, start: StartOffset, landed: &BTreeMap<i32, i64>) -> Self {
        let Position { committed, mark, found, group_knows_topic, low, high } = *position;
        let from = |from, mark, lost: Option<Cause>| Self {
            from,
            decided: committed != Some(from) || lost.is_some(),
            lost,
            mark,
            behind: from < high,
        };
        let Some(committed) = committed else {
            return match landed.get(&partition) {
                Some(last) if *last >= high => from(low, None, Some(Cause::Recreated)),
                Some(_) => from(low, None, Some(Cause::Expired)),
                // A partition that was added to a topic that is being read has only new events.
                None if group_knows_topic || !landed.is_empty() => from(low, None, None),
                None if start == StartOffset::Latest => from(high, None, None),
                None => from(low, None, None),
            };
        };
        let seen = mark.map(|mark| mark.seen(low, high, found));
        if seen == Some(Seen::Other) || committed > high {
            from(low, None, Some(Cause::Recreated))
        } else if committed < low {
            from(low, None, Some(Cause::Retention))
        } else {
            // A commit without a mark is another tool's, or of a version that wrote none: from here on the record just
            // before it stands for its log.
            let first_seen = found.filter(|found| mark.is_none() && found.offset < committed);
            from(committed, mark.filter(|_| seen == Some(Seen::Same)).or(first_seen), None)
        }
    }

    /// Nothing, unless the position is lost and the policy is to stop.
    ///
    /// # Errors
    /// What was lost, and what to do.
    pub(super) fn obey(
        &self,
        topic: &str,
        partition: i32,
        position: &Position,
        policy: LostPosition,
    ) -> Result<(), Stopped> {
        match self.lost {
            Some(cause) if policy == LostPosition::Stop => Err(Stopped {
                topic: topic.to_owned(),
                partition,
                what: cause.to_string(),
                committed: or_none(position.committed),
                low: position.low,
                high: position.high,
            }),
            _ => Ok(()),
        }
    }

    /// Says and counts that the position was lost, if it was.
    pub(super) fn tell(&self, topic: &str, partition: i32, position: &Position) {
        let Some(cause) = self.lost else { return };
        counter!(names::POSITIONS_LOST, "topic" => topic.to_owned(), "cause" => cause.code()).increment(1);
        tracing::error!(
            topic,
            partition,
            committed = or_none(position.committed),
            oldest = position.low,
            end = position.high,
            cause = cause.code(),
            "{cause}; reading on with the oldest event there is, events whose ids are in the table are dropped"
        );
    }
}

fn or_none(offset: Option<i64>) -> String {
    offset.map_or_else(|| "none".to_owned(), |offset| offset.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark { offset: 90, timestamp_ms: 5, digest: 7 };

    fn position(committed: Option<i64>, low: i64, high: i64) -> Position {
        Position { committed, mark: None, found: None, group_knows_topic: committed.is_some(), low, high }
    }

    fn decide(position: &Position, start: StartOffset, landed: &[(i32, i64)]) -> (i64, Option<Cause>) {
        let start = Start::decide(3, position, start, &landed.iter().copied().collect());
        assert_eq!(start.behind, start.from < position.high);
        assert_eq!(start.decided, position.committed != Some(start.from) || start.lost.is_some());
        (start.from, start.lost)
    }

    #[test]
    fn a_partition_without_commit_starts_as_configured_only_if_nothing_of_the_topic_was_ever_read() {
        use StartOffset::{Earliest, Latest};
        let new = position(None, 10, 50);
        assert_eq!(decide(&new, Earliest, &[]), (10, None));
        assert_eq!(decide(&new, Latest, &[]), (50, None));
        // It was added: to a topic that the group has commits of, or that the table has rows of.
        assert_eq!(decide(&Position { group_knows_topic: true, ..new }, Latest, &[]), (10, None));
        assert_eq!(decide(&new, Latest, &[(0, 1000)]), (10, None));
        // It was read before, and its commit is gone.
        for start in [Earliest, Latest] {
            assert_eq!(decide(&new, start, &[(3, 49)]), (10, Some(Cause::Expired)));
            assert_eq!(decide(&new, start, &[(3, 50)]), (10, Some(Cause::Recreated)));
        }
    }

    #[test]
    fn a_commit_outside_the_log_is_a_lost_position() {
        use StartOffset::Latest;
        assert_eq!(decide(&position(Some(50), 10, 50), Latest, &[]), (50, None));
        assert_eq!(decide(&position(Some(10), 10, 50), Latest, &[]), (10, None));
        assert_eq!(decide(&position(Some(9), 10, 50), Latest, &[]), (10, Some(Cause::Retention)));
        assert_eq!(decide(&position(Some(51), 10, 50), Latest, &[]), (10, Some(Cause::Recreated)));
    }

    #[test]
    fn a_commit_inside_another_log_is_known_by_its_mark() {
        let marked = |found, low| Position { mark: Some(MARK), found, ..position(Some(100), low, 500) };
        let other = Mark { digest: 8, ..MARK };
        let decided = |position: &Position| Start::decide(3, position, StartOffset::Latest, &BTreeMap::new());
        let same = decided(&marked(Some(MARK), 0));
        assert_eq!((same.from, same.lost, same.mark, same.decided), (100, None, Some(MARK), false));
        let recreated = decided(&marked(Some(other), 0));
        assert_eq!((recreated.from, recreated.lost, recreated.mark), (0, Some(Cause::Recreated), None));
        // It cannot be told: the record of the mark is gone.
        let gone = decided(&marked(None, 95));
        assert_eq!((gone.from, gone.lost, gone.mark), (100, None, None));
    }

    #[test]
    fn a_commit_without_a_mark_is_taken_at_its_word_and_its_log_known_from_then_on() {
        let before = Mark { offset: 99, ..MARK };
        let start = |found| {
            let position = Position { found, ..position(Some(100), 0, 500) };
            Start::decide(3, &position, StartOffset::Latest, &BTreeMap::new())
        };
        assert_eq!((start(Some(before)).from, start(Some(before)).mark), (100, Some(before)));
        // Before the committed offset was the end of a transaction: what follows was not read.
        assert_eq!(start(Some(Mark { offset: 100, ..MARK })).mark, None);
    }

    #[test]
    fn the_policy_to_stop_names_what_to_do() {
        let position = position(Some(9), 10, 50);
        let start = Start::decide(3, &position, StartOffset::Earliest, &BTreeMap::new());
        start.obey("orders", 3, &position, LostPosition::Resume).unwrap();
        let error = start.obey("orders", 3, &position, LostPosition::Stop).unwrap_err().to_string();
        for word in ["topic orders, partition 3", "committed offset 9", "10 to 50", "\"resume\"", "orders:3 --execute"]
        {
            assert!(error.contains(word), "{word} in {error}");
        }
    }
}
