//! The program that sends a load, as a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::stack::until;
use crate::world::Manifest;

/// `millrace-bench generate`, while it sends and after.
pub struct Generator {
    pub(crate) child: Child,
    pub(crate) manifest: PathBuf,
    pub(crate) log: PathBuf,
}

impl Generator {
    /// Lets it end with the event that it is at; [`Generator::finish`] waits for that.
    pub fn end(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    /// Waits until everything is sent.
    pub fn finish(&mut self) -> Manifest {
        let mut status = None;
        until("everything is sent", Duration::from_secs(600), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let log = fs::read_to_string(&self.log).unwrap();
        assert!(status.unwrap().success(), "{log}");
        serde_json::from_str(&fs::read_to_string(&self.manifest).unwrap()).unwrap()
    }

    /// How many unreadable records of each kind it has sent.
    pub fn poison_kinds(&self) -> BTreeMap<String, u64> {
        let manifest: serde_json::Value = serde_json::from_str(&fs::read_to_string(&self.manifest).unwrap()).unwrap();
        let mut kinds = BTreeMap::new();
        for poison in manifest["poison"].as_array().unwrap() {
            *kinds.entry(poison["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        kinds
    }

    /// Where it serves its metrics, having been started with `--metrics`.
    pub fn metrics(&self) -> String {
        let mut found = None;
        until("the generator says where its metrics are", Duration::from_secs(10), || {
            let log = fs::read_to_string(&self.log).unwrap();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            found = lines.filter_map(|line| line["metrics"].as_str().map(str::to_owned)).next();
            found.is_some()
        });
        found.unwrap()
    }

    /// Whether it still sends.
    pub fn is_sending(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
