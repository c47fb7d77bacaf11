//! Encryption and identity, for every part: the keys of files with certificates, `[kafka.sasl]` and `[kafka.tls]`.

use axum::http::Uri;
pub use millrace_identity::{TlsFiles, TokenSource};

use super::{
    Outside, Secret, SecurityProtocol, connections, is_loopback,
    reader::{Section, boolean, choice, text},
};

/// Encryption of the connections to Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Whom to trust, and who we are.
    pub files: TlsFiles,
    /// Whether a broker's certificate must carry its host name.
    pub verify_hostname: bool,
}

/// Who we are for Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sasl {
    /// By a password.
    Password {
        /// How.
        mechanism: PasswordMechanism,
        /// Who.
        username: String,
        /// With what.
        password: Secret,
    },
    /// OAUTHBEARER: by a token that is asked for with the client's own credentials.
    Token(TokenSource),
}

/// SASL mechanism with a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordMechanism {
    /// PLAIN.
    Plain,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// SCRAM-SHA-512.
    ScramSha512,
}

#[derive(Clone, Copy, PartialEq)]
enum Mechanism {
    Password(PasswordMechanism),
    OAuthBearer,
}

const MECHANISMS: &[(&str, Mechanism)] = &[
    ("PLAIN", Mechanism::Password(PasswordMechanism::Plain)),
    ("SCRAM-SHA-256", Mechanism::Password(PasswordMechanism::ScramSha256)),
    ("SCRAM-SHA-512", Mechanism::Password(PasswordMechanism::ScramSha512)),
    ("OAUTHBEARER", Mechanism::OAuthBearer),
];

impl Sasl {
    /// As Kafka calls the mechanism.
    pub fn mechanism(&self) -> &'static str {
        let own = match self {
            Self::Password { mechanism, .. } => Mechanism::Password(*mechanism),
            Self::Token(_) => Mechanism::OAuthBearer,
        };
        MECHANISMS.iter().find(|(_, mechanism)| *mechanism == own).map_or("", |(name, _)| name)
    }
}

/// The keys `ca_file`, `certificate_file`, `key_file` and `key_password`.
pub(super) fn tls_files(section: &mut Section<'_, '_>, outside: &Outside<'_>) -> Option<TlsFiles> {
    let ca = connections::path(section, "ca_file", outside);
    let certificate = connections::path(section, "certificate_file", outside);
    let key = connections::path(section, "key_file", outside);
    let key_password = connections::secret(section, "key_password", outside);
    let client = match (certificate?, key?) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            section.report(None, "key_file", "missing: certificate_file needs it");
            return None;
        }
        (None, Some(_)) => {
            section.report(None, "certificate_file", "missing: key_file needs it");
            return None;
        }
    };
    Some(TlsFiles { ca: ca?, client, key_password: key_password? })
}

/// What should be known of a connection by HTTP: files that are not used, and secrets that cross a network in the open.
pub(super) fn http_warnings(
    name: &str,
    key: &str,
    url: &str,
    tls: &TlsFiles,
    secret: bool,
    warnings: &mut Vec<String>,
) {
    let Ok(uri) = url.parse::<Uri>() else { return };
    if uri.scheme_str() != Some("http") {
        return;
    }
    if !tls.is_empty() {
        warnings
            .push(format!("{key} begins with http: the files of {name} for TLS are not used, nothing is encrypted"));
    } else if secret && !is_loopback(uri.host().unwrap_or_default()) {
        warnings.push(format!("{key} begins with http: secrets of {name} cross the network unencrypted"));
    }
}

pub(super) fn kafka_tls(
    mut section: Section<'_, '_>,
    protocol: Option<SecurityProtocol>,
    outside: &Outside<'_>,
    warnings: &mut Vec<String>,
) -> Option<Tls> {
    let files = tls_files(&mut section, outside);
    let verify_hostname = section.or("verify_hostname", true, boolean);
    let used = matches!(protocol, None | Some(SecurityProtocol::Ssl | SecurityProtocol::SaslSsl));
    if section.is_present() && !used {
        let message = "not used unless kafka.security_protocol is \"ssl\" or \"sasl_ssl\"";
        section.report(None, "ca_file", message);
    }
    section.finish();
    if verify_hostname == Some(false) {
        warnings.push(
            "kafka.tls.verify_hostname is false: any broker with a certificate of a trusted authority is believed"
                .to_owned(),
        );
    }
    Some(Tls { files: files?, verify_hostname: verify_hostname? })
}

pub(super) fn kafka_sasl(
    mut section: Section<'_, '_>,
    protocol: Option<SecurityProtocol>,
    outside: &Outside<'_>,
    warnings: &mut Vec<String>,
) -> Option<Option<Sasl>> {
    let wanted = matches!(protocol, Some(SecurityProtocol::SaslPlaintext | SecurityProtocol::SaslSsl));
    if !section.is_present() {
        if wanted {
            section.report(None, "username", "missing: kafka.security_protocol asks for a section [kafka.sasl]");
            return None;
        }
        return Some(None);
    }
    if !wanted && protocol.is_some() {
        let message = "not used unless kafka.security_protocol is \"sasl_ssl\" or \"sasl_plaintext\"";
        section.report(None, "mechanism", message);
    }
    let mechanism = section.required("mechanism", "mechanism = \"SCRAM-SHA-512\"", choice(MECHANISMS));
    let mut oauth = section.table("oauth");
    let mechanism = mechanism.map(|found| found.value);
    if oauth.is_present() && matches!(mechanism, Some(Mechanism::Password(_))) {
        oauth.report(None, "token_url", "not used unless kafka.sasl.mechanism is \"OAUTHBEARER\"");
    }
    let sasl = match mechanism {
        Some(Mechanism::OAuthBearer) => {
            let source = token_source(&mut oauth, outside, warnings);
            for key in ["username", "password", "password_file", "password_env"] {
                if section.has(key) {
                    section.report(None, key, "not used with OAUTHBEARER: a token is asked for by [kafka.sasl.oauth]");
                }
            }
            source.map(Sasl::Token)
        }
        mechanism => {
            // So that its keys are not called unknown.
            if oauth.is_present() {
                _ = token_source(&mut oauth, outside, &mut Vec::new());
            }
            let username = section.required("username", "username = \"millrace\"", text);
            let password = connections::secret(&mut section, "password", outside);
            if matches!(password, Some(None)) {
                section.report(None, "password", "missing; expected `password_file`, `password_env` or `password`");
            }
            match (mechanism, username, password) {
                (Some(Mechanism::Password(mechanism)), Some(username), Some(Some(password))) => {
                    Some(Sasl::Password { mechanism, username: username.value, password })
                }
                _ => None,
            }
        }
    };
    oauth.finish();
    section.finish();
    sasl.map(Some)
}

fn token_source(
    section: &mut Section<'_, '_>,
    outside: &Outside<'_>,
    warnings: &mut Vec<String>,
) -> Option<TokenSource> {
    let url = connections::url_of(section, "token_url", "https://issuer.example/oauth2/token");
    let client_id = section.required("client_id", "client_id = \"millrace\"", text);
    let client_secret = connections::secret(section, "client_secret", outside);
    if matches!(client_secret, Some(None)) {
        let message = "missing; expected `client_secret_file`, `client_secret_env` or `client_secret`";
        section.report(None, "client_secret", message);
    }
    let scope = section.optional("scope", text);
    let tls = tls_files(section, outside);
    let source = TokenSource {
        url: url?,
        client_id: client_id?.value,
        client_secret: client_secret??,
        scope: scope?.map(|found| found.value),
        tls: tls?,
    };
    http_warnings("kafka.sasl.oauth", "kafka.sasl.oauth.token_url", &source.url, &source.tls, true, warnings);
    Some(source)
}
