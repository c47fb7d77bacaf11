//! The end of a topic whose events suddenly cannot be read: it stops before more of them are moved than its limit allows.

use anyhow::anyhow;
use millrace_pipeline::share::Exceeded;

use super::{
    stop::{Stop, StopReason},
    worker::Worker,
};

impl Worker {
    /// Stops the topic. What is open is thrown away with its dead letters and read again by whoever comes next; what is on
    /// its way lands, and offsets stay where that ends.
    pub(super) fn stop_at_limit(&mut self, exceeded: &Exceeded) {
        self.pipeline.abandon();
        let why = explain(&self.crew.topic, exceeded);
        self.stop(Stop::new(StopReason::DeadLetters, anyhow!(why)));
    }
}

fn explain(topic: &str, exceeded: &Exceeded) -> String {
    let Exceeded { limit, events, rejected, reason, of_reason } = exceeded;
    let percent = *rejected as f64 * 100.0 / *events as f64;
    let seconds = limit.window.as_secs_f64();
    format!(
        "{rejected} of the last {events} events cannot be read, {percent:.1} %, more than \
         dead_letters.max_share ({} over {seconds} s); most often {reason} ({} times), as at partition {}, offset {}. Those \
         not yet dead-lettered stay in the topic, uncommitted. Look at that one with `millrace dead show --topic {topic} \
         --source {}:{}`, mend what writes or what reads it (schema, registry, lookup) and start again; or raise max_share \
         in [topics.dead_letters] to have them dead-lettered (1.0 never stops)",
        limit.max_share, of_reason.count, of_reason.partition, of_reason.offset, of_reason.partition, of_reason.offset
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use millrace_pipeline::{
        reason::Reason,
        share::{Rejected, Share, ShareLimit},
    };

    use super::*;

    #[test]
    fn why_a_topic_stopped_is_one_line_with_share_window_reason_and_place() {
        let max_share = Share::new(0.5).unwrap();
        let why = explain(
            "orders",
            &Exceeded {
                limit: ShareLimit { max_share, window: Duration::from_secs(60), min_events: 1_000 },
                events: 1_000,
                rejected: 812,
                reason: Reason::BadMagic,
                of_reason: Rejected { count: 800, partition: 3, offset: 1234 },
            },
        );
        for words in [
            "812 of the last 1000 events cannot be read, 81.2 %",
            "dead_letters.max_share (0.5 over 60 s)",
            "bad_magic (800 times), as at partition 3, offset 1234",
            "`millrace dead show --topic orders --source 3:1234`",
            "[topics.dead_letters]",
        ] {
            assert!(why.contains(words), "{words} in {why}");
        }
        assert_eq!(why.lines().count(), 1);
    }
}
