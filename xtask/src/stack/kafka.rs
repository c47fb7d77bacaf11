//! Kafka: one KRaft node, its configuration, its storage, and the question whether it serves.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::layout::{DataDir, random_hex, write_atomically};
use super::part::{Launch, Part};
use super::ports::Ports;
use super::secured::{self, AUDIENCE, ISSUER, KAFKA_USER, Secured, shown};

/// The collector makes no difference to the start (measured: 1.8 to 1.9 s with each). The serial one has no threads of its
/// own that would take CPU from the pipeline beside it, and pauses for a heap of 1 GB are short enough here.
/// A stack often lives for less than a minute of load, in which the optimising compiler costs two cores more than its code
/// gives back: the demo lands 123,000 events/s with it and 140,000/s without (means of two runs, live, two cores). So
/// [`FOR_SHORT_LIVES`] is left out of stacks that are measured for long.
pub(super) const JVM: [&str; 4] = ["-Xmx1g", "-Xms256m", "-XX:+UseSerialGC", "-Djava.awt.headless=true"];
pub(super) const FOR_SHORT_LIVES: &str = "-XX:TieredStopAtLevel=1";
pub(super) const LOG: [&str; 3] = [
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
    // The dump of every setting, many times per start.
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config.AbstractConfig=warn",
];

/// The mechanisms whose users are kept by Kafka itself.
pub(crate) const SCRAM: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];
/// Kafka reads keys of tokens from no address that is not listed here.
const TOKEN_KEYS: &str = "-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=";

/// Writes the configuration, formats the storage if there is none, and says how to start.
///
/// # Errors
/// If files cannot be written or the formatting fails.
pub(crate) fn prepare(dir: &DataDir, ports: &Ports, java: &Path, installed: &Path, measured: bool) -> Result<Launch> {
    let classpath = installed.join("libs/*");
    let secured = Secured::prepare(dir)?;
    if !dir.data(Part::Kafka).exists() {
        let users = secured::scram_users(&secured)?;
        format_storage(dir, java, &classpath, &cluster_id()?, &users, |data| properties(ports, data, &secured))?;
    }
    let data = dir.data(Part::Kafka);
    let properties = properties(ports, &data, &secured)?;
    let path = dir.config("server.properties");
    write_atomically(&path, properties.as_bytes(), 0o600)?;

    let short = (!measured).then_some(FOR_SHORT_LIVES);
    let mut args: Vec<_> = JVM.into_iter().chain(short).chain(LOG).map(Into::into).collect();
    args.push(format!("{TOKEN_KEYS}{}", secured.jwks_url()).into());
    args.extend(["-cp".into(), classpath.into(), "kafka.Kafka".into(), path.into()]);
    Ok(Launch {
        part: Part::Kafka,
        program: java.to_path_buf(),
        args,
        env: Default::default(),
        config: vec![properties],
    })
}

fn properties(ports: &Ports, data: &Path, secured: &Secured) -> Result<String> {
    let filled = include_str!("../../assets/server.properties")
        .replace("@BROKER_PORT@", &ports.kafka.to_string())
        .replace("@PROXIED_PORT@", &ports.kafka_proxied.to_string())
        .replace("@PROXY_PORT@", &ports.kafka_proxy.to_string())
        .replace("@CONTROLLER_PORT@", &ports.kafka_controller.to_string())
        .replace("@LOG_DIRS@", &data.display().to_string())
        .replace("@TLS_PORT@", &ports.secured.kafka_tls.to_string())
        .replace("@MTLS_PORT@", &ports.secured.kafka_mtls.to_string())
        .replace("@SASLTLS_PORT@", &ports.secured.kafka_sasl_tls.to_string())
        .replace("@SASL_PORT@", &ports.secured.kafka_sasl.to_string())
        .replace("@EXPIRED_PORT@", &ports.secured.kafka_expired.to_string())
        .replace("@CA@", &shown(&secured.file("ca.pem")))
        .replace("@SERVER@", &shown(&secured.file("server.both")))
        .replace("@EXPIRED@", &shown(&secured.file("expired.both")))
        .replace("@USER@", KAFKA_USER)
        .replace("@PASSWORD@", &secured.password()?)
        .replace("@JWKS@", &secured.jwks_url())
        .replace("@ISSUER@", ISSUER)
        .replace("@AUDIENCE@", AUDIENCE);
    Ok(filled)
}

/// Formats into a folder beside and renames it, so that the data folder is there whole or not at all. `properties` are
/// those of a node with this folder, `users` what `--add-scram` is to add.
///
/// # Errors
/// If files cannot be written or Kafka refuses.
pub(super) fn format_storage(
    dir: &DataDir,
    java: &Path,
    classpath: &Path,
    cluster_id: &str,
    users: &[String],
    properties: impl Fn(&Path) -> Result<String>,
) -> Result<()> {
    let data = dir.data(Part::Kafka);
    let new = data.with_extension("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("cannot remove {}", new.display()))?;
    }
    let path = dir.config("format.properties");
    write_atomically(&path, properties(&new)?.as_bytes(), 0o600)?;
    let output = Command::new(java)
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(classpath)
        .args(["kafka.tools.StorageTool", "format", "--cluster-id", cluster_id])
        .arg("--config")
        .arg(&path)
        .args(users.iter().flat_map(|user| ["--add-scram", user]))
        .output()
        .with_context(|| format!("cannot start {}", java.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("Kafka cannot format its storage ({}):\n{}", output.status, said.trim_end());
    }
    fs::rename(&new, &data).with_context(|| format!("cannot make {}", data.display()))
}

/// Any text of 22 characters of URL-safe base64 is one; hexadecimal digits are among them.
pub(super) fn cluster_id() -> Result<String> {
    random_hex(11)
}

/// Succeeds when a broker is registered and serves: it then stands in the answer to a metadata request.
///
/// # Errors
/// If it does not answer, or the broker is not in service yet.
pub(crate) fn probe(ports: &Ports) -> Result<()> {
    let limit = Duration::from_secs(2);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports.kafka));
    let mut stream = TcpStream::connect_timeout(&address, limit).context("no answer from Kafka")?;
    stream.set_read_timeout(Some(limit)).context("cannot set a timeout")?;
    stream.write_all(&metadata_request()).context("Kafka hangs up")?;
    let mut size = [0; 4];
    stream.read_exact(&mut size).context("Kafka does not answer a metadata request")?;
    let size = u32::from_be_bytes(size);
    ensure!(size < 1 << 20, "Kafka answers a metadata request with {size} bytes");
    let mut body = vec![0; size as usize];
    stream.read_exact(&mut body).context("Kafka breaks off its answer")?;
    ensure!(brokers_in(&body) == Some(1), "the broker is not in service yet");
    Ok(())
}

const CORRELATION_ID: i32 = 0x6d72;

/// Metadata v1 for no topic (Kafka protocol guide, "Metadata API"): size, api key 3, version, correlation id, client id,
/// number of topics.
fn metadata_request() -> Vec<u8> {
    let client = b"xtask";
    let mut body = Vec::new();
    body.extend(3i16.to_be_bytes());
    body.extend(1i16.to_be_bytes());
    body.extend(CORRELATION_ID.to_be_bytes());
    body.extend([0, client.len() as u8]);
    body.extend(client);
    body.extend(0i32.to_be_bytes());
    let mut request = (body.len() as u32).to_be_bytes().to_vec();
    request.extend(body);
    request
}

/// How many brokers the response (without its size) names.
fn brokers_in(response: &[u8]) -> Option<i32> {
    let (correlation, rest) = response.split_first_chunk()?;
    let (brokers, _) = rest.split_first_chunk()?;
    (i32::from_be_bytes(*correlation) == CORRELATION_ID).then(|| i32::from_be_bytes(*brokers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_properties_name_the_chosen_ports_on_loopback_only() {
        let root = std::env::temp_dir().join(format!("millrace-properties-{}", std::process::id()));
        let dir = DataDir::open(&root).unwrap();
        let ports = Ports::choose(None, |_| false).unwrap();
        let secured = Secured::prepare(&dir).unwrap();
        let properties = properties(&ports, Path::new("/data/kafka"), &secured).unwrap();
        let Ports { kafka, kafka_proxied, kafka_proxy, .. } = ports;
        let listeners = format!("listeners=BROKER://127.0.0.1:{kafka},PROXIED://127.0.0.1:{kafka_proxied},");
        assert!(properties.contains(&listeners));
        let advertised = format!("advertised.listeners=BROKER://127.0.0.1:{kafka},PROXIED://127.0.0.1:{kafka_proxy},");
        assert!(properties.contains(&advertised));
        let addresses = properties.lines().filter_map(|line| line.strip_prefix("listeners=")).next().unwrap();
        assert!(addresses.split(',').all(|address| address.contains("://127.0.0.1:")), "{addresses}");
        assert!(properties.contains("log.dirs=/data/kafka\n"));
        assert!(properties.contains("auto.create.topics.enable=false\n"));
        let settings = properties.lines().filter(|line| !line.starts_with('#'));
        assert_eq!(settings.filter(|line| line.replace("1@127", "").contains('@')).count(), 0);
        let again = Secured::prepare(&dir).unwrap();
        assert_eq!(again.password().unwrap(), secured.password().unwrap());
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_cluster_id_is_22_characters() {
        assert_eq!(cluster_id().unwrap().len(), 22);
    }

    #[test]
    fn an_answer_without_a_broker_is_not_ready() {
        let mut none = CORRELATION_ID.to_be_bytes().to_vec();
        none.extend(0i32.to_be_bytes());
        assert_eq!(brokers_in(&none), Some(0));
        assert_eq!(brokers_in(&none[..5]), None);
        assert_eq!(brokers_in(&[0; 8]), None, "another correlation id");
    }
}
