//! Who we are and whom we trust, for both ends of Kafka: secrets that never show, certificates that are read whole, checked,
//! and read again when they change, and tokens by OAuth 2.0. It knows neither Kafka nor a configuration file.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod material;
mod renewed;
mod secret;
#[cfg(test)]
mod tests;
mod tokens;

use std::{error::Error, path::PathBuf};

pub use self::{
    material::{Identity, Material, certificates},
    renewed::{CHECK_EVERY, Renewed},
    secret::Secret,
    tokens::{Token, TokenSource, Tokens, tokens},
};

/// Files for TLS, in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate, with those between it and its authority, and its key.
    pub client: Option<(PathBuf, PathBuf)>,
    /// Of the client's key.
    pub key_password: Option<Secret>,
}

impl TlsFiles {
    /// Whether nothing is configured: the system's authorities, and no certificate of the client.
    pub fn is_empty(&self) -> bool {
        self.ca.is_none() && self.client.is_none()
    }
}

/// The body of an answer; `None` if it is longer than `limit` bytes, of which no more are read.
///
/// # Errors
/// It breaks off.
pub async fn bounded_body(mut answer: reqwest::Response, limit: usize) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The causes of an error in one line, outermost first.
pub fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some libraries repeat the cause in their own message.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text.replace(['\n', '\r'], " ")
}
