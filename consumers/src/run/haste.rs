//! The hard end of leaving. Draining keeps to its own timeout, but leaving a group also waits for brokers, which may hang in
//! the middle of a handshake, and closing a Kafka client waits for its callbacks: neither may hold the process up for ever.

use std::{io, process, thread, time::Duration};

/// What leaving may take beside draining: the last commits, leaving the groups, closing clients and ports. With the default
/// of `shutdown.drain_timeout` it makes 25 s, which is less than the 30 s that Kubernetes grants.
pub(super) const LEAVING: Duration = Duration::from_secs(5);
/// Exit status of a process that did not end in time.
const STATUS: i32 = 1;

/// Ends the process after so long, if it has not ended by itself. That is as safe as any crash.
///
/// # Errors
/// No thread can be started.
pub(super) fn end_within(longest: Duration) -> io::Result<()> {
    // No task: what holds the process up may hold the runtime's threads up as well.
    thread::Builder::new().name("end".to_owned()).spawn(move || {
        thread::sleep(longest);
        let waited_s = longest.as_secs();
        tracing::error!(
            waited_s,
            "leaving takes too long, so this process ends now; what is on its way is settled by whoever reads next"
        );
        process::exit(STATUS);
    })?;
    Ok(())
}
