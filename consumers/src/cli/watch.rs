//! `millrace status`, `millrace top` and `millrace health`: their arguments, and what they ask a running process.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    time::Duration,
};

use clap::Args;

use super::{Failure, duration, print, runtime};
use crate::{
    status::{self, Client, Door, text},
    time, top,
};

/// Where the admin API is, and who asks.
#[derive(Args)]
pub(super) struct DoorArguments {
    /// Base URL of the admin API, admin.listen of the configuration
    #[arg(long, value_name = "URL", env = "MILLRACE_ADMIN_URL", default_value = "http://127.0.0.1:9465")]
    url: String,
    /// File with an access token that has the permission status:read; read again for each request
    #[arg(long, value_name = "FILE", env = "MILLRACE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of the authorities to trust; default: those of the system
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The client's certificate in PEM, where the server asks for one
    #[arg(long, value_name = "FILE", requires = "key_file")]
    certificate_file: Option<PathBuf>,
    /// Its key in PEM (PKCS #8, not encrypted)
    #[arg(long, value_name = "FILE", requires = "certificate_file")]
    key_file: Option<PathBuf>,
    /// Longest wait for an answer, with its unit
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

#[derive(Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    door: DoorArguments,
    /// The answer itself, one line of JSON, instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct HealthArguments {
    /// Base URL of metrics and health, http.listen of the configuration
    #[arg(long, value_name = "URL", env = "MILLRACE_HEALTH_URL", default_value = "http://127.0.0.1:9400")]
    url: String,
    /// Ask whether it is ready, not only whether it is alive
    #[arg(long)]
    ready: bool,
    /// Longest wait for an answer, with its unit
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

impl From<DoorArguments> for Door {
    fn from(arguments: DoorArguments) -> Self {
        let DoorArguments { url, token_file, ca_file, certificate_file, key_file, timeout } = arguments;
        Self { url, token_file, ca_file, certificate: certificate_file.zip(key_file), timeout }
    }
}

impl StatusArguments {
    /// Status 0 if it is ready and all topics run.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let client = Client::new(self.door.into())?;
        let (value, answer) = runtime()?.block_on(client.status())?;
        print(&if self.json { format!("{value}\n") } else { text::lines(&answer, time::now_ms()) })?;
        if answer.is_well() { Ok(()) } else { Err(Failure::Told) }
    }
}

impl DoorArguments {
    pub(super) fn top(self) -> Result<(), Failure> {
        if !(io::stdout().is_terminal() && io::stdin().is_terminal()) {
            return Err(Failure::Usage(
                "top: standard input and output are no terminal; `millrace status` is for scripts (--json)".to_owned(),
            ));
        }
        let url = self.url.clone();
        let client = Client::new(self.into())?;
        let runtime = runtime()?;
        let shown = runtime.block_on(top::run(client, url));
        // Neither a question under way nor the thread that waits for keys must hold this up.
        runtime.shutdown_background();
        Ok(shown?)
    }
}

impl HealthArguments {
    /// Status 0 if it is.
    pub(super) fn execute(self) -> Result<(), Failure> {
        let path = if self.ready { "readyz" } else { "healthz" };
        let url = format!("{}/{path}", self.url.trim_end_matches('/'));
        let (well, words) = runtime()?.block_on(status::health(&url, self.timeout))?;
        print(&words)?;
        if well { Ok(()) } else { Err(Failure::Told) }
    }
}
