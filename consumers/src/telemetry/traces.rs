//! Turns traces on, if the configuration names a receiver. It makes no span.

use std::fs;

use anyhow::{Context, Result};
use millrace_telemetry::traces::{Headers, Settings, Traces};
use tokio::runtime::Handle;

use crate::config;

/// Traces of this process, to the receiver of the configuration; `None` if it names none.
///
/// # Errors
/// The file of authorities cannot be read or is not PEM.
pub fn start(traces: &config::Traces, runtime: &Handle) -> Result<Option<Traces>> {
    let Some(endpoint) = &traces.endpoint else { return Ok(None) };
    let read =
        |file: &std::path::PathBuf| fs::read(file).with_context(|| format!("read traces.ca_file {}", file.display()));
    let headers = traces.headers.iter().map(|(name, value)| (name.clone(), value.expose().to_owned()));
    let settings = Settings {
        endpoint: format!("{endpoint}/v1/traces"),
        sample_ratio: traces.sample_ratio.get(),
        headers: Headers(headers.collect()),
        authorities: traces.ca_file.as_ref().map(read).transpose()?,
        timeout: traces.timeout,
        service_name: traces.service_name.clone(),
        service_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let traces = Traces::start(settings, runtime)?;
    tracing::info!(endpoint, "traces are on");
    Ok(Some(traces))
}
