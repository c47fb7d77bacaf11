//! The sections `[registry]`, `[clickhouse]`, `[http]`, `[log]` and `[shutdown]`, and what sections share: URLs,
//! secrets, paths and identifiers. It opens no connection.

use std::{path::PathBuf, time::Duration};

use axum::http::Uri;

use super::{
    ClickHouse, Compression, Credentials, Http, Log, LogFormat, LogLevel, Outside, Registry, Secret, Shutdown,
    TlsFiles,
    reader::{Found, Section, choice, duration, integer, parsed, text},
    security, shards,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn registry(
    mut section: Section<'_, '_>,
    outside: &Outside<'_>,
    warnings: &mut Vec<String>,
) -> Option<Registry> {
    let url = url(&mut section, "http://localhost:8081");
    let username = section.optional("username", text);
    let password = secret(&mut section, "password", outside);
    let token = secret(&mut section, "token", outside);
    let tls = security::tls_files(&mut section, outside);
    let request_timeout = section.or("request_timeout", 10 * SECOND, duration(100 * MILLISECOND..=HOUR));
    let credentials = match (username?, password?) {
        (None, None) => Some(token?.map(Credentials::Token)),
        (Some(username), _) if matches!(token, Some(Some(_))) => {
            section.report(username.at, "username", "not used with a token: keep one of them");
            None
        }
        (Some(username), Some(password)) => Some(Some(Credentials::Password(username.value, password))),
        (Some(username), None) => {
            section.report(username.at, "username", "needs a password: add `password_file` or `password_env`");
            None
        }
        (None, Some(_)) => {
            section.report(None, "username", "missing: there is a password, so say whose it is");
            None
        }
    };
    section.finish();
    let (url, credentials, tls) = (url?, credentials?, tls?);
    security::http_warnings("registry", "registry.url", &url, &tls, credentials.is_some(), warnings);
    Some(Registry { url, credentials, tls, request_timeout: request_timeout? })
}

pub(super) fn clickhouse(
    mut section: Section<'_, '_>,
    outside: &Outside<'_>,
    warnings: &mut Vec<String>,
) -> Option<ClickHouse> {
    let timeout = || duration(100 * MILLISECOND..=HOUR);
    let shards = shards::read(&mut section);
    let url = match shards.as_deref() {
        Some([]) => url(&mut section, "http://localhost:8123"),
        _ if section.has("url") => {
            let message = "not used with [[clickhouse.shards]]: keep `url` for one server, or the shards for a cluster";
            section.report(None, "url", message);
            None
        }
        shards => shards.and_then(|shards| shards.first()?.replicas.first().cloned()),
    };
    let cluster = section.optional("cluster", text);
    let database = section.required("database", "database = \"millrace\"", identifier);
    let user = section.required("user", "user = \"millrace\"", text);
    let password = secret(&mut section, "password", outside);
    let tls = security::tls_files(&mut section, outside);
    let claims_table = section.or("claims_table", "claims".to_owned(), identifier);
    let connect_timeout = section.or("connect_timeout", 5 * SECOND, timeout());
    let insert_timeout = section.or("insert_timeout", 60 * SECOND, timeout());
    let query_timeout = section.or("query_timeout", 30 * SECOND, timeout());
    let inserts_in_flight = section.or("inserts_in_flight", 2, integer(1..=8));
    let compressions = [("none", Compression::None), ("lz4", Compression::Lz4)];
    let compression = section.or("compression", Compression::None, choice(&compressions));
    if matches!((&password, &tls), (Some(None), Some(TlsFiles { client: None, .. }))) {
        let message = "missing; expected `password_file`, `password_env`, `password` (which may be empty), or a `certificate_file` by which the user is known";
        section.report(None, "password", message);
    }
    section.finish();
    let (url, shards, cluster, password, tls) = (url?, shards?, cluster?, password?, tls?);
    let secret = password.as_ref().is_some_and(|password| !password.expose().is_empty());
    if shards.is_empty() {
        security::http_warnings("clickhouse", "clickhouse.url", &url, &tls, secret, warnings);
    } else {
        // One that is open is told once, whichever it is.
        let all = shards.iter().flat_map(|shard| &shard.replicas);
        let open = all.clone().find(|url| url.starts_with("http:")).unwrap_or(&url);
        security::http_warnings("clickhouse", "clickhouse.shards.replicas", open, &tls, secret, warnings);
    }
    Some(ClickHouse {
        url,
        shards,
        cluster: cluster.map(|found| found.value),
        database: database?.value,
        user: user?.value,
        password,
        tls,
        claims_table: claims_table?,
        connect_timeout: connect_timeout?,
        insert_timeout: insert_timeout?,
        query_timeout: query_timeout?,
        inserts_in_flight: inserts_in_flight?,
        compression: compression?,
    })
}

pub(super) fn http(mut section: Section<'_, '_>) -> Option<Http> {
    let default = ([127, 0, 0, 1], 9400).into();
    let expected = "an IP address and port, as in \"127.0.0.1:9400\" or \"[::]:9400\"";
    let listen = section.or("listen", default, parsed(expected, |text| text.parse().ok()));
    section.finish();
    Some(Http { listen: listen? })
}

pub(super) fn log(mut section: Section<'_, '_>) -> Option<Log> {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.or("format", LogFormat::Auto, choice(&formats));
    let level = section.or("level", LogLevel::Info, choice(LogLevel::NAMES));
    let repeat_interval = section.or("repeat_interval", 10 * SECOND, duration(Duration::ZERO..=HOUR));
    section.finish();
    Some(Log { format: format?, level: level?, repeat_interval: repeat_interval? })
}

pub(super) fn shutdown(mut section: Section<'_, '_>) -> Option<Shutdown> {
    // A consumer that does not poll for five minutes is thrown out of its group.
    let drain_timeout = section.or("drain_timeout", 20 * SECOND, duration(Duration::ZERO..=240 * SECOND));
    let stay_stopped = section.or("stay_stopped", 300 * SECOND, duration(Duration::ZERO..=24 * HOUR));
    section.finish();
    Some(Shutdown { drain_timeout: drain_timeout?, stay_stopped: stay_stopped? })
}

/// The key `url`, see [`url_of`].
fn url(section: &mut Section<'_, '_>, example: &str) -> Option<String> {
    url_of(section, "url", example)
}

/// A URL, see [`without_secrets`].
pub(super) fn url_of(section: &mut Section<'_, '_>, key: &'static str, example: &str) -> Option<String> {
    let found = section.required(key, &format!("{key} = \"{example}\""), text)?;
    without_secrets(section, key, found, example)
}

/// A URL that was found under a key: http or https, a host, perhaps a port and a path, and nothing secret.
pub(super) fn without_secrets(
    section: &mut Section<'_, '_>,
    key: &'static str,
    found: Found<String>,
    example: &str,
) -> Option<String> {
    match complaint_of_url(&found.value, example) {
        None => Some(without_slash(&found.value)),
        Some(complaint) => {
            section.report(found.at, key, complaint);
            None
        }
    }
}

/// What is wrong with a URL that must have http or https, a host, perhaps a port and a path, and nothing secret.
pub(super) fn complaint_of_url(url: &str, example: &str) -> Option<String> {
    match url.parse::<Uri>() {
        _ if url.contains('@') => Some(
            "holds a user or password; URLs end up in logs: use the keys for user and password beside it".to_owned(),
        ),
        _ if url.contains(['?', '#']) => {
            Some("has a query or fragment; expected scheme, host, port and path only".to_owned())
        }
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty()) => {
            None
        }
        _ => Some(format!("found {url:?}, expected a URL such as \"{example}\"")),
    }
}

/// A URL to which paths are added.
pub(super) fn without_slash(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// The key, or the key with `_file` or `_env`; at most one of them. `Some(None)` if there is none.
pub(super) fn secret(
    section: &mut Section<'_, '_>,
    key: &'static str,
    outside: &Outside<'_>,
) -> Option<Option<Secret>> {
    let [in_file, in_environment] = match key {
        "key_password" => ["key_password_file", "key_password_env"],
        "headers" => ["headers_file", "headers_env"],
        "client_secret" => ["client_secret_file", "client_secret_env"],
        "token" => ["token_file", "token_env"],
        _ => ["password_file", "password_env"],
    };
    // The value itself is never part of a message.
    let plain = section
        .optional(key, |value| value.as_str().map(str::to_owned).ok_or_else(|| "expected a text in quotes".to_owned()));
    let file = section.optional(in_file, text);
    let variable = section.optional(in_environment, text);
    let given: Vec<&str> = [(key, key), (in_file, in_file), (in_environment, in_environment)]
        .into_iter()
        .filter_map(|(key, name)| section.has(key).then_some(name))
        .collect();
    if given.len() > 1 {
        let message = format!("given more than once, as {}; keep one of them", given.join(" and "));
        section.report(None, key, message);
        return None;
    }
    if let Some(file) = file? {
        let path = outside.directory.join(&file.value);
        return match (outside.file)(&path) {
            // A file made by an editor ends in a newline, which is no part of the password.
            Ok(text) => Some(Some(Secret::new(text.trim_end_matches(['\n', '\r'])))),
            Err(error) => {
                let message = format!("the file {} cannot be read: {error}", path.display());
                section.report(file.at, in_file, message);
                None
            }
        };
    }
    if let Some(variable) = variable? {
        return match (outside.variable)(&variable.value) {
            Some(text) => Some(Some(Secret::new(text))),
            None => {
                let message = format!("the environment variable {} is not set (or not UTF-8)", variable.value);
                section.report(variable.at, in_environment, message);
                None
            }
        };
    }
    Some(plain?.map(|plain| Secret::new(plain.value)))
}

/// A path to a file that must be readable; relative ones are relative to the configuration file.
pub(super) fn path(section: &mut Section<'_, '_>, key: &'static str, outside: &Outside<'_>) -> Option<Option<PathBuf>> {
    let Some(found) = section.optional(key, text)? else {
        return Some(None);
    };
    let path = outside.directory.join(&found.value);
    match (outside.file)(&path) {
        Ok(_) => Some(Some(path)),
        Err(error) => {
            section.report(found.at, key, format!("the file {} cannot be read: {error}", path.display()));
            None
        }
    }
}

/// A name that needs no quoting in SQL.
pub(super) fn identifier(value: &toml::de::DeValue<'_>) -> Result<String, String> {
    let expected = "a plain name of letters, digits and _ that does not start with a digit";
    parsed(expected, |text| is_identifier(text).then(|| text.to_owned()))(value)
}

/// Whether SQL takes the name without quotes.
pub(super) fn is_identifier(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(plain)
}
