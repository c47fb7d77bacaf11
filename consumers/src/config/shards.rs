//! The tables `[[clickhouse.shards]]`: the servers of a cluster, in place of `clickhouse.url`. It opens no connection.

use std::collections::BTreeMap;

use super::{
    ClickHouse,
    admin::each,
    connections::{complaint_of_url, without_slash},
    reader::{Found, Section, text},
};

/// One shard of a ClickHouse cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// URLs of the HTTP interfaces of its replicas, in the order in which they are tried; at least one. Each is a server of
    /// its own, and never a balancer before several.
    pub replicas: Vec<String>,
}

impl ClickHouse {
    /// How many shards there are; one server is one.
    pub fn shard_count(&self) -> usize {
        self.shards.len().max(1)
    }

    /// The shard that a Kafka partition belongs to, always: its number modulo theirs.
    pub fn shard_of(&self, partition: i32) -> usize {
        millrace_pipeline::shard::shard_of(partition, self.shard_count())
    }

    /// The URLs of a shard's replicas; none if there is no such shard.
    pub fn replicas(&self, shard: usize) -> &[String] {
        match self.shards.get(shard) {
            Some(shard) => &shard.replicas,
            None if self.shards.is_empty() && shard == 0 => std::slice::from_ref(&self.url),
            None => &[],
        }
    }

    /// The same for one server of them alone: what is asked there, and told of it, is asked and told of that one.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), shards: Vec::new(), ..self.clone() }
    }

    /// Every server, with the number of its shard: those of the first shard first.
    pub fn servers(&self) -> Vec<(usize, Self)> {
        let of = |shard: usize| self.replicas(shard).iter().map(move |url| (shard, self.at(url)));
        (0..self.shard_count()).flat_map(of).collect()
    }

    /// Whether there is more than one server.
    pub fn is_cluster(&self) -> bool {
        self.shard_count() > 1 || self.replicas(0).len() > 1
    }
}

/// The shards; none if the file has none.
pub(super) fn read(section: &mut Section<'_, '_>) -> Option<Vec<Shard>> {
    let mut shards = Vec::new();
    let mut right = true;
    let mut named: BTreeMap<String, usize> = BTreeMap::new();
    let there = section.has("shards");
    for (number, mut shard) in section.tables("shards").into_iter().enumerate() {
        let example = "replicas = [\"http://clickhouse-0-0:8123\"]";
        let replicas = shard.required("replicas", example, |value| each(value, text));
        let replicas = replicas.and_then(|found| addresses(&shard, found, number, &mut named));
        shard.finish();
        match replicas {
            Some(replicas) => shards.push(Shard { replicas }),
            None => right = false,
        }
    }
    if there && shards.is_empty() && right {
        section.report(None, "shards", "has no shard that can be read; expected [[clickhouse.shards]] with `replicas`");
        return None;
    }
    right.then_some(shards)
}

/// The URLs of one shard, each of which no shard has named before.
fn addresses(
    shard: &Section<'_, '_>,
    found: Found<Vec<String>>,
    number: usize,
    named: &mut BTreeMap<String, usize>,
) -> Option<Vec<String>> {
    let mut right = true;
    let mut addresses = Vec::with_capacity(found.value.len());
    for url in found.value {
        if let Some(complaint) = complaint_of_url(&url, "http://clickhouse-0-0:8123") {
            shard.report(found.at.clone(), "replicas", complaint);
            right = false;
            continue;
        }
        let url = without_slash(&url);
        if let Some(before) = named.insert(url.to_ascii_lowercase(), number) {
            let message = format!("{url} is named already, in shards[{before}]; expected each server once");
            shard.report(found.at.clone(), "replicas", message);
            right = false;
        }
        addresses.push(url);
    }
    right.then_some(addresses)
}
