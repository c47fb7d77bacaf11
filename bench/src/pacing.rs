//! Keeps the load to a rate.

use std::time::{Duration, Instant};

/// Keeps to a rate by sleeping when ahead of it.
pub(crate) struct Pacing {
    pub(crate) began: Instant,
    /// Records per second; 0 is as fast as possible.
    pub(crate) rate: u64,
}

impl Pacing {
    /// Ahead by less than this it does not sleep: a timer is no finer, and a sleep per event would cost more than it.
    const SLACK: Duration = Duration::from_millis(2);
    /// So many looks at the clock in a second are enough.
    const LOOKS: u64 = 5_000;

    /// To be called after each record.
    pub(crate) async fn wait(&self, sent: u64) {
        if self.rate > 0 && sent.is_multiple_of((self.rate / Self::LOOKS).max(1)) {
            self.wait_until_due(sent).await;
        }
    }

    /// To be called after each batch, with what was sent in all.
    pub(crate) async fn wait_until_due(&self, sent: u64) {
        if self.rate == 0 {
            return;
        }
        let due = self.began + Duration::from_secs_f64(sent as f64 / self.rate as f64);
        if due.saturating_duration_since(Instant::now()) > Self::SLACK {
            tokio::time::sleep_until(due.into()).await;
        }
    }
}
