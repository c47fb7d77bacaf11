//! The schema registry: Apicurio, speaking Confluent's API under `/apis/ccompat/v7`.
//!
//! Its store is an H2 database in a file. Schema ids are kept across restarts and a `kill -9`, which Kafka's data need:
//! every message there names its schema by id.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::http;
use super::layout::DataDir;
use super::part::{Launch, Part};
use super::ports::Ports;
use super::secured::{HOST, Secured, shown};

pub(crate) const RUNNER: &str = "apicurio-registry-app-2.6.13.Final-runner.jar";

/// The address that clients of the registry take.
pub(crate) fn url(ports: &Ports) -> String {
    url_at("127.0.0.1", ports)
}

/// The same of one that listens elsewhere.
pub(crate) fn url_at(address: &str, ports: &Ports) -> String {
    format!("http://{address}:{}/apis/ccompat/v7", ports.registry)
}

/// The same by TLS.
pub(crate) fn secured_url(ports: &Ports) -> String {
    format!("https://{HOST}:{}/apis/ccompat/v7", ports.secured.registry)
}

/// To listen on this address.
///
/// # Errors
/// If the data folder cannot be made.
pub(crate) fn prepare(dir: &DataDir, address: &str, ports: &Ports, java: &Path, installed: &Path) -> Result<Launch> {
    let data = dir.data(Part::Registry);
    fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
    let secured = Secured::prepare(dir)?;
    // WRITE_DELAY=0: an id that was given out is on disk, or messages with it could not be read after a crash.
    let database = format!("jdbc:h2:file:{};WRITE_DELAY=0", data.join("registry").display());
    let args = [
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        &format!("-Dquarkus.http.host={address}"),
        &format!("-Dquarkus.http.port={}", ports.registry),
        &format!("-Dquarkus.http.ssl-port={}", ports.secured.registry),
        "-Dquarkus.http.insecure-requests=enabled",
        &format!("-Dquarkus.http.ssl.certificate.files={}", shown(&secured.file("server.pem"))),
        &format!("-Dquarkus.http.ssl.certificate.key-files={}", shown(&secured.file("server.key"))),
        "-Dquarkus.datasource.jdbc.initial-size=2",
        "-Dquarkus.datasource.jdbc.min-size=2",
        "-Dquarkus.datasource.jdbc.max-size=20",
        "-jar",
    ];
    let mut args: Vec<_> = args.into_iter().map(Into::into).collect();
    args.push(installed.join(RUNNER).into());
    Ok(Launch {
        part: Part::Registry,
        program: java.to_path_buf(),
        args,
        env: [("REGISTRY_DATASOURCE_URL", database.into())].into(),
        config: Vec::new(),
    })
}

/// # Errors
/// Until it answers for its subjects.
pub(crate) fn probe(ports: &Ports) -> Result<()> {
    http::get(&format!("{}/subjects", url(ports))).map(drop)
}
