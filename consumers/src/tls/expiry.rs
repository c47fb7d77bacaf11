//! When certificates end: a gauge for each file, and a line in the log while there is time to act.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use metrics::gauge;
use millrace_identity::certificates;
use openssl::asn1::Asn1Time;

use crate::{
    config::{Config, Sasl, TlsFiles},
    telemetry::metrics::CERTIFICATE_EXPIRY,
};

/// So long before the end of a certificate it is told in the log.
pub const WARN_SECONDS: i64 = 14 * 86_400;
/// How often files are read for it.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);
const SAY_AGAIN_AFTER: Duration = Duration::from_secs(86_400);

/// The files of all parts.
pub struct Expiries {
    files: Vec<(&'static str, TlsFiles)>,
    /// When an end was last told, and how far off it was then, by file.
    said: BTreeMap<(&'static str, &'static str), (Instant, i64)>,
}

impl Expiries {
    /// Those that the configuration names and uses.
    pub fn of(config: &Config) -> Self {
        let mut files = Vec::new();
        if config.kafka.is_encrypted() {
            files.push(("kafka.tls", config.kafka.tls.files.clone()));
        }
        if let Some(Sasl::Token(source)) = &config.kafka.sasl {
            files.push(("kafka.sasl.oauth", source.tls.clone()));
        }
        files.push(("registry", config.registry.tls.clone()));
        files.push(("clickhouse", config.clickhouse.tls.clone()));
        files.retain(|(_, files)| !files.is_empty());
        Self { files, said: BTreeMap::new() }
    }

    /// Reads the files, sets the gauges, and tells what ends soon or has ended: once a day, and when a file has changed.
    pub fn look(&mut self) {
        for (part, file_kind, file) in each_file(&self.files) {
            // Who needs the file says why it cannot be read.
            let Some(seconds) = seconds_left(file) else { continue };
            gauge!(CERTIFICATE_EXPIRY, "part" => part, "file_kind" => file_kind).set(seconds as f64);
            let said = self.said.get(&(part, file_kind));
            let is_new = said.is_none_or(|(at, left)| {
                at.elapsed() >= SAY_AGAIN_AFTER || (left - seconds).abs() > 2 * at.elapsed().as_secs() as i64 + 60
            });
            if seconds <= WARN_SECONDS && is_new {
                self.said.insert((part, file_kind), (Instant::now(), seconds));
                tracing::warn!(part, file_kind, file = %file.display(), "{}", words(seconds));
            }
        }
    }
}

/// Looks for as long as the process runs.
pub async fn follow(mut expiries: Expiries) {
    loop {
        expiries.look();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What `millrace check` says of certificates that end soon or have ended; `true` for the latter.
pub fn complaints(config: &Config) -> Vec<(bool, String)> {
    let files = Expiries::of(config).files;
    let soon = each_file(&files).filter_map(|(part, kind, file)| {
        let seconds = seconds_left(file).filter(|seconds| *seconds <= WARN_SECONDS)?;
        Some((seconds <= 0, format!("{part}: {kind} certificate {}: {}", file.display(), words(seconds))))
    });
    soon.collect()
}

fn each_file<'a>(
    files: &'a [(&'static str, TlsFiles)],
) -> impl Iterator<Item = (&'static str, &'static str, &'a Path)> {
    files.iter().flat_map(|(part, files)| {
        let ca = files.ca.as_deref().map(|file| (*part, "ca", file));
        let client = files.client.as_ref().map(|(file, _)| (*part, "client", file.as_path()));
        ca.into_iter().chain(client)
    })
}

/// Seconds until the first of a file's certificates ends; negative once it has.
fn seconds_left(file: &Path) -> Option<i64> {
    let now = Asn1Time::days_from_now(0).ok()?;
    let left = |end: &openssl::asn1::Asn1TimeRef| {
        let left = now.diff(end).ok()?;
        Some(i64::from(left.days) * 86_400 + i64::from(left.secs))
    };
    certificates("certificate", file).ok()?.iter().filter_map(|one| left(one.not_after())).min()
}

fn words(seconds: i64) -> String {
    match seconds {
        ..=0 => "has expired: replace it, the file is read again".to_owned(),
        _ => format!("expires in {} days: replace it before, the file is read again", seconds / 86_400),
    }
}
