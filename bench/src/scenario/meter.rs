//! Processor time and memory by role over a measured span: who takes what.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::proc::{Stat, families, resident_mib};

/// Who takes part in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// `millrace` or the plain consumer; ClickHouse's own engine has no process beside the server.
    Consumer,
    ClickHouse,
    Kafka,
    Producer,
    /// This runner, with its questions and its prober.
    Harness,
}

impl Role {
    /// In the names of figures.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Consumer => "consumer",
            Self::ClickHouse => "clickhouse",
            Self::Kafka => "kafka",
            Self::Producer => "producer",
            Self::Harness => "harness",
        }
    }
}

/// Counts from when it is made.
#[derive(Debug)]
pub(crate) struct Meter {
    roots: Vec<(Role, u32)>,
    /// By process: role, seconds at the beginning and at the last look.
    processes: BTreeMap<u32, (Role, f64, f64)>,
    resident_mib_max: BTreeMap<Role, f64>,
    clickhouse_restarted: bool,
}

/// The pid file of a part of the stack, as far as it is looked at.
#[derive(Deserialize)]
struct Record {
    pid: u32,
}

impl Meter {
    /// Begins with the parts of the stack that this `stack.json` belongs to, and this process itself.
    ///
    /// # Errors
    /// If a part does not say which process it is.
    pub(crate) fn start(stack_file: &Path) -> Result<Self> {
        let mut roots = vec![(Role::Harness, std::process::id())];
        for (role, part) in [(Role::Kafka, "kafka"), (Role::ClickHouse, "clickhouse")] {
            let path = stack_file.with_file_name("run").join(format!("{part}.json"));
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let record: Record = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
            roots.push((role, record.pid));
        }
        let mut meter =
            Self { roots, processes: BTreeMap::new(), resident_mib_max: BTreeMap::new(), clickhouse_restarted: false };
        meter.look();
        for (_, begin, now) in meter.processes.values_mut() {
            *begin = *now;
        }
        meter.clickhouse_restarted = false;
        Ok(meter)
    }

    /// A process that was started after this; all its time counts.
    pub(crate) fn add(&mut self, role: Role, pid: u32) {
        self.roots.push((role, pid));
    }

    /// A process that runs already; its time counts from now.
    pub(crate) fn add_running(&mut self, role: Role, pid: u32) {
        self.roots.push((role, pid));
        let now = Stat::read(pid).map_or(0.0, Stat::cpu_seconds);
        self.processes.insert(pid, (role, now, now));
    }

    /// Looks at all of them; the memory that each role has now, in MiB.
    pub(crate) fn look(&mut self) -> BTreeMap<Role, f64> {
        let children: Vec<u32> =
            self.roots.iter().filter(|(role, _)| *role != Role::Harness).map(|root| root.1).collect();
        let mut resident = BTreeMap::new();
        for &(role, root) in &self.roots {
            // What the runner has started counts under its own role.
            let family = if role == Role::Harness { vec![root] } else { families(&[root]) };
            for pid in family {
                if pid != root && children.contains(&pid) {
                    continue;
                }
                let Some(stat) = Stat::read(pid) else { continue };
                let known = self.processes.entry(pid).or_insert_with(|| {
                    self.clickhouse_restarted |= role == Role::ClickHouse;
                    (role, 0.0, 0.0)
                });
                known.2 = stat.cpu_seconds();
                *resident.entry(role).or_default() += resident_mib(pid);
            }
        }
        for (&role, &mib) in &resident {
            let most = self.resident_mib_max.entry(role).or_default();
            *most = f64::max(*most, mib);
        }
        resident
    }

    /// Looks for the last time: seconds of processor time since the beginning, and the most memory seen in MiB, by role.
    ///
    /// # Errors
    /// If ClickHouse was started anew meanwhile: what the one before has taken is not known.
    pub(crate) fn stop(mut self) -> Result<(BTreeMap<Role, f64>, BTreeMap<Role, f64>)> {
        self.look();
        if self.clickhouse_restarted {
            bail!("ClickHouse died and was started again while it was measured");
        }
        let mut seconds = BTreeMap::new();
        for (role, begin, end) in self.processes.into_values() {
            *seconds.entry(role).or_default() += end - begin;
        }
        Ok((seconds, self.resident_mib_max))
    }
}
