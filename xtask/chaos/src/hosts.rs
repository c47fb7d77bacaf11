//! Hosts on one machine: network namespaces, each with an address of its own, on a switch in a namespace of its own to which
//! this machine is plugged in as well. A host is unplugged at the switch: no packet passes, and nobody is told.

use std::fs;
use std::process::{Command, id};

use crate::namespace::ip;

/// A switch; its hosts go with it.
pub struct Network {
    /// The first three numbers of every address.
    prefix: String,
    switch: String,
    /// This machine's interface.
    uplink: String,
}

/// A network namespace on the switch; it goes with this.
pub struct Host {
    namespace: String,
    switch: String,
    /// The switch's end of its cable.
    port: String,
    /// Its only address but the loopback.
    pub address: String,
}

impl Network {
    /// Makes one, without hosts. What a process left behind that was killed is taken away first.
    ///
    /// # Errors
    /// The words of the command that this machine does not allow.
    pub fn new() -> Result<Self, String> {
        remove_leftovers();
        let taken =
            String::from_utf8(Command::new("ip").args(["-4", "addr"]).output().map_err(|e| e.to_string())?.stdout);
        let taken = taken.map_err(|error| error.to_string())?;
        let prefix = (0..200).map(|more| format!("10.214.{}", 1 + (id() + more) % 250));
        let prefix = prefix.into_iter().find(|prefix| !taken.contains(&format!("{prefix}.")));
        let prefix = prefix.ok_or("every network of 10.214.0.0/16 is taken")?;
        // Interfaces have at most 15 characters.
        let this = Self { prefix, switch: name("switch"), uplink: format!("mrs{}", id()) };
        let (switch, uplink) = (this.switch.as_str(), this.uplink.as_str());
        ip(&["netns", "add", switch])?;
        ip(&["-n", switch, "link", "add", "switch", "type", "bridge"])?;
        ip(&["-n", switch, "link", "set", "switch", "up"])?;
        ip(&["link", "add", uplink, "type", "veth", "peer", "name", "uplink", "netns", switch])?;
        ip(&["-n", switch, "link", "set", "uplink", "master", "switch", "up"])?;
        ip(&["addr", "add", &format!("{}.1/24", this.prefix), "dev", uplink])?;
        ip(&["link", "set", uplink, "up"])?;
        Ok(this)
    }

    /// The address of the host with this number.
    pub fn address(&self, number: u8) -> String {
        format!("{}.{number}", self.prefix)
    }

    /// Makes a host, plugged in; numbers from 2 to 254, each once.
    ///
    /// # Errors
    /// The words of the command that this machine does not allow.
    pub fn host(&self, number: u8) -> Result<Host, String> {
        let this = Host {
            namespace: name(&number.to_string()),
            switch: self.switch.clone(),
            port: format!("port{number}"),
            address: self.address(number),
        };
        let (namespace, port) = (this.namespace.as_str(), this.port.as_str());
        ip(&["netns", "add", namespace])?;
        ip(&["-n", &self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace])?;
        ip(&["-n", &self.switch, "link", "set", port, "master", "switch", "up"])?;
        ip(&["-n", namespace, "addr", "add", &format!("{}/24", this.address), "dev", "eth0"])?;
        ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
        // A host talks to its own address by its loopback.
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        Ok(this)
    }
}

impl Host {
    /// A command that becomes a program on this host: the process stays the same, and ends with the thread that starts it.
    pub fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "setpriv", "--pdeathsig", "KILL"]);
        command
    }

    /// Pulls its cable, or plugs it in again.
    pub fn plug(&self, is_in: bool) {
        ip(&["-n", &self.switch, "link", "set", &self.port, if is_in { "up" } else { "down" }]).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        _ = ip(&["netns", "del", &self.namespace]);
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // With the namespace go its ends of the cables, and with them the others.
        _ = ip(&["link", "del", &self.uplink]);
        _ = ip(&["netns", "del", &self.switch]);
    }
}

fn name(what: &str) -> String {
    format!("millrace-{}-{what}", id())
}

/// Namespaces of processes that are gone; the processes in them went with those.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir("/var/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix("millrace-").and_then(|rest| rest.split_once('-')).map(|(pid, _)| pid);
        if pid.is_some_and(|pid| fs::metadata(format!("/proc/{pid}")).is_err()) {
            _ = ip(&["netns", "del", &name]);
        }
    }
}
