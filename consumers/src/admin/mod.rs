//! The admin API: status, named queries and commands over HTTP, for those whose token allows it, and a page that shows them. A connection is bounded by `listener`,
//! a caller let in by `auth`, a command told by `audit` and carried out by the threads of the topics through [`board`].
//! It writes no event, and reads some only by named queries.

mod api;
mod audit;
mod auth;
pub mod board;
mod body;
mod listener;
mod page;
mod problem;
mod queries;
mod replays;
mod status;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use anyhow::Result;
use tokio::task::JoinHandle;

use self::{api::Api, board::Board, listener::Listener};
use crate::{
    config::{self, Config},
    telemetry::readings::Readings,
};

/// The API while it is answered.
pub struct Admin {
    stop: tokio::sync::oneshot::Sender<()>,
    served: JoinHandle<()>,
}

/// Answers from now on.
///
/// # Errors
/// The port is taken, or the certificate or its key (or those of ClickHouse) cannot be used.
pub async fn serve(
    admin: &config::Admin,
    config: &Arc<Config>,
    board: &Arc<Board>,
    readings: &Readings,
) -> Result<Admin> {
    let listener = Listener::bind(admin).await?;
    let address: SocketAddr = listener.address()?;
    tracing::info!(%address, tls = listener.encrypts(), jwt = admin.jwt.is_some(), "the admin API is served");
    let api = Arc::new(Api::new(admin, Arc::clone(config), Arc::clone(board), readings.clone())?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let answering = listener.serve(api::routes(&api), async { _ = stopped.await });
        tokio::select! {
            () = answering => {}
            () = api.keep_fresh() => {}
        }
        api.leave().await;
    });
    Ok(Admin { stop, served })
}

/// Reads the certificate and its key as [`serve`] does.
///
/// # Errors
/// They cannot be used, and why.
pub(crate) fn try_certificate(tls: &config::AdminTls) -> Result<()> {
    tls::Tls::new(tls.clone()).map(|_| ())
}

/// Fetches the issuer's keys once; how many of them can be used.
///
/// # Errors
/// It cannot be reached, is another issuer, or has none.
pub(crate) async fn try_issuer(jwt: &config::Jwt) -> Result<usize> {
    auth::count_keys(jwt).await
}

impl Admin {
    /// Answers no more, once replays that are under way have stopped at their next step.
    pub async fn stop(self) {
        _ = self.stop.send(());
        _ = self.served.await;
    }
}
