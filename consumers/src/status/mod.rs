//! Asks a running `millrace` how it is, over its admin API. It changes nothing there.

pub mod answer;
pub mod text;
pub mod units;

use std::{
    error::Error,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use millrace_identity::bounded_body;
use reqwest::{Certificate, Identity, StatusCode, redirect};
use serde::Deserialize;
use serde_json::Value;

use self::answer::Answer;
use crate::config::Secret;

/// Far more than a status of a thousand partitions has.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Where to ask, and as whom.
#[derive(Clone, Debug)]
pub struct Door {
    /// Base URL of the admin API.
    pub url: String,
    /// Holds an access token; read for each request, since tokens are renewed.
    pub token_file: Option<PathBuf>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate and key in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Longest wait for an answer.
    pub timeout: Duration,
}

/// A client of one admin API.
pub struct Client {
    http: reqwest::Client,
    door: Door,
}

impl Client {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// A certificate or key cannot be read or is not PEM.
    pub fn new(door: Door) -> Result<Self> {
        let mut builder = reqwest::Client::builder()
            .timeout(door.timeout)
            // A token must not follow to another place, and a proxy is no way to a loopback address.
            .redirect(redirect::Policy::none())
            .no_proxy();
        if let Some(file) = &door.ca_file {
            let authorities = Certificate::from_pem_bundle(&read(file, "--ca-file")?)
                .with_context(|| format!("parse --ca-file {} as PEM", file.display()))?;
            ensure!(!authorities.is_empty(), "--ca-file {} holds no certificate in PEM", file.display());
            builder = builder.tls_certs_only(authorities);
        }
        if let Some((certificate, key)) = &door.certificate {
            let identity = Identity::from_pkcs8_pem(
                &read(certificate, "--certificate-file")?,
                &read(key, "--key-file")?,
            )
            .with_context(|| {
                let (certificate, key) = (certificate.display(), key.display());
                format!("use --certificate-file {certificate} with --key-file {key} (expected PEM, the key as PKCS #8)")
            })?;
            builder = builder.identity(identity);
        }
        Ok(Self { http: builder.build().context("set up the client of the admin API")?, door })
    }

    /// Asks for the status; as it came, and as it is understood.
    ///
    /// # Errors
    /// In words for people: nobody answers, the token is missing or refused, or the answer is none of Millrace's.
    pub async fn status(&self) -> Result<(Value, Answer)> {
        let url = format!("{}/v1/status", self.door.url.trim_end_matches('/'));
        let mut request = self.http.get(&url);
        if let Some(file) = &self.door.token_file {
            let text = fs::read_to_string(file).with_context(|| format!("read --token-file {}", file.display()))?;
            request = request.bearer_auth(Secret::new(text.trim()).expose());
        }
        let asked = async {
            let response = request.send().await?;
            let status = response.status();
            Ok((status, bounded_body(response, MAX_ANSWER_BYTES).await?))
        };
        let (status, body) =
            asked.await.map_err(|error| anyhow!("{url}: {}", explain(&error, self.door.timeout, "admin")))?;
        if status != StatusCode::OK {
            bail!("{url} answers {status}: {}", self.advice(status));
        }
        let value: Value = body.and_then(|body| serde_json::from_slice(&body).ok()).with_context(|| {
            format!("{url}: the answer is no JSON; is this the address in admin.listen of a `millrace run`?")
        })?;
        let answer = Answer::deserialize(&value)
            .with_context(|| format!("{url}: the answer is no status as this version (see --version) knows it"))?;
        Ok((value, answer))
    }

    fn advice(&self, status: StatusCode) -> &'static str {
        match (status, &self.door.token_file) {
            (StatusCode::UNAUTHORIZED, None) => "it wants an access token; give --token-file",
            (StatusCode::UNAUTHORIZED, Some(_)) => {
                "the token in --token-file is not accepted: expired, of another issuer or for another audience; its log says \
                 which"
            }
            (StatusCode::FORBIDDEN, _) => "whoever this is has no permission status:read",
            (StatusCode::NOT_FOUND, _) => "no admin API there; its address is admin.listen, not that of metrics",
            (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE, _) => "it is busy; try again",
            _ => "expected 200",
        }
    }
}

/// Asks `/healthz` or `/readyz` of a process on this machine: whether it is, and its own words.
///
/// # Errors
/// In words for people: nobody answers.
pub async fn health(url: &str, timeout: Duration) -> Result<(bool, String)> {
    let client = reqwest::Client::builder().timeout(timeout).no_proxy().build().context("set up the client")?;
    let asked = async {
        let response = client.get(url).send().await?;
        let well = response.status() == StatusCode::OK;
        Ok((well, bounded_body(response, MAX_ANSWER_BYTES).await?))
    };
    let (well, body) = asked.await.map_err(|error| anyhow!("{url}: {}", explain(&error, timeout, "http")))?;
    Ok((well, String::from_utf8_lossy(&body.unwrap_or_default()).into_owned()))
}

/// Why no answer came, in words; the server listens on the key `listen` of this section.
fn explain(error: &reqwest::Error, timeout: Duration, section: &str) -> String {
    let causes = || std::iter::successors(error.source(), |cause| (*cause).source());
    if error.is_timeout() {
        return format!("no answer within {timeout:?}");
    }
    if let Some(tls) = causes().find_map(|cause| cause.downcast_ref::<native_tls::Error>()) {
        return format!(
            "TLS handshake failed: {tls}; expected a certificate for this host name by an authority in --ca-file (or of \
             the system), and https only where the server speaks it"
        );
    }
    let refused = |cause: &io::Error| cause.kind() == io::ErrorKind::ConnectionRefused;
    if causes().filter_map(|cause| cause.downcast_ref()).any(refused) {
        return format!(
            "connection refused: nothing listens there; is `millrace run` up, with this address in {section}.listen?"
        );
    }
    let root = causes().last().map_or_else(|| error.to_string(), ToString::to_string);
    match error.url().map(|url| url.scheme()) {
        Some("https") => {
            format!("{root}; if the server asks for a client certificate: --certificate-file and --key-file")
        }
        _ => format!("{root}; if the server speaks TLS, the URL begins with https"),
    }
}

fn read(file: &Path, argument: &str) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {argument} {}", file.display()))
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::header, routing::get};
    use tokio::net::TcpListener;

    use super::*;

    fn door(url: String) -> Door {
        Door { url, token_file: None, ca_file: None, certificate: None, timeout: Duration::from_secs(5) }
    }

    async fn serve(routes: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        url
    }

    async fn error(door: Door) -> String {
        format!("{:#}", Client::new(door).unwrap().status().await.err().unwrap())
    }

    #[tokio::test]
    async fn an_answer_is_understood_and_kept_as_it_came() {
        let example = include_str!("example.json");
        let url = serve(Router::new().route("/v1/status", get(move || async move { example }))).await;
        let (value, answer) = Client::new(door(format!("{url}/"))).unwrap().status().await.unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(example).unwrap());
        assert_eq!((answer.topics.len(), answer.topics[0].rows), (2, 11_727_353));
    }

    #[tokio::test]
    async fn the_token_is_read_for_each_request_and_never_told() {
        let echo = |headers: axum::http::HeaderMap| async move {
            let authorized = headers.get(header::AUTHORIZATION).is_some_and(|value| value == "Bearer second");
            if authorized {
                (axum::http::StatusCode::OK, "no status")
            } else {
                (axum::http::StatusCode::UNAUTHORIZED, "")
            }
        };
        let url = serve(Router::new().route("/v1/status", get(echo))).await;
        let file = std::env::temp_dir().join(format!("millrace-token-{}", uuid::Uuid::new_v4()));
        fs::write(&file, "first\n").unwrap();
        let client = Client::new(Door { token_file: Some(file.clone()), ..door(url.clone()) }).unwrap();
        let refused = format!("{:#}", client.status().await.err().unwrap());
        assert!(refused.contains("401") && refused.contains("not accepted") && !refused.contains("first"), "{refused}");
        fs::write(&file, "second\n").unwrap();
        let understood = format!("{:#}", client.status().await.err().unwrap());
        assert!(understood.contains("no JSON"), "{understood}");
        fs::remove_file(&file).unwrap();
        let missing = format!("{:#}", client.status().await.err().unwrap());
        assert!(missing.contains("read --token-file"), "{missing}");
        assert!(error(door(url)).await.contains("give --token-file"));
    }

    #[tokio::test]
    async fn errors_say_what_to_do() {
        let forbidden = || async { axum::http::StatusCode::FORBIDDEN };
        let url = serve(Router::new().route("/v1/status", get(forbidden))).await;
        assert!(error(door(url.clone())).await.contains("permission status:read"));
        assert!(error(door(format!("{url}/elsewhere"))).await.contains("no admin API there"));
        // A server that speaks no TLS.
        let tls = error(door(url.replace("http:", "https:"))).await;
        assert!(tls.contains("TLS handshake failed"), "{tls}");

        let other = serve(Router::new().route("/v1/status", get(|| async { "{\"version\": 1}" }))).await;
        assert!(error(door(other)).await.contains("no status as this version"));

        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let refused = error(door(format!("http://{nobody}"))).await;
        assert!(refused.contains("connection refused") && refused.contains("admin.listen"), "{refused}");

        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let late = error(Door { timeout: Duration::from_millis(50), ..door(url) }).await;
        assert!(late.contains("no answer within 50ms"), "{late}");
    }

    #[test]
    fn a_file_that_is_no_certificate_is_named() {
        for (file, expected) in
            [("Cargo.toml", "Cargo.toml holds no certificate"), ("missing.pem", "--ca-file missing.pem")]
        {
            let door = Door { ca_file: Some(file.into()), ..door("https://localhost".to_owned()) };
            let error = format!("{:#}", Client::new(door).err().unwrap());
            assert!(error.contains(expected), "{error}");
        }
        let certificate = Some(("Cargo.toml".into(), "Cargo.toml".into()));
        let error = Client::new(Door { certificate, ..door("https://localhost".to_owned()) }).err().unwrap();
        assert!(format!("{error:#}").contains("--certificate-file Cargo.toml"), "{error:#}");
    }
}
