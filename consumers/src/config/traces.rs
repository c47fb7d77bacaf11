//! The section `[traces]`: where spans go. It opens no connection.

use std::{path::PathBuf, time::Duration};

use millrace_pipeline::share::Share;

use super::{
    Outside, Secret,
    connections::{path, secret, without_secrets},
    reader::{Section, duration, share, text},
};

const EXAMPLE: &str = "http://localhost:4318";
/// Events that are traced are few, and so are batches: a second's worth of batches without any is some ten at most.
const SAMPLE_RATIO: f64 = 0.01;

/// Traces, to an OTLP receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traces {
    /// Base URL of the receiver, without a slash at the end and without credentials; off if there is none.
    pub endpoint: Option<String>,
    /// Share of the batches without a traced event that are traced all the same.
    pub sample_ratio: Share,
    /// `service.name`, in traces and log lines.
    pub service_name: String,
    /// Headers of each request: names and values.
    pub headers: Vec<(String, Secret)>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

pub(super) fn read(mut section: Section<'_, '_>, outside: &Outside<'_>) -> Option<Traces> {
    let endpoint = match section.optional("endpoint", text)? {
        None => Some(None),
        Some(found) => without_secrets(&mut section, "endpoint", found, EXAMPLE).map(Some),
    };
    let sample_ratio = section.or("sample_ratio", Share::new(SAMPLE_RATIO)?, share);
    let service_name = section.or("service_name", "millrace".to_owned(), text);
    let headers = secret(&mut section, "headers", outside).and_then(|given| headers(&section, given));
    let ca_file = path(&mut section, "ca_file", outside);
    let timeout =
        section.or("timeout", Duration::from_secs(10), duration(Duration::from_millis(100)..=Duration::from_secs(60)));
    section.finish();
    Some(Traces {
        endpoint: endpoint?,
        sample_ratio: sample_ratio?,
        service_name: service_name?,
        headers: headers?,
        ca_file: ca_file?,
        timeout: timeout?,
    })
}

/// A header in each line, `name: value`.
fn headers(section: &Section<'_, '_>, given: Option<Secret>) -> Option<Vec<(String, Secret)>> {
    let text = given.unwrap_or_else(|| Secret::new(""));
    let lines = text.expose().lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let header = |(line, number): (&str, usize)| {
        let found = line.split_once(':').map(|(name, value)| (name.trim(), value.trim()));
        let is_token =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        match found {
            Some((name, value)) if is_token(name) && value.bytes().all(|b| (b' '..=b'~').contains(&b)) => {
                Some((name.to_owned(), Secret::new(value)))
            }
            _ => {
                // The line itself is never part of a message.
                section.report(
                    None,
                    "headers",
                    format!("line {number} is no header; expected `name: value` in each line"),
                );
                None
            }
        }
    };
    lines.map(header).collect()
}
