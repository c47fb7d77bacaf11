//! The issuer's public keys: fetched at the start, every few minutes, and once more when a token names a key that is not
//! among them. Without keys nobody is let in. Whatever is asked of this process, the issuer is asked by its own clock.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse},
};
use millrace_identity::{Material, TlsFiles, bounded_body};
use millrace_pipeline::retry::Backoff;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::Mutex;

use crate::{
    config::{self, is_loopback},
    random,
};

/// How often keys are fetched: a key that the issuer has withdrawn is believed so long.
const REFRESH_EVERY: Duration = Duration::from_secs(300);
/// Keys that could not be fetched again for so long are not believed any more.
const BELIEVED_FOR: Duration = Duration::from_secs(3600);
/// Least time between two fetches that tokens with unknown keys bring about.
const ON_DEMAND_EVERY: Duration = Duration::from_secs(10);
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(500), longest: Duration::from_secs(30) };
/// For the whole of one answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest document, in bytes.
const LONGEST: usize = 256 << 10;
/// Most keys of a set; those of a real issuer are two to ten.
const MOST_KEYS: usize = 64;
/// Length of an RSA modulus, in bytes: below is breakable, above costs too much.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has no such key.
    Unknown,
    /// The issuer's keys could not be fetched.
    Unavailable,
}

/// The keys of one issuer.
pub(super) struct Keys {
    jwt: config::Jwt,
    known: RwLock<Option<Arc<Set>>>,
    /// When a token brought the last fetch about; held while it lasts.
    on_demand: Mutex<Option<Instant>>,
}

struct Set {
    fetched: Instant,
    by_id: HashMap<(String, AlgorithmName), DecodingKey>,
}

/// [`Algorithm`] has no hash that is stable in meaning; its name has.
type AlgorithmName = &'static str;

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    pub(super) fn new(jwt: config::Jwt) -> Self {
        Self { jwt, known: RwLock::default(), on_demand: Mutex::default() }
    }

    /// Fetches keys now and then, for ever.
    pub(super) async fn keep_fresh(&self) {
        let mut failures = 0;
        loop {
            match self.fetch().await {
                Ok(keys) => {
                    if failures > 0 || self.known().is_none() {
                        tracing::info!(
                            issuer = self.jwt.issuer,
                            keys = keys.by_id.len(),
                            "the issuer's keys are known"
                        );
                    }
                    failures = 0;
                    self.learn(keys);
                    tokio::time::sleep(REFRESH_EVERY).await;
                }
                Err(error) => {
                    failures += 1;
                    if failures == 1 {
                        let error = format!("{error:#}");
                        tracing::warn!(
                            issuer = self.jwt.issuer,
                            error,
                            "the issuer's keys cannot be fetched; it is tried again, and the admin API lets nobody in \
                             whose key is not known"
                        );
                    }
                    tokio::time::sleep(BACKOFF.delay(failures, random())).await;
                }
            }
        }
    }

    /// The key of this id for this algorithm.
    pub(super) async fn key(&self, id: &str, algorithm: Algorithm) -> Result<DecodingKey, NoKey> {
        let wanted = (id.to_owned(), name(algorithm));
        let before = self.known();
        if let Some(key) = before.as_ref().and_then(|set| set.by_id.get(&wanted)) {
            return Ok(key.clone());
        }
        // One at a time; whoever waited looks at what the one before has brought.
        let mut last = self.on_demand.lock().await;
        let renewed = |set: &Arc<Set>| before.as_ref().is_none_or(|before| before.fetched < set.fetched);
        let due = last.is_none_or(|at| at.elapsed() >= ON_DEMAND_EVERY);
        if due && !self.known().as_ref().is_some_and(renewed) {
            match self.fetch().await {
                Ok(keys) => self.learn(keys),
                Err(error) => {
                    tracing::debug!(issuer = self.jwt.issuer, error = format!("{error:#}"), "keys were not fetched");
                }
            }
            *last = Some(Instant::now());
        }
        match self.known() {
            None => Err(NoKey::Unavailable),
            Some(set) => set.by_id.get(&wanted).cloned().ok_or(NoKey::Unknown),
        }
    }

    /// How many there are that can be used.
    pub(super) async fn count(&self) -> Result<usize> {
        Ok(self.fetch().await?.by_id.len())
    }

    fn known(&self) -> Option<Arc<Set>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.clone().filter(|set| set.fetched.elapsed() < BELIEVED_FOR)
    }

    fn learn(&self, keys: Set) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(keys));
    }

    async fn fetch(&self) -> Result<Set> {
        // Made anew each time, so that authorities are read again that have changed.
        let client = self.client()?;
        let url = match &self.jwt.jwks_url {
            Some(url) => url.clone(),
            None => self.discover(&client).await?,
        };
        let document: Document = get(&client, &url).await?;
        let keys = document.keys.into_iter().take(MOST_KEYS);
        let by_id: HashMap<_, _> = keys.filter_map(|key| usable(serde_json::from_value(key).ok()?)).collect();
        ensure!(!by_id.is_empty(), "{url} has no RSA or P-256 key for signatures with a kid");
        Ok(Set { fetched: Instant::now(), by_id })
    }

    async fn discover(&self, client: &reqwest::Client) -> Result<String> {
        let issuer = &self.jwt.issuer;
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let found: Discovery = get(client, &url).await?;
        ensure!(found.issuer == *issuer, "{url} is of issuer {:?}, expected admin.jwt.issuer {issuer:?}", found.issuer);
        let keys = reqwest::Url::parse(&found.jwks_uri).with_context(|| format!("jwks_uri of {url}"))?;
        let local = keys.scheme() == "http" && keys.host_str().is_some_and(is_loopback);
        ensure!(keys.scheme() == "https" || local, "{url} names jwks_uri {keys}; expected https");
        Ok(found.jwks_uri)
    }

    fn client(&self) -> Result<reqwest::Client> {
        let files = TlsFiles { ca: self.jwt.ca_file.clone(), ..TlsFiles::default() };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(Material::read("admin.jwt", &files)?.connector()?)
            // A redirect could lead to plain HTTP, or into this network.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT);
        builder.build().context("set the issuer's client up")
    }
}

/// A JSON document that is not too long.
async fn get<T: DeserializeOwned>(client: &reqwest::Client, url: &str) -> Result<T> {
    let answer = client.get(url).send().await.with_context(|| format!("ask {url}"))?;
    if !answer.status().is_success() {
        bail!("{url} answers {}", answer.status());
    }
    let body = bounded_body(answer, LONGEST).await.with_context(|| format!("read {url}"))?;
    let body = body.with_context(|| format!("{url} is longer than {LONGEST} bytes"))?;
    serde_json::from_slice(&body).with_context(|| format!("{url} is not what was expected"))
}

/// A key that may verify signatures of one of our algorithms.
fn usable(key: Jwk) -> Option<((String, AlgorithmName), DecodingKey)> {
    let common = &key.common;
    let algorithm = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => Algorithm::ES256,
        _ => return None,
    };
    let for_algorithm = match common.key_algorithm {
        None => true,
        Some(KeyAlgorithm::RS256) => algorithm == Algorithm::RS256,
        Some(KeyAlgorithm::ES256) => algorithm == Algorithm::ES256,
        Some(_) => false,
    };
    let for_signatures = common.public_key_use.as_ref().is_none_or(|uses| *uses == PublicKeyUse::Signature);
    let for_verifying =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let id = common.key_id.clone()?;
    let decoding = DecodingKey::from_jwk(&key).ok()?;
    let strong = match decoding.kind() {
        jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => MODULUS.contains(&n.len()),
        jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => true,
    };
    (for_algorithm && for_signatures && for_verifying && strong).then_some(((id, name(algorithm)), decoding))
}

const fn name(algorithm: Algorithm) -> AlgorithmName {
    match algorithm {
        Algorithm::RS256 => "RS256",
        Algorithm::ES256 => "ES256",
        _ => "",
    }
}
