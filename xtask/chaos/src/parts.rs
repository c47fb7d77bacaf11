//! The parts of the running stack as processes: killed, put to sleep, and brought back by the program that started them.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::stack::{Stack, until};

/// A part of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The broker.
    Kafka,
    /// The schema registry.
    Registry,
    /// The process that serves; its supervisor starts it again at once when it dies, five times a minute at most, and
    /// [`bring_back`] after that.
    ClickHouse,
}

impl Part {
    /// The process that serves now.
    pub fn pid(self) -> u32 {
        let pid = self.launched();
        match self {
            Self::Kafka | Self::Registry => pid,
            Self::ClickHouse => child(pid).unwrap_or_else(|| panic!("ClickHouse is being started again")),
        }
    }

    /// SIGKILL, and gone. It is down until [`bring_back`] returns.
    pub fn kill(self) {
        kill(self.pid());
    }

    /// SIGSTOP; it goes on when the guard is dropped.
    pub fn stop(self) -> Stopped {
        let pid = self.pid();
        send(pid, Signal::STOP);
        Stopped { pid }
    }

    /// SIGKILL, and nobody starts it again until the guard is dropped.
    pub fn take_down(self) -> Stopped {
        assert_eq!(self, Self::ClickHouse, "only ClickHouse has a supervisor that can be held");
        let (supervisor, serving) = (self.launched(), self.pid());
        send(supervisor, Signal::STOP);
        let held = Stopped { pid: supervisor };
        kill(serving);
        held
    }

    /// The process that was launched: of ClickHouse, the supervisor.
    fn launched(self) -> u32 {
        let name = match self {
            Self::Kafka => "kafka",
            Self::Registry => "registry",
            Self::ClickHouse => "clickhouse",
        };
        let output = stack_command("status").arg("--json").output().unwrap();
        let parts: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("stack status: {error}: {}", String::from_utf8_lossy(&output.stderr)));
        let part = parts.as_array().unwrap().iter().find(|part| part["part"] == name);
        let pid = part.and_then(|part| part["pid"].as_u64()).unwrap_or_else(|| panic!("{name} does not run: {parts}"));
        u32::try_from(pid).unwrap()
    }
}

/// SIGKILL, and gone: for a [`Part::pid`] that was asked for before the moment that counts.
pub fn kill(pid: u32) {
    send(pid, Signal::KILL);
    until("a killed part is gone", Duration::from_secs(10), || !is_alive(pid));
}

/// A process that sleeps: a part, or the supervisor of one.
pub struct Stopped {
    pid: u32,
}

impl Drop for Stopped {
    fn drop(&mut self) {
        send(self.pid, Signal::CONT);
    }
}

/// Starts every part that is down, and waits until all of them answer.
pub fn bring_back() {
    let before = Stack::running().1;
    let output = stack_command("up").output().unwrap();
    assert!(output.status.success(), "stack up: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(Stack::running().1, before, "a part came back elsewhere: somebody has taken its port");
}

/// A command on the stack that `MILLRACE_STACK` names, by the program that started it.
fn stack_command(action: &str) -> Command {
    let xtask = env::var_os("MILLRACE_XTASK").expect(
        "cases that kill a part of the stack bring it back with xtask: set MILLRACE_XTASK to it (`cargo xtask chaos` does)",
    );
    let file = PathBuf::from(env::var_os("MILLRACE_STACK").expect("MILLRACE_STACK is set"));
    let mut command = Command::new(xtask);
    command.args(["stack", action, "--dir"]).arg(file.parent().expect("stack.json lies in the stack's folder"));
    command
}

fn send(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid is a positive number");
    kill_process(pid, signal).unwrap_or_else(|error| panic!("{signal:?} to {pid:?}: {error}"));
}

/// Whether the process runs or sleeps; one that waits for its parent to see its end does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name stands in parentheses before the state.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The one process that another has started.
pub(crate) fn child(parent: u32) -> Option<u32> {
    let children = fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten();
    let children = children.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    children.collect::<String>().split_whitespace().next()?.parse().ok()
}
