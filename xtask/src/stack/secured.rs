//! What the secured doors of the stack need: certificates, users of Kafka, and the key with which tokens are signed. Made
//! once for an instance; how the good ones and the bad ones are called stands in `stack.json`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use millrace_certificates::{Authority, Wanted};
use openssl::{base64::encode_block, rsa::Rsa};
use serde::Serialize;

use super::clickhouse::ADMIN;
use super::kafka::SCRAM;
use super::layout::{DataDir, random_hex, read_if_there, write_atomically};
use super::ports::Ports;
use super::registry;

/// The only name that the certificates of the servers are made out to.
pub(crate) const HOST: &str = "localhost";
/// Kafka's user, by each mechanism with a password.
pub(crate) const KAFKA_USER: &str = "millrace";
/// What a token has to say of where it comes from, and for whom it is.
pub(crate) const ISSUER: &str = "https://issuer.invalid/millrace";
pub(crate) const AUDIENCE: &str = "kafka";
/// Name of the key that signs tokens.
pub(crate) const TOKEN_KEY: &str = "stack";

/// The secured doors, as they stand in `stack.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Doors {
    /// TLS; whoever comes is let in.
    kafka_tls: String,
    /// TLS with a certificate of the client.
    kafka_mtls: String,
    /// SASL over TLS: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER.
    kafka_sasl_tls: String,
    /// SCRAM without TLS.
    kafka_sasl: String,
    /// TLS with a certificate that has expired.
    kafka_expired: String,
    /// The same API as behind `registry`.
    registry: String,
    kafka_user: &'static str,
    kafka_password_file: PathBuf,
    /// Folder of `ca.pem`, and for each name of `ca`, `other-ca`, `server`, `expired`, `client`, `admin` (a client by the name
    /// of that user of ClickHouse) and `stranger` (a client of the other authority) its certificate `.pem` and its key `.key`.
    certificates: PathBuf,
    token_key_file: PathBuf,
    token_key: &'static str,
    token_issuer: &'static str,
    token_audience: &'static str,
}

/// Where the files lie.
pub(crate) struct Secured {
    folder: PathBuf,
}

impl Secured {
    /// Makes what is not there yet.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub(crate) fn prepare(dir: &DataDir) -> Result<Self> {
        let secured = Self { folder: dir.secured() };
        // Written last.
        if !secured.password_file().exists() {
            fs::create_dir_all(&secured.folder).with_context(|| format!("cannot make {}", secured.folder.display()))?;
            secured.make_certificates()?;
            secured.make_token_key()?;
            secured.write("kafka.password", random_hex(16)?.as_bytes())?;
        }
        Ok(secured)
    }

    fn make_certificates(&self) -> Result<()> {
        let ca = Authority::new("Millrace stack")?;
        let other = Authority::new("Another authority")?;
        let server = Wanted::new("server", &[HOST]);
        for (name, issued) in [
            ("ca", ca.own()?),
            ("other-ca", other.own()?),
            ("server", ca.issue(&server)?),
            ("expired", ca.issue(&server.expired())?),
            ("client", ca.issue(&Wanted::new(KAFKA_USER, &[]))?),
            ("admin", ca.issue(&Wanted::new(ADMIN.name, &[]))?),
            ("stranger", other.issue(&Wanted::new(KAFKA_USER, &[]))?),
        ] {
            self.write(&format!("{name}.pem"), issued.certificate.as_bytes())?;
            self.write(&format!("{name}.key"), issued.key.as_bytes())?;
            // As Kafka wants them.
            self.write(&format!("{name}.both"), format!("{}{}", issued.key, issued.certificate).as_bytes())?;
        }
        Ok(())
    }

    fn make_token_key(&self) -> Result<()> {
        let key = Rsa::generate(2048).context("cannot make a key for tokens")?;
        let number = |bytes: &[u8]| encode_block(bytes).trim_end_matches('=').replace('+', "-").replace('/', "_");
        let jwks = serde_json::json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": TOKEN_KEY,
            "n": number(&key.n().to_vec()), "e": number(&key.e().to_vec()),
        }]});
        self.write("jwks.json", jwks.to_string().as_bytes())?;
        self.write("token.key", &key.private_key_to_pem().context("cannot write the key for tokens")?)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        write_atomically(&self.folder.join(name), content, 0o600)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn password_file(&self) -> PathBuf {
        self.file("kafka.password")
    }

    pub(crate) fn password(&self) -> Result<String> {
        read_if_there(&self.password_file())?.context("Kafka's password is gone; wipe this instance")
    }

    pub(crate) fn jwks_url(&self) -> String {
        format!("file://{}", self.file("jwks.json").display())
    }

    /// Where the doors are, and what opens them.
    pub(crate) fn doors(dir: &DataDir, ports: &Ports) -> Doors {
        let secured = Self { folder: dir.secured() };
        let at = |port: u16| format!("{HOST}:{port}");
        Doors {
            kafka_tls: at(ports.secured.kafka_tls),
            kafka_mtls: at(ports.secured.kafka_mtls),
            kafka_sasl_tls: at(ports.secured.kafka_sasl_tls),
            kafka_sasl: at(ports.secured.kafka_sasl),
            kafka_expired: at(ports.secured.kafka_expired),
            registry: registry::secured_url(ports),
            kafka_user: KAFKA_USER,
            kafka_password_file: secured.password_file(),
            certificates: secured.folder.clone(),
            token_key_file: secured.file("token.key"),
            token_key: TOKEN_KEY,
            token_issuer: ISSUER,
            token_audience: AUDIENCE,
        }
    }
}

/// Kafka's users with SCRAM, for the storage to be formatted with.
///
/// # Errors
/// If the password cannot be read.
pub(crate) fn scram_users(secured: &Secured) -> Result<Vec<String>> {
    let password = secured.password()?;
    Ok(SCRAM.iter().map(|mechanism| format!("{mechanism}=[name={KAFKA_USER},password={password}]")).collect())
}

/// Where `path` of the folder stands in a configuration.
pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
