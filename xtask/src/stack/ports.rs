//! Which ports an instance listens on: free ones, and the same ones as last time where possible, so that an address
//! somebody wrote down (and Kafka's advertised listener) holds across restarts.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::{DataDir, random_hex, read_if_there, write_atomically};
use super::part::Part;

/// Ports on 127.0.0.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    pub(crate) kafka: u16,
    pub(crate) kafka_controller: u16,
    pub(crate) registry: u16,
    pub(crate) clickhouse_http: u16,
    pub(crate) clickhouse_tcp: u16,
    pub(crate) prometheus: u16,
    /// A second door of the broker, for clients that come through a proxy.
    #[serde(default)]
    pub(crate) kafka_proxied: u16,
    /// Where the broker tells those clients to find it: nobody listens there but the proxy of a test.
    #[serde(default)]
    pub(crate) kafka_proxy: u16,
    /// Doors with encryption or passwords.
    #[serde(default)]
    pub(crate) secured: SecuredPorts,
}

/// See [`super::secured::Doors`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecuredPorts {
    pub(crate) kafka_tls: u16,
    pub(crate) kafka_mtls: u16,
    pub(crate) kafka_sasl_tls: u16,
    pub(crate) kafka_sasl: u16,
    pub(crate) kafka_expired: u16,
    pub(crate) registry: u16,
}

const COUNT: usize = 14;

impl Ports {
    fn to_array(self) -> [u16; COUNT] {
        [
            self.kafka,
            self.kafka_controller,
            self.registry,
            self.clickhouse_http,
            self.clickhouse_tcp,
            self.prometheus,
            self.kafka_proxied,
            self.kafka_proxy,
            self.secured.kafka_tls,
            self.secured.kafka_mtls,
            self.secured.kafka_sasl_tls,
            self.secured.kafka_sasl,
            self.secured.kafka_expired,
            self.secured.registry,
        ]
    }

    fn from_array(ports: [u16; COUNT]) -> Self {
        let [
            kafka,
            kafka_controller,
            registry,
            clickhouse_http,
            clickhouse_tcp,
            prometheus,
            kafka_proxied,
            kafka_proxy,
            kafka_tls,
            kafka_mtls,
            kafka_sasl_tls,
            kafka_sasl,
            kafka_expired,
            registry_tls,
        ] = ports;
        Self {
            kafka,
            kafka_controller,
            registry,
            clickhouse_http,
            clickhouse_tcp,
            prometheus,
            kafka_proxied,
            kafka_proxy,
            secured: SecuredPorts {
                kafka_tls,
                kafka_mtls,
                kafka_sasl_tls,
                kafka_sasl,
                kafka_expired,
                registry: registry_tls,
            },
        }
    }

    /// The ports of one part, the one that others use first.
    pub(crate) fn of(&self, part: Part) -> Vec<u16> {
        match part {
            Part::Kafka => {
                let SecuredPorts { kafka_tls, kafka_mtls, kafka_sasl_tls, kafka_sasl, kafka_expired, .. } =
                    self.secured;
                let secured = [kafka_tls, kafka_mtls, kafka_sasl_tls, kafka_sasl, kafka_expired];
                [[self.kafka, self.kafka_controller, self.kafka_proxied].as_slice(), &secured].concat()
            }
            Part::Registry => vec![self.registry, self.secured.registry],
            Part::ClickHouse => vec![self.clickhouse_http, self.clickhouse_tcp],
            Part::Prometheus => vec![self.prometheus],
        }
    }

    /// The ports of the last `up` of this instance. A damaged file counts as none: ports can be chosen anew.
    pub(crate) fn load(dir: &DataDir) -> Result<Option<Self>> {
        let content = read_if_there(&dir.ports_file())?;
        Ok(content.and_then(|content| serde_json::from_str(&content).ok()))
    }

    pub(crate) fn save(&self, dir: &DataDir) -> Result<()> {
        let content = serde_json::to_vec_pretty(self).context("cannot encode the ports")?;
        write_atomically(&dir.ports_file(), &content, 0o644)
    }

    /// Keeps every earlier port that is free or `in_use` by a part of this very instance, and finds others.
    ///
    /// # Errors
    /// If the system has no free port.
    pub(crate) fn choose(earlier: Option<Self>, in_use: impl Fn(u16) -> bool) -> Result<Self> {
        let mut chosen = earlier.map_or([0; COUNT], Self::to_array);
        // The listeners are held until all are chosen, or the system could hand out the same port twice.
        let mut held = Vec::with_capacity(COUNT);
        for port in &mut chosen {
            if *port == 0 || in_use(*port) {
                continue;
            }
            match bind(*port) {
                Ok(listener) => held.push(listener),
                Err(_) => *port = 0,
            }
        }
        for port in chosen.iter_mut().filter(|port| **port == 0) {
            let listener = bind_any()?;
            *port = listener.local_addr().context("cannot read the port chosen")?.port();
            held.push(listener);
        }
        Ok(Self::from_array(chosen))
    }
}

/// Below the ports that the system hands out to outgoing connections (from 32768 on under Linux): a client that keeps trying
/// to reach a part that is down would be given the very port that it calls sooner or later, and so keep the part from it.
const LISTENING: Range<u16> = 10_000..32_000;

fn bind_any() -> Result<TcpListener> {
    for _ in 0..1000 {
        let random = u16::from_str_radix(&random_hex(2)?, 16).context("random digits are a number")?;
        if let Ok(listener) = bind(LISTENING.start + random % (LISTENING.end - LISTENING.start)) {
            return Ok(listener);
        }
    }
    bail!("cannot get a free port on 127.0.0.1 from {} to {}", LISTENING.start, LISTENING.end)
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ports_chosen_are_different_and_free() {
        let ports = Ports::choose(None, |_| false).unwrap().to_array();
        for (index, port) in ports.iter().enumerate() {
            assert_ne!(*port, 0);
            assert!(!ports[..index].contains(port));
            bind(*port).unwrap();
        }
    }

    #[test]
    fn earlier_ports_are_kept_when_still_free() {
        let earlier = Ports::choose(None, |_| false).unwrap();
        assert_eq!(Ports::choose(Some(earlier), |_| false).unwrap(), earlier);
    }

    #[test]
    fn only_the_port_taken_by_somebody_else_is_replaced() {
        let earlier = Ports::choose(None, |_| false).unwrap();
        let _stranger = bind(earlier.registry).unwrap();
        let chosen = Ports::choose(Some(earlier), |_| false).unwrap();
        assert_ne!(chosen.registry, earlier.registry);
        assert_eq!(Ports { registry: 0, ..chosen }, Ports { registry: 0, ..earlier });
    }

    #[test]
    fn a_port_held_by_a_part_that_survived_is_kept() {
        let earlier = Ports::choose(None, |_| false).unwrap();
        let _survivor = bind(earlier.registry).unwrap();
        let chosen = Ports::choose(Some(earlier), |port| port == earlier.registry).unwrap();
        assert_eq!(chosen, earlier);
    }
}
