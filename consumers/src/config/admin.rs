//! The section `[admin]`: who may ask this process for its status and command it, and how. It opens no port.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use axum::http::Uri;
use toml::de::DeValue;

use super::{
    Outside,
    connections::path,
    reader::{Found, Section, boolean, choice, duration, integer, mismatch, parsed, text},
};

const SECOND: Duration = Duration::from_secs(1);

/// The listener for status and commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Address and port; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Who is let in; `None` lets everybody in who reaches the address, which is a loopback one then.
    pub jwt: Option<Jwt>,
    /// Encryption; there unless the address is a loopback one, or it was switched off by name.
    pub tls: Option<AdminTls>,
    /// Connections open at once; more wait to be accepted.
    pub max_connections: usize,
    /// Longest time for a request, from its first byte to the answer; half of it for the header.
    pub request_timeout: Duration,
}

/// Certificate and key of the listener, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminTls {
    /// The certificate, followed by those between it and its authority.
    pub certificate_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
    /// The authorities of clients' certificates; if it is there, a client without one is refused.
    pub client_ca_file: Option<PathBuf>,
}

/// Whose tokens count, and what they allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// Claim `iss`, to the letter.
    pub issuer: String,
    /// One of claim `aud`.
    pub audience: String,
    /// Where the issuer's keys are; else its discovery document tells.
    pub jwks_url: Option<String>,
    /// PEM file of the authorities to trust for the issuer, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Signatures that count; none but these.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// How an access token is told from other tokens of the issuer.
    pub token_type: TokenType,
    /// The claim that holds the roles, by its name or, where there is none of it, by a path of names joined by dots.
    pub roles_claim: String,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The roles that have each permission.
    pub permissions: BTreeMap<Permission, Vec<String>>,
}

/// Algorithm of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// RSA, PKCS #1 1.5, SHA-256.
    Rs256,
    /// ECDSA on P-256, SHA-256.
    Es256,
}

/// How an access token is told from other tokens of the issuer. Whatever the choice, a token with marks of an ID token
/// (`nonce`, `at_hash`, `c_hash`, `s_hash`) is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenType {
    /// By the header `typ` of RFC 9068: `at+jwt`.
    Header,
    /// By the claim `typ`: `Bearer`, as Keycloak has it.
    Claim,
    /// By nothing but the absence of those marks, and by its audience.
    Unmarked,
}

/// What somebody may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    /// Read the status.
    StatusRead,
    /// Ask named queries.
    QueriesRead,
    /// Pause and resume topics.
    TopicsControl,
    /// Drain the process and set its log level.
    ProcessControl,
    /// Start and stop replays of dead letters, and read how far one is.
    DeadLettersReplay,
}

impl Permission {
    /// All, in the order of the configuration.
    pub const ALL: [Self; 5] =
        [Self::StatusRead, Self::QueriesRead, Self::TopicsControl, Self::ProcessControl, Self::DeadLettersReplay];

    /// As in answers and log lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StatusRead => "status:read",
            Self::QueriesRead => "queries:read",
            Self::TopicsControl => "topics:control",
            Self::ProcessControl => "process:control",
            Self::DeadLettersReplay => "dead_letters:replay",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::StatusRead => "status_read",
            Self::QueriesRead => "queries_read",
            Self::TopicsControl => "topics_control",
            Self::ProcessControl => "process_control",
            Self::DeadLettersReplay => "dead_letters_replay",
        }
    }
}

const ALGORITHMS: &[(&str, SignatureAlgorithm)] =
    &[("RS256", SignatureAlgorithm::Rs256), ("ES256", SignatureAlgorithm::Es256)];

const TOKEN_TYPES: &[(&str, TokenType)] =
    &[("at+jwt", TokenType::Header), ("claim", TokenType::Claim), ("unmarked", TokenType::Unmarked)];

/// `Some(None)` without the section: then there is no such listener.
pub(super) fn read(
    mut section: Section<'_, '_>,
    outside: &Outside<'_>,
    warnings: &mut Vec<String>,
) -> Option<Option<Admin>> {
    if !section.is_present() {
        return Some(None);
    }
    let expected = "an IP address and port, as in \"127.0.0.1:9465\" or \"[::]:9465\"";
    let listen = section.optional("listen", parsed(expected, |text| text.parse().ok()));
    let auth = section.or("auth", true, choice(&[("jwt", true), ("none", false)]));
    let plaintext = section.or("insecure_plaintext", false, boolean);
    let max_connections = section.or("max_connections", 64, integer(1..=10_000));
    let request_timeout = section.or("request_timeout", 10 * SECOND, duration(SECOND..=60 * SECOND));
    let tls = tls(section.table("tls"), outside);
    let (jwt_section, roles) = (section.table("jwt"), section.table("permissions"));
    let jwt = match auth {
        Some(false) => {
            if jwt_section.is_present() {
                jwt_section.report(None, "issuer", "not used with admin.auth = \"none\"; take one of them out");
            }
            Some(None)
        }
        _ => jwt(jwt_section, roles, outside, warnings).map(Some),
    };
    let listen = listen?;
    let default = || Found { value: SocketAddr::from(([127, 0, 0, 1], 9465)), at: None };
    let Found { value: listen, at } = listen.unwrap_or_else(default);
    if !listen.ip().is_loopback() {
        if auth == Some(false) {
            let message = format!(
                "{listen} can be reached from other machines, and admin.auth = \"none\" would let all of them command \
                 this process; expected a loopback address such as \"127.0.0.1:9465\", or auth = \"jwt\""
            );
            section.report(at.clone(), "listen", message);
        }
        if matches!((&tls, plaintext), (Some(None), Some(false))) {
            let message = format!(
                "{listen} can be reached from other machines, and without TLS anybody on the way can read tokens and use \
                 them; expected a section [admin.tls], a loopback address, or insecure_plaintext = true where something \
                 in front of this process encrypts"
            );
            section.report(at, "listen", message);
        }
        if matches!((&tls, plaintext), (Some(None), Some(true))) {
            warnings.push(format!(
                "admin.insecure_plaintext is true: tokens for {listen} travel unencrypted unless something in front of \
                 this process encrypts"
            ));
        }
    }
    if auth == Some(false) {
        warnings.push(
            "admin.auth is \"none\": everybody on this machine may pause topics, drain this process and replay dead letters"
                .to_owned(),
        );
    }
    section.finish();
    Some(Some(Admin {
        listen,
        jwt: jwt?,
        tls: tls?,
        max_connections: max_connections?,
        request_timeout: request_timeout?,
    }))
}

fn tls(mut section: Section<'_, '_>, outside: &Outside<'_>) -> Option<Option<AdminTls>> {
    if !section.is_present() {
        return Some(None);
    }
    let certificate = path(&mut section, "certificate_file", outside);
    let key = path(&mut section, "key_file", outside);
    let client_ca_file = path(&mut section, "client_ca_file", outside);
    for (name, found) in [("certificate_file", &certificate), ("key_file", &key)] {
        if matches!(found, Some(None)) {
            section.report(
                None,
                name,
                format!("missing; expected something like `{name} = \"/etc/millrace/admin.pem\"`"),
            );
        }
    }
    section.finish();
    Some(Some(AdminTls { certificate_file: certificate??, key_file: key??, client_ca_file: client_ca_file? }))
}

fn jwt(
    mut section: Section<'_, '_>,
    mut roles: Section<'_, '_>,
    outside: &Outside<'_>,
    warnings: &mut Vec<String>,
) -> Option<Jwt> {
    let issuer = section.required("issuer", "issuer = \"https://id.example.com/realms/shop\"", text);
    let audience = section.required("audience", "audience = \"millrace\"", text);
    let jwks_url = section.optional("jwks_url", text);
    let ca_file = path(&mut section, "ca_file", outside);
    let both = vec![SignatureAlgorithm::Rs256, SignatureAlgorithm::Es256];
    let algorithms = section.or("algorithms", both, |value| each(value, choice_of(ALGORITHMS)));
    let token_type = section.or("token_type", TokenType::Header, choice(TOKEN_TYPES));
    let roles_claim = section.or("roles_claim", "roles".to_owned(), text);
    let leeway = section.or("leeway", 30 * SECOND, duration(Duration::ZERO..=300 * SECOND));
    // Where keys are fetched from; with jwks_url the issuer is only compared.
    let fetched = match (&issuer, &jwks_url) {
        (_, Some(Some(url))) => Some(("jwks_url", url.clone())),
        (Some(issuer), Some(None)) => Some(("issuer", issuer.clone())),
        _ => None,
    };
    if let Some((key, url)) = fetched
        && let Some(complaint) = complaint(&url.value)
    {
        section.report(url.at, key, complaint);
    }
    match token_type {
        Some(TokenType::Header) | None => {}
        Some(TokenType::Claim) => warnings.push(
            "admin.jwt.token_type is \"claim\": access tokens are known by their claim typ = \"Bearer\" instead of the \
             header of RFC 9068"
                .to_owned(),
        ),
        Some(TokenType::Unmarked) => warnings.push(
            "admin.jwt.token_type is \"unmarked\": an ID token of the issuer without nonce and at_hash would pass for an \
             access token; see to it that none has this audience"
                .to_owned(),
        ),
    }
    let mut permissions = Some(BTreeMap::new());
    for permission in Permission::ALL {
        match (roles.or(permission.key(), Vec::new(), |value| each(value, text)), &mut permissions) {
            (Some(roles), Some(permissions)) => _ = permissions.insert(permission, roles),
            (found, permissions) => *permissions = permissions.take().filter(|_| found.is_some()),
        }
    }
    if permissions.as_ref().is_some_and(|permissions| permissions.values().all(Vec::is_empty)) {
        let message = "no role has any permission, so nobody could do anything; expected at least \
                       `status_read = [\"millrace-viewer\"]` in [admin.permissions]";
        roles.report(None, Permission::StatusRead.key(), message);
    }
    section.finish();
    roles.finish();
    Some(Jwt {
        issuer: issuer?.value,
        audience: audience?.value,
        jwks_url: jwks_url?.map(|found| found.value),
        ca_file: ca_file?,
        algorithms: algorithms?,
        token_type: token_type?,
        roles_claim: roles_claim?,
        leeway: leeway?,
        permissions: permissions?,
    })
}

/// An array, not empty, each element of which `read` understands.
pub(super) fn each<T>(value: &DeValue<'_>, read: impl Fn(&DeValue<'_>) -> Result<T, String>) -> Result<Vec<T>, String> {
    let elements = value.as_array().filter(|elements| elements.iter().next().is_some());
    let Some(elements) = elements else {
        return Err(mismatch(value, "a list in brackets that is not empty"));
    };
    elements.iter().map(|element| read(element.get_ref())).collect()
}

fn choice_of<T: Copy>(names: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| choice(names)(value)
}

/// What is wrong with a URL that keys are fetched from.
fn complaint(url: &str) -> Option<String> {
    let parsed: Option<Uri> = url.parse().ok();
    let host = parsed.as_ref().and_then(Uri::host).filter(|host| !host.is_empty());
    let (Some(parsed), Some(host)) = (&parsed, host) else {
        return Some(format!("found {url:?}, expected a URL such as \"https://id.example.com/realms/shop\""));
    };
    if url.contains(['@', '?', '#']) {
        return Some("holds a user, query or fragment; expected scheme, host, port and path only".to_owned());
    }
    match parsed.scheme_str() {
        Some("https") => None,
        Some("http") if is_loopback(host) => None,
        _ => Some(format!(
            "found {url:?}: whoever is on the way could put keys of its own in place of the issuer's; expected https \
             (http only of this machine)"
        )),
    }
}

/// Whether a host of a URL is this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
