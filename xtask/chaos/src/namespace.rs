//! A network namespace whose only way out is a pair of virtual interfaces, and whose way to 127.0.0.1 leads through it to
//! the loopback of the host, where the stack listens. Taking the link down parts the network for real: no packet passes,
//! and nobody is told.

use std::process::{Command, id};

use crate::config::Config;
use crate::process::Millrace;
use crate::stack::program;
use crate::world::World;

/// The host's end of the pair.
const HOST: &str = "10.213.97.1";
/// The other end, where a program inside listens and is reached from the host.
const INSIDE: &str = "10.213.97.2";

/// A namespace; it goes with this.
pub struct Namespace {
    name: String,
    link: String,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Errors
    /// The words of the command that this machine does not allow.
    pub fn new() -> Result<Self, String> {
        // At most 15 characters.
        let this = Self { name: format!("millrace-{}", id()), link: format!("mr{}", id()) };
        let (name, link, inner) = (this.name.as_str(), this.link.as_str(), format!("in{}", id()));
        ip(&["netns", "add", name])?;
        ip(&["link", "add", link, "type", "veth", "peer", "name", &inner, "netns", name])?;
        ip(&["addr", "add", &format!("{HOST}/30"), "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{}/30", INSIDE), "dev", &inner])?;
        ip(&["-n", name, "link", "set", &inner, "up"])?;
        // Its own loopback stays down, so that 127.0.0.1 is no address of its own.
        ip(&["-n", name, "route", "add", "127.0.0.1/32", "via", HOST, "src", INSIDE])?;
        let allow = |link: &str| format!("net.ipv4.conf.{link}.route_localnet=1");
        run(Command::new("sysctl").args(["-q", "-w", &allow(link)]))?;
        run(Command::new("ip").args(["netns", "exec", name, "sysctl", "-q", "-w", &allow(&inner)]))?;
        Ok(this)
    }

    /// `millrace run` inside.
    pub fn start(&self, world: &World, config: &Config) -> Millrace {
        let file = world.write(&config.clone().with("[http]", "listen", &format!("{INSIDE}:0")));
        let mut command = Command::new("ip");
        // It becomes the program: the process stays the same.
        command.args(["netns", "exec", &self.name]).arg(program("millrace"));
        Millrace::start_as(command, &file, file.with_extension("log"), &[])
    }

    /// Parts the network, or joins it again.
    pub fn set_up(&self, up: bool) {
        ip(&["link", "set", &self.link, if up { "up" } else { "down" }]).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // With the namespace goes its end of the pair, and with that the other.
        _ = ip(&["netns", "del", &self.name]);
        _ = ip(&["link", "del", &self.link]);
    }
}

pub(crate) fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}
