//! Tokens for Kafka's SASL OAUTHBEARER: asked for with the client's own credentials (OAuth 2.0, RFC 6749, 4.4), kept while they
//! are young, and shared by all clients of the process. librdkafka could do it itself, with libcurl; that is one TLS stack more.
//!
//! librdkafka asks for a token when a client is made, once 80 % of a token's life are over, and ten seconds after it got none.
//! It asks whoever polls the client, and that thread waits meanwhile, no longer than [`TIMEOUT`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;

use crate::{Material, Renewed, Secret, TlsFiles, bounded_body, causes};

/// Longest wait for the issuer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Far more than any token endpoint answers.
const ANSWER_BYTES: usize = 1 << 20;
/// A token is handed to another client up to this share of its life. librdkafka asks for the next after 80 %.
const YOUNG: f64 = 0.6;
/// A token that has so long to live is better than none.
const LAST_RESORT_MS: i64 = 5_000;
/// Of what an issuer says is wrong, as much goes into an error.
const SAID_CHARS: usize = 300;

static ALL: Mutex<Vec<Arc<Tokens>>> = Mutex::new(Vec::new());

/// Where tokens come from: OAuth 2.0, grant type `client_credentials` (RFC 6749, 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSource {
    /// The issuer's token endpoint.
    pub url: String,
    /// Who asks.
    pub client_id: String,
    /// With what.
    pub client_secret: Secret,
    /// What for; several scopes are parted by spaces.
    pub scope: Option<String>,
    /// For the connection to the issuer.
    pub tls: TlsFiles,
}

/// A token, for as long as it lives.
pub struct Token {
    /// The token itself, which is a secret.
    pub text: String,
    /// Whose it is.
    pub client_id: String,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: i64,
}

/// The tokens of one source.
pub struct Tokens {
    source: TokenSource,
    http: Renewed<reqwest::Client>,
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone)]
struct Kept {
    token: String,
    asked_ms: i64,
    until_ms: i64,
}

/// RFC 6749, 5.1.
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<f64>,
}

/// RFC 6749, 5.2.
#[derive(Deserialize)]
struct Refused {
    error: String,
    error_description: Option<String>,
}

/// Where tokens of a source come from: the same for all who ask for it.
///
/// # Errors
/// The files for TLS cannot be used.
pub fn tokens(source: &TokenSource) -> Result<Arc<Tokens>> {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tokens) = all.iter().find(|tokens| tokens.source == *source) {
        return Ok(Arc::clone(tokens));
    }
    let client = |material: &Material| {
        let builder = reqwest::Client::builder().tls_backend_preconfigured(material.connector()?);
        // Credentials go to the address that is configured, and nowhere else.
        let builder = builder.redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
        // A connection would belong to the runtime of one question.
        builder.pool_max_idle_per_host(0).build().context("set the client for tokens up")
    };
    let http = Renewed::new("kafka.sasl.oauth", &source.tls, client)?;
    let tokens = Arc::new(Tokens { source: source.clone(), http, kept: Mutex::new(None) });
    all.push(Arc::clone(&tokens));
    Ok(tokens)
}

impl Tokens {
    /// A young token: the one that is kept, or a new one. Others that need one wait meanwhile, and this thread does.
    ///
    /// # Errors
    /// Why the issuer gives none, in words that hold no secret.
    pub fn token(&self) -> Result<Token> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_young(now)) {
            return Ok(self.handed(kept));
        }
        match self.ask() {
            Ok(fresh) => Ok(self.handed(kept.insert(fresh))),
            Err(error) => match kept.as_ref().filter(|kept| kept.until_ms - now > LAST_RESORT_MS) {
                Some(kept) => {
                    let seconds = (kept.until_ms - now) / 1000;
                    let error = format!("{error:#}");
                    tracing::warn!(error, seconds, "no new token for Kafka; the one at hand still lives");
                    Ok(self.handed(kept))
                }
                None => Err(error),
            },
        }
    }

    fn handed(&self, kept: &Kept) -> Token {
        Token { text: kept.token.clone(), client_id: self.source.client_id.clone(), until_ms: kept.until_ms }
    }

    /// Asks on a thread of its own, since whoever polls may or may not be part of a runtime.
    fn ask(&self) -> Result<Kept> {
        let (http, source) = (self.http.get(), self.source.clone());
        let asking = thread::Builder::new().name("kafka-token".to_owned()).spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
            runtime.block_on(ask(&http, &source))
        });
        let asked = asking.context("start a thread")?.join();
        asked.map_err(|_| anyhow!("the thread that asks for tokens panicked"))?
    }
}

impl Kept {
    fn is_young(&self, now_ms: i64) -> bool {
        ((now_ms - self.asked_ms) as f64) < (self.until_ms - self.asked_ms) as f64 * YOUNG
    }
}

async fn ask(http: &reqwest::Client, source: &TokenSource) -> Result<Kept> {
    let url = &source.url;
    let mut body = "grant_type=client_credentials".to_owned();
    if let Some(scope) = &source.scope {
        body += &format!("&scope={}", encoded(scope));
    }
    let asked_ms = now_ms();
    let request = http
        .post(url)
        .basic_auth(encoded(&source.client_id), Some(encoded(source.client_secret.expose())))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(body);
    let response = request.send().await.map_err(|error| {
        let why = causes(&error);
        anyhow!("the token endpoint {url} cannot be reached ({why}): is kafka.sasl.oauth.token_url right, and kafka.sasl.oauth.ca_file?")
    })?;
    let status = response.status();
    let answer = bounded_body(response, ANSWER_BYTES).await.with_context(|| format!("read the answer of {url}"))?;
    let answer =
        answer.with_context(|| format!("the token endpoint {url} answers with more than {ANSWER_BYTES} bytes"))?;
    if !status.is_success() {
        // What it says instead may hold anything, so only what the standard has is told.
        let said = match serde_json::from_slice::<Refused>(&answer) {
            Ok(Refused { error, error_description }) => {
                let said = format!(", {error}: {}", error_description.unwrap_or_default());
                said.chars().take(SAID_CHARS).collect()
            }
            Err(_) => String::new(),
        };
        let secret = source.client_secret.expose();
        let said = if secret.is_empty() { said } else { said.replace(secret, "***") };
        bail!(
            "the token endpoint {url} gives client {} no token (HTTP {}{said}): check kafka.sasl.oauth.client_id, its secret and scope",
            source.client_id,
            status.as_u16()
        );
    }
    let granted: Granted = serde_json::from_slice(&answer).map_err(|_| {
        anyhow!("the token endpoint {url} answers with something else than a token: is it the right URL?")
    })?;
    let is_bearer = granted.token_type.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
    ensure!(is_bearer, "the token endpoint {url} gives a token of another type than Bearer");
    let seconds = granted.expires_in.filter(|seconds| *seconds > 0.0 && *seconds < 1e9);
    let seconds = seconds.with_context(|| {
        format!("the token endpoint {url} does not say for how long its token lives (expires_in), so it could not be renewed in time")
    })?;
    Ok(Kept { token: granted.access_token, asked_ms, until_ms: asked_ms + (seconds * 1000.0) as i64 })
}

/// As in the body of a form, which RFC 6749 wants for credentials as well.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_handed_on_while_it_is_young_and_renewed_before_librdkafka_asks_again() {
        let kept = Kept { token: String::new(), asked_ms: 1_000, until_ms: 101_000 };
        assert!(kept.is_young(1_000) && kept.is_young(60_999));
        assert!(!kept.is_young(61_000) && !kept.is_young(81_000));
    }

    #[test]
    fn credentials_are_encoded_as_in_a_form() {
        assert_eq!(encoded("a:b c/ü~"), "a%3Ab%20c%2F%C3%BC~");
    }
}
