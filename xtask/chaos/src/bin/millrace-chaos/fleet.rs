//! Several `millrace` processes in one group, each of which comes back when it dies.

use std::os::unix::process::ExitStatusExt;

use millrace_chaos::config::Config;
use millrace_chaos::process::Millrace;

use crate::trial::Trial;

/// Ways in which a process may be made to die at a place of its own, and roughly how often it comes by there in a
/// second under load: some faults strike at once, some in a while.
pub(crate) const DEADLY: [(&str, u64); 8] = [
    ("claimed", 1),
    ("quiet", 1),
    ("loaded", 2),
    ("body-sent", 4),
    ("acknowledged", 4),
    ("durable", 4),
    ("committed", 4),
    ("drained", 1),
];

/// Processes by slot.
pub(crate) struct Fleet {
    members: Vec<Option<Millrace>>,
}

impl Fleet {
    /// Starts `size` processes.
    pub(crate) fn start(size: usize, mut start: impl FnMut(usize) -> Millrace) -> Self {
        Self { members: (0..size).map(|slot| Some(start(slot))).collect() }
    }

    /// The configuration of the process in a slot. It bears the name of the one before it, so that it takes its partitions
    /// on at once and not after the session's end.
    pub(crate) fn config(config: &Config, slot: usize) -> Config {
        config.clone().with("[kafka.properties]", "\"group.instance.id\"", &format!("chaos-{slot}"))
    }

    /// Processes.
    pub(crate) fn members(&mut self) -> impl Iterator<Item = &mut Millrace> {
        self.members.iter_mut().flatten()
    }

    /// The process in a slot.
    pub(crate) fn member(&mut self, slot: usize) -> &mut Millrace {
        self.members[slot].as_mut().expect("a process in every slot")
    }

    /// Puts another process in the slot of one that has died.
    pub(crate) fn succeed(&mut self, slot: usize, process: Millrace) {
        self.members[slot] = Some(process);
    }

    /// Kills the process in a slot and starts another.
    pub(crate) fn replace(&mut self, trial: &mut Trial, slot: usize, start: impl FnOnce(&Trial) -> Millrace) {
        if let Some(mut old) = self.members[slot].take() {
            old.kill();
            trial.killed(1);
        }
        self.members[slot] = Some(start(trial));
    }

    /// Whether the process in a slot has been killed by its own fault. Another end than by SIGKILL is none of these faults.
    pub(crate) fn has_died(&mut self, slot: usize) -> bool {
        let Some(status) = self.member(slot).ended() else { return false };
        assert_eq!(status.signal(), Some(9), "it ended otherwise: {status}\n{}", self.member(slot).log());
        true
    }

    /// Which of the slots has a process that has been killed by its own fault.
    pub(crate) fn dead(&mut self) -> Option<usize> {
        (0..self.members.len()).find(|slot| self.has_died(*slot))
    }

    /// Gives all up to the end of the trial.
    pub(crate) fn keep(self, trial: &mut Trial) {
        self.members.into_iter().flatten().for_each(|member| trial.keep(member));
    }
}
