//! Encryption and identity of a publisher. Secrets never show in `Debug`.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_identity::{Material, Secret, TlsFiles, TokenSource, Tokens, tokens};
use rdkafka::ClientConfig;
use serde::Deserialize;

/// How to connect to the brokers.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case", tag = "protocol", deny_unknown_fields)]
pub enum Security {
    /// Neither encryption nor authentication.
    #[default]
    Plaintext,
    /// TLS; with a certificate in `tls` the client is authenticated by it.
    Ssl {
        /// Trust and identity.
        #[serde(default)]
        tls: Tls,
    },
    /// Authentication without encryption.
    SaslPlaintext {
        /// Who we are.
        sasl: Sasl,
    },
    /// Authentication inside TLS.
    SaslSsl {
        /// Who we are.
        sasl: Sasl,
        /// Whom we trust.
        #[serde(default)]
        tls: Tls,
    },
}

/// Trust and identity for TLS. All empty: the system's certificate authorities, and no client certificate. The files are
/// read when a publisher connects: after they have changed, connect another and close this one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM file with certificate authorities.
    pub ca_file: Option<PathBuf>,
    /// PEM file with the client's certificate.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the client's key.
    pub key_file: Option<PathBuf>,
    /// Password of the key.
    pub key_password: Option<Secret>,
}

/// SASL with a user and a password, or with tokens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sasl {
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`.
    pub mechanism: String,
    /// User; not used with `OAUTHBEARER`.
    #[serde(default)]
    pub username: String,
    /// Password; not used with `OAUTHBEARER`.
    #[serde(default)]
    pub password: Secret,
    /// Where tokens come from; there exactly with `OAUTHBEARER`.
    #[serde(default)]
    pub oauth: Option<OAuth>,
}

/// An issuer of tokens: OAuth 2.0, grant type `client_credentials`. Tokens are renewed in time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth {
    /// The issuer's token endpoint.
    pub token_url: String,
    /// Who asks.
    pub client_id: String,
    /// With what.
    pub client_secret: Secret,
    /// What for; several scopes are parted by spaces.
    #[serde(default)]
    pub scope: Option<String>,
    /// For the connection to the issuer.
    #[serde(default)]
    pub tls: Tls,
}

impl Sasl {
    /// With a user and a password.
    pub fn new(mechanism: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        Self { mechanism: mechanism.into(), username: username.into(), password: Secret::new(password), oauth: None }
    }

    fn check(&self) -> Result<(), String> {
        match (self.mechanism.as_str(), &self.oauth) {
            ("OAUTHBEARER", Some(oauth)) if oauth.token_url.contains('@') => {
                Err("`security.sasl.oauth.token_url` holds a user or password; URLs end up in logs and errors"
                    .to_owned())
            }
            ("OAUTHBEARER", Some(oauth)) => oauth.tls.read("security.sasl.oauth.tls").map(drop),
            ("OAUTHBEARER", None) => Err("`security.sasl.oauth` is missing: OAUTHBEARER needs an issuer".to_owned()),
            (mechanism, Some(_)) => Err(format!("`security.sasl.oauth` is not used with {mechanism}")),
            ("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512", None) if self.username.is_empty() => {
                Err("`security.sasl.username` is empty".to_owned())
            }
            ("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512", None) => Ok(()),
            (mechanism, None) => Err(format!(
                "`security.sasl.mechanism` is {mechanism:?}; expected PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
            )),
        }
    }
}

impl Tls {
    fn files(&self, name: &str) -> Result<TlsFiles, String> {
        let client = match (&self.certificate_file, &self.key_file) {
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => return Err(format!("`{name}.key_file` is missing: the certificate needs it")),
            (None, Some(_)) => return Err(format!("`{name}.certificate_file` is missing: the key needs it")),
        };
        Ok(TlsFiles { ca: self.ca_file.clone(), client, key_password: self.key_password.clone() })
    }

    /// What the files hold; `name` is what errors call them.
    pub(crate) fn read(&self, name: &str) -> Result<Material, String> {
        Material::read(name, &self.files(name)?).map_err(|error| format!("{error:#}"))
    }
}

impl Security {
    pub(crate) fn check(&self) -> Result<(), String> {
        let (_, sasl, tls) = self.parts();
        sasl.map_or(Ok(()), Sasl::check)?;
        tls.map_or(Ok(()), |tls| tls.read("security.tls").map(drop))
    }

    fn parts(&self) -> (&'static str, Option<&Sasl>, Option<&Tls>) {
        match self {
            Self::Plaintext => ("plaintext", None, None),
            Self::Ssl { tls } => ("ssl", None, Some(tls)),
            Self::SaslPlaintext { sasl } => ("sasl_plaintext", Some(sasl), None),
            Self::SaslSsl { sasl, tls } => ("sasl_ssl", Some(sasl), Some(tls)),
        }
    }

    /// Where tokens come from, if any are needed.
    pub(crate) fn tokens(&self) -> Result<Option<Arc<Tokens>>, String> {
        let Some(oauth) = self.parts().1.and_then(|sasl| sasl.oauth.as_ref()) else { return Ok(None) };
        let source = TokenSource {
            url: oauth.token_url.clone(),
            client_id: oauth.client_id.clone(),
            client_secret: oauth.client_secret.clone(),
            scope: oauth.scope.clone(),
            tls: oauth.tls.files("security.sasl.oauth.tls")?,
        };
        tokens(&source).map(Some).map_err(|error| format!("{error:#}"))
    }

    pub(crate) fn apply(&self, config: &mut ClientConfig) {
        let (protocol, sasl, tls) = self.parts();
        config.set("security.protocol", protocol);
        if let Some(sasl) = sasl {
            config.set("sasl.mechanism", &sasl.mechanism);
            if sasl.oauth.is_none() {
                config.set("sasl.username", &sasl.username);
                config.set("sasl.password", sasl.password.expose());
            }
        }
        let Some(tls) = tls else { return };
        config.set("ssl.endpoint.identification.algorithm", "https");
        for (key, file) in [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.certificate_file),
            ("ssl.key.location", &tls.key_file),
        ] {
            if let Some(file) = file {
                config.set(key, file.to_string_lossy());
            }
        }
        if let Some(password) = &tls.key_password {
            config.set("ssl.key.password", password.expose());
        }
    }
}
