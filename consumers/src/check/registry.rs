//! Looks at the schema registry: whether it answers, and whether each topic has an Avro schema that can be read.

use std::{sync::Arc, time::Duration};

use arrow_schema::SchemaRef;
use millrace_pipeline::decode::{DecodeLimits, Decoder};
use schema_registry_converter::{error::SRCError, schema_registry_common::RawError};

use super::{causes, report::Part};
use crate::{
    config::{Config, Topic},
    registry::Registry,
};

/// The schemas of one topic, as far as they could be read.
#[derive(Default)]
pub(super) struct Schemas {
    pub(super) events: Option<SchemaRef>,
    /// By lookup.
    pub(super) references: Vec<Option<SchemaRef>>,
}

pub(super) async fn check(config: &Config, timeout: Duration) -> (Part, Vec<Schemas>) {
    let mut part = Part::new("registry");
    let mut all = Vec::new();
    let registry = match Registry::new(&config.registry) {
        Ok(registry) => registry,
        Err(error) => {
            part.bad(format!("{error:#}"));
            return (part, config.topics.iter().map(|_| Schemas::default()).collect());
        }
    };
    let mut gate = Gate { registry, url: config.registry.url.clone(), timeout, down: false };
    for topic in &config.topics {
        let events = events(topic, &mut gate, &mut part).await;
        let mut references = Vec::new();
        for lookup in &topic.spec.lookups {
            references.push(gate.latest(&lookup.topic, &mut part).await);
        }
        all.push(Schemas { events, references });
    }
    (part, all)
}

async fn events(topic: &Topic, gate: &mut Gate, part: &mut Part) -> Option<SchemaRef> {
    let Some(file) = &topic.reader_schema else {
        return gate.latest(&topic.spec.topic, part).await;
    };
    let name = format!("reader_schema {}", file.display());
    match std::fs::read_to_string(file) {
        Ok(avro) => parse(&name, &avro, part),
        Err(error) => {
            part.bad(format!("{name} cannot be read: {error}"));
            None
        }
    }
}

/// The registry, which is asked no more once it did not answer: one problem, one line, one timeout.
struct Gate {
    registry: Registry,
    url: String,
    timeout: Duration,
    down: bool,
}

impl Gate {
    async fn latest(&mut self, topic: &str, part: &mut Part) -> Option<SchemaRef> {
        let subject = format!("subject {topic}-value");
        if self.down {
            part.skipped(format!("{subject} not looked at"));
            return None;
        }
        match tokio::time::timeout(self.timeout, self.registry.latest(topic)).await {
            Ok(Ok(avro)) => parse(&subject, &avro, part),
            Ok(Err(error)) => {
                part.bad(self.explain(&subject, &error));
                None
            }
            Err(_) => {
                self.down = true;
                let seconds = self.timeout.as_secs_f64();
                part.bad(format!(
                    "{} did not answer within {seconds} s: is it running and reachable from here?",
                    self.url
                ));
                None
            }
        }
    }

    fn explain(&mut self, subject: &str, error: &anyhow::Error) -> String {
        let Some(source) = error.downcast_ref::<SRCError>() else {
            return format!("{error:#}");
        };
        let answer = std::error::Error::source(source);
        if let Some(raw) = answer.and_then(|source| source.downcast_ref::<RawError>()) {
            return match raw.error_code {
                404 | 40401..=40499 => {
                    format!("{subject} has no schema: register one, or correct the topic's name")
                }
                401 | 403 | 40101 | 40301 => {
                    self.down = true;
                    format!("{} refuses this user: check registry.username and its password", self.url)
                }
                code => format!("{subject}: the registry answers with error {code}: {}", raw.message),
            };
        }
        self.down = true;
        let why = answer.map_or_else(|| source.cause.clone().unwrap_or_default(), causes);
        format!("{} cannot be reached ({why}): is it running, and is registry.url right?", self.url)
    }
}

fn parse(name: &str, avro: &str, part: &mut Part) -> Option<SchemaRef> {
    match Decoder::new(avro, DecodeLimits::default()) {
        Ok(decoder) => {
            part.good(format!("{name} can be decoded"));
            Some(Arc::clone(decoder.columns()))
        }
        Err(error) => {
            part.bad(format!("{name}: {error}"));
            None
        }
    }
}
