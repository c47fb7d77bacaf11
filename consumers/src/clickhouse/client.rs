//! Makes the ClickHouse client from the configuration. It sends nothing.

use std::{fs, future::Future, time::Duration};

use anyhow::{Context, Result, ensure};
use clickhouse::{Client, Compression, error::Error};
use hyper_tls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::config::{self, ClickHouse};

const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Below the 3 s after which a ClickHouse server closes an idle connection, so that none is used that is being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// A client for the configured server, database and user. Connections are made when first needed, and pooled.
///
/// # Errors
/// The file of authorities cannot be read or is not PEM.
pub fn client(settings: &ClickHouse) -> Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.set_connect_timeout(Some(settings.connect_timeout));
    let connector = HttpsConnector::from((tcp, tls(settings)?.into()));
    let http = HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(POOL_IDLE_TIMEOUT).build(connector);
    let compression = match settings.compression {
        config::Compression::None => Compression::None,
        config::Compression::Lz4 => Compression::Lz4,
    };
    Ok(Client::with_http_client(http)
        .with_url(&settings.url)
        .with_database(&settings.database)
        .with_user(&settings.user)
        .with_password(settings.password.expose())
        .with_compression(compression)
        .with_product_info("millrace", env!("CARGO_PKG_VERSION")))
}

fn tls(settings: &ClickHouse) -> Result<native_tls::TlsConnector> {
    let mut builder = native_tls::TlsConnector::builder();
    if let Some(file) = &settings.ca_file {
        let pem = fs::read(file).with_context(|| format!("read clickhouse.ca_file {}", file.display()))?;
        let authorities = native_tls::Certificate::stack_from_pem(&pem)
            .with_context(|| format!("parse clickhouse.ca_file {} as PEM", file.display()))?;
        // Without any, nothing would be trusted, and every connection would fail without saying why.
        ensure!(!authorities.is_empty(), "clickhouse.ca_file {} holds no certificate in PEM", file.display());
        builder.disable_built_in_roots(true);
        for authority in authorities {
            builder.add_root_certificate(authority);
        }
    }
    builder.build().context("set up TLS for ClickHouse")
}

/// The answer of a request, or [`Error::TimedOut`] if it does not come in time; the crate's queries know no timeout.
///
/// # Errors
/// Those of the request, or the timeout.
pub async fn within<T>(timeout: Duration, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(timeout, request).await.unwrap_or(Err(Error::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::example;

    #[test]
    fn a_file_of_authorities_that_holds_none_is_an_error_that_names_it() {
        for (file, expected) in [("Cargo.toml", "Cargo.toml holds no certificate"), ("missing.pem", "missing.pem")] {
            let settings = ClickHouse { ca_file: Some(file.into()), ..example(|text| text).clickhouse };
            let error = format!("{:#}", client(&settings).err().unwrap());
            assert!(error.contains(expected), "{error}");
        }
    }
}
