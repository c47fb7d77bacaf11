//! Encryption and identity on real parts: each way lands events once, each mistake is told in words by `millrace check`, and
//! certificates may change while it runs.

mod front;
mod issuer;
mod leaving;
mod mistakes;
mod rotation;
mod ways;

use std::{fs, path::PathBuf};

use serde::Deserialize;

use self::issuer::{CLIENT, Issuer, SECRET};
use crate::world::World;

/// The secured doors of the stack.
#[derive(Clone, Deserialize)]
pub(crate) struct Doors {
    kafka_tls: String,
    kafka_mtls: String,
    kafka_sasl_tls: String,
    kafka_sasl: String,
    kafka_expired: String,
    registry: String,
    kafka_user: String,
    kafka_password_file: PathBuf,
    certificates: PathBuf,
    token_key_file: PathBuf,
    token_key: String,
    token_issuer: String,
    token_audience: String,
}

/// Address, protocol, and the values of the keys `tls` and `sasl` of a way to Kafka.
struct Kafka<'a> {
    at: &'a str,
    protocol: &'static str,
    tls: Option<String>,
    sasl: Option<String>,
}

impl Doors {
    /// `ca_file` of an authority, and `certificate_file` and `key_file` of a client, as they stand in a configuration.
    fn files(&self, ca: &str, client: Option<&str>) -> String {
        let ca = format!("ca_file = {:?}", self.certificates.join(format!("{ca}.pem")));
        let client = client.map(|name| {
            let [certificate, key] = ["pem", "key"].map(|end| self.certificates.join(format!("{name}.{end}")));
            format!("certificate_file = {certificate:?}\nkey_file = {key:?}")
        });
        [Some(ca), client].into_iter().flatten().collect::<Vec<_>>().join("\n")
    }

    fn with_password(&self, mechanism: &str) -> String {
        format!(
            "mechanism = {mechanism:?}, username = {:?}, password_file = {:?}",
            self.kafka_user, self.kafka_password_file
        )
    }

    fn with_tokens(&self, issuer: &Issuer, secret: &str) -> String {
        format!(
            "mechanism = \"OAUTHBEARER\", oauth = {{token_url = {:?}, client_id = {CLIENT:?}, client_secret = {secret:?}, scope = \"kafka orders\", {}}}",
            issuer.url,
            self.files("ca", None)
        )
    }

    /// Whatever must never be told.
    fn secrets(&self) -> Vec<String> {
        let password = fs::read_to_string(&self.kafka_password_file).unwrap();
        vec![password, SECRET.to_owned(), "wrong-hunter2".to_owned(), "PRIVATE KEY".to_owned(), "eyJ".to_owned()]
    }
}

impl Kafka<'_> {
    fn put_into(&self, config: &str, world: &World) -> String {
        let tls = self.tls.as_ref().map(|files| format!("tls = {{{}}}\n", files.replace('\n', ", ")));
        let sasl = self.sasl.as_ref().map(|sasl| format!("sasl = {{{sasl}}}\n"));
        let lines = format!(
            "bootstrap_servers = {:?}\nsecurity_protocol = {:?}\n{}{}",
            self.at,
            self.protocol,
            tls.unwrap_or_default(),
            sasl.unwrap_or_default()
        );
        // The broker listens at one of the addresses of `localhost`.
        swapped(config, &format!("bootstrap_servers = {:?}\n", world.stack.kafka), &lines)
            .replace("[kafka.properties]\n", "[kafka.properties]\n\"broker.address.family\" = \"v4\"\n")
    }
}

/// Another URL and further keys for the registry.
fn registry(config: &str, world: &World, url: &str, more: &str) -> String {
    swapped(config, &format!("url = {:?}\n", world.stack.registry), &format!("url = {url:?}\n{more}\n"))
}

/// Another URL and further keys for ClickHouse; without `password` the user is known by its certificate.
fn clickhouse(config: &str, world: &World, url: &str, more: &str, password: bool) -> String {
    let config = swapped(config, &format!("url = {:?}\n", world.stack.clickhouse), &format!("url = {url:?}\n{more}\n"));
    let line = format!("password_file = {:?}\n", world.stack.admin.password_file);
    if password { config } else { swapped(&config, &line, "") }
}

fn swapped(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    text.replace(from, to)
}

/// `host:port` of a URL.
fn address(url: &str) -> &str {
    url.split_once("://").unwrap().1.split('/').next().unwrap()
}

/// The port of an address at the name that its certificate is not for.
fn elsewhere(address: &str) -> String {
    swapped(address, "localhost:", "127.0.0.1:")
}
