//! Makes the ClickHouse client from the configuration. It sends nothing.

use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Result;
use clickhouse::{Client, Compression, error::Error};
use hyper::Uri;
use hyper_tls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use native_tls::TlsConnector;
use tower_service::Service;

use crate::{
    config::{self, ClickHouse},
    tls::{Material, Renewed},
};

const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// Below the 3 s after which a ClickHouse server closes an idle connection, so that none is used that is being closed.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(2);

/// Makes connections, each with the certificates as they are by then.
#[derive(Clone)]
struct Connector {
    tcp: HttpConnector,
    tls: Arc<Renewed<TlsConnector>>,
}

impl Service<Uri> for Connector {
    type Response = <HttpsConnector<HttpConnector> as Service<Uri>>::Response;
    type Error = <HttpsConnector<HttpConnector> as Service<Uri>>::Error;
    type Future = <HttpsConnector<HttpConnector> as Service<Uri>>::Future;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        HttpsConnector::from((self.tcp.clone(), self.tls.get().into())).call(uri)
    }
}

/// A client for the configured server, database and user. Connections are made when first needed, and pooled.
///
/// # Errors
/// The files of certificates cannot be read, are not PEM, or do not belong together.
pub fn client(settings: &ClickHouse) -> Result<Client> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(TCP_KEEPALIVE));
    tcp.set_connect_timeout(Some(settings.connect_timeout));
    let tls = Renewed::new("clickhouse", &settings.tls, Material::connector)?;
    let connector = Connector { tcp, tls: Arc::new(tls) };
    let http = HttpClient::builder(TokioExecutor::new()).pool_idle_timeout(POOL_IDLE_TIMEOUT).build(connector);
    let compression = match settings.compression {
        config::Compression::None => Compression::None,
        config::Compression::Lz4 => Compression::Lz4,
    };
    let client = Client::with_http_client(http)
        .with_url(&settings.url)
        .with_database(&settings.database)
        .with_user(&settings.user)
        .with_compression(compression)
        .with_product_info("millrace", env!("CARGO_PKG_VERSION"));
    Ok(match &settings.password {
        Some(password) => client.with_password(password.expose()),
        None => client.with_header("X-ClickHouse-SSL-Certificate-Auth", "on"),
    })
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
    use crate::config::{TlsFiles, example};

    #[test]
    fn a_file_of_authorities_that_holds_none_is_an_error_that_names_it() {
        for (file, expected) in [("Cargo.toml", "Cargo.toml holds no certificate"), ("missing.pem", "missing.pem")] {
            let tls = TlsFiles { ca: Some(file.into()), ..TlsFiles::default() };
            let settings = ClickHouse { tls, ..example(|text| text).clickhouse };
            let error = format!("{:#}", client(&settings).err().unwrap());
            assert!(error.contains(expected), "{error}");
        }
    }
}
