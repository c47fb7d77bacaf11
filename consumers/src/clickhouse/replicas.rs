//! The servers of one shard, of which one is talked to at a time.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use clickhouse::Client;
use millrace_pipeline::replica::Choice;

use super::client::client;
use crate::config::{ClickHouse, Retry};

/// The replicas of a shard, as one topic sees them: topics move on one by one, each when it has met failures.
#[derive(Clone)]
pub struct Replicas {
    servers: Arc<[(String, Client)]>,
    choice: Arc<Mutex<Choice>>,
}

impl Replicas {
    /// The replicas of a shard of the configuration; the first of them is asked first. One is left when it has failed as often
    /// in a row as opens a circuit breaker.
    ///
    /// # Errors
    /// As [`client`].
    pub fn of_shard(settings: &ClickHouse, shard: usize, retry: &Retry) -> Result<Self> {
        let server = |url: &String| Ok((url.clone(), client(&settings.at(url))?));
        let servers = settings.replicas(shard).iter().map(server).collect::<Result<Vec<_>>>()?;
        Ok(Self::new(servers, retry.failures_to_open))
    }

    /// As [`Replicas::of_shard`], for one that asks the first of them only, whatever happens.
    ///
    /// # Errors
    /// As [`client`].
    pub fn of_shard_standing(settings: &ClickHouse, shard: usize) -> Result<Self> {
        Self::of_shard(settings, shard, &Retry { failures_to_open: u32::MAX, ..Retry::default() })
    }

    /// Servers by URL, at least one.
    pub fn new(servers: Vec<(String, Client)>, failures_to_move: u32) -> Self {
        let choice = Arc::new(Mutex::new(Choice::new(servers.len(), failures_to_move)));
        Self { servers: servers.into(), choice }
    }

    /// The same servers for another purpose, with a choice of its own.
    #[must_use]
    pub fn apart(&self) -> Self {
        let choice = Choice::new(self.count(), self.choice().failures_to_move());
        Self { servers: Arc::clone(&self.servers), choice: Arc::new(Mutex::new(choice)) }
    }

    /// Position of the one that is asked now.
    pub fn current(&self) -> usize {
        self.choice().current()
    }

    /// A client for the one at a position, which is one of [`Replicas::current`].
    pub fn at(&self, replica: usize) -> &Client {
        &self.servers[replica].1
    }

    /// A client for the one that is asked now.
    pub fn client(&self) -> &Client {
        self.at(self.current())
    }

    /// URL of the one at a position; empty for a client without one.
    pub fn url_of(&self, replica: usize) -> &str {
        &self.servers[replica].0
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.servers.len()
    }

    /// One has answered.
    pub fn answered(&self, replica: usize) {
        self.choice().answered(replica);
    }

    /// One has failed; whether another is asked from now on.
    pub fn failed(&self, replica: usize) -> bool {
        let Some(next) = self.choice().failed(replica) else { return false };
        let (from, to) = (&self.servers[replica].0, &self.servers[next].0);
        tracing::warn!(from, to, "a replica has failed again and again: the next one is written to");
        true
    }

    fn choice(&self) -> std::sync::MutexGuard<'_, Choice> {
        self.choice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One server.
impl From<Client> for Replicas {
    fn from(client: Client) -> Self {
        Self::new(vec![(String::new(), client)], 1)
    }
}

impl fmt::Debug for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|(url, _)| url)).finish()
    }
}
