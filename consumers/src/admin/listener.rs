//! The port of the admin API: accepts connections, encrypted if so configured, and bounds what each may cost: how many there
//! are, how long a header and a request may take and how large they may be, how long a connection lives. What is asked it
//! does not look at.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};

use super::{problem::Problem, tls::Tls};
use crate::config::Admin;

/// Header of a request, in bytes; hyper answers 431 to a longer one.
const LONGEST_HEADER: usize = 16 << 10;
const MOST_HEADERS: usize = 64;
/// After so long a connection is closed once its request is answered, so that nobody keeps one for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// How long connections may take to end with the process.
const GOODBYE: Duration = Duration::from_secs(2);
/// After an error of accept, such as too many open files.
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

/// A port that is taken and not yet answered.
pub(super) struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Tls>>,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    connections: usize,
    header: Duration,
    request: Duration,
}

/// Whom a connection is from.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// Address and port.
    pub(super) address: SocketAddr,
    /// Subject of the client's certificate, if it had to show one.
    pub(super) certificate: Option<String>,
}

impl Listener {
    /// Takes the port.
    ///
    /// # Errors
    /// Somebody else has it, the address is none of this machine's, or the certificate or its key cannot be used.
    pub(super) async fn bind(admin: &Admin) -> Result<Self> {
        let tls = admin.tls.clone().map(Tls::new).transpose()?.map(Arc::new);
        let listen = admin.listen;
        let tcp = TcpListener::bind(listen).await.with_context(|| {
            format!("listen on {listen} (key admin.listen); choose a free address and port, or 0 for any")
        })?;
        let (connections, request) = (admin.max_connections, admin.request_timeout);
        Ok(Self { tcp, tls, limits: Limits { connections, header: request / 2, request } })
    }

    /// Where it listens, with the port that the system chose for 0.
    pub(super) fn address(&self) -> Result<SocketAddr> {
        self.tcp.local_addr().context("ask for the address listened on")
    }

    /// Whether connections are encrypted.
    pub(super) fn encrypts(&self) -> bool {
        self.tls.is_some()
    }

    /// Answers until `shutdown` ends.
    pub(super) async fn serve(self, routes: Router, shutdown: impl Future<Output = ()>) {
        let Self { tcp, tls, limits } = self;
        let free = Arc::new(Semaphore::new(limits.connections));
        let (leave, leaving) = watch::channel(false);
        let mut connections = JoinSet::new();
        let accept = async {
            loop {
                // Who comes while all are in use waits in the system's queue.
                let Ok(permit) = Arc::clone(&free).acquire_owned().await else { return };
                match tcp.accept().await {
                    Ok((stream, address)) => {
                        while connections.try_join_next().is_some() {}
                        let connection =
                            connection(stream, address, tls.clone(), routes.clone(), limits, leaving.clone());
                        connections.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a connection to the admin API was not accepted");
                        tokio::time::sleep(AFTER_ACCEPT_ERROR).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = shutdown => {}
        }
        leave.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        // What has not ended by then ends with the process.
        _ = tokio::time::timeout(GOODBYE, all).await;
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
    routes: Router,
    limits: Limits,
    leaving: watch::Receiver<bool>,
) {
    _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return answer(stream, Peer { address, certificate: None }, routes, limits, leaving).await;
    };
    match tokio::time::timeout(limits.header, tls.accept(stream)).await {
        Ok(Ok((stream, certificate))) => answer(stream, Peer { address, certificate }, routes, limits, leaving).await,
        Ok(Err(error)) => {
            tracing::debug!(%address, error = format!("{error:#}"), "a TLS handshake with the admin API failed");
        }
        Err(_) => tracing::debug!(%address, "a TLS handshake with the admin API took too long"),
    }
}

async fn answer<S>(stream: S, peer: Peer, routes: Router, limits: Limits, mut leaving: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let address = peer.address;
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let answered = TowerToHyperService::new(routes.clone()).call(request);
        async move { Ok::<_, Infallible>(in_time(limits.request, answered).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(LONGEST_HEADER)
        .max_headers(MOST_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = tokio::time::sleep(CONNECTION_LIFE) => None,
        _ = leaving.wait_for(|leaving| *leaving) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            // A client that does not read its answer must not hold the connection.
            tokio::time::timeout(limits.request + limits.header, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection to the admin API ended early");
    }
}

/// The answer, or a problem if it takes too long: the body of the request did not come.
async fn in_time(
    limit: Duration,
    answered: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Response<Body> {
    let mut response = match tokio::time::timeout(limit, answered).await {
        Ok(Ok(response)) => response,
        Err(_) => {
            let detail = "the request did not come, or was not done, in time";
            let mut response = Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", detail).into_response();
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
