//! Looks at the schema registry: whether it answers, and whether each topic has an Avro schema that can be read.

use std::{sync::Arc, time::Duration};

use arrow_schema::SchemaRef;
use millrace_pipeline::decode::{DecodeLimits, Decoder};
use schema_registry_converter::{error::SRCError, schema_registry_common::RawError};

use super::{causes, report::Part};
use crate::{
    config::{Config, TlsFiles, Topic},
    registry::Registry,
    tls::handshake::look_at,
};

/// The schemas of one topic, as far as they could be read.
#[derive(Default)]
pub(crate) struct Schemas {
    pub(crate) events: Option<SchemaRef>,
    /// Avro JSON of the reader's schema.
    pub(crate) avro: Option<String>,
    /// By lookup.
    pub(crate) references: Vec<Option<SchemaRef>>,
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
    let mut gate =
        Gate { registry, url: config.registry.url.clone(), tls: config.registry.tls.clone(), timeout, down: false };
    for topic in &config.topics {
        let (events, avro) = events(topic, &mut gate, &mut part).await.unzip();
        let mut references = Vec::new();
        for lookup in &topic.spec.lookups {
            references.push(gate.of_reference(&lookup.topic, &mut part).await.map(|(columns, _)| columns));
        }
        all.push(Schemas { events, avro, references });
    }
    (part, all)
}

/// The schemas of each topic as far as they could be read, and why others could not.
pub(crate) async fn schemas(config: &Config, timeout: Duration) -> (Vec<Schemas>, Vec<String>) {
    let (part, schemas) = check(config, timeout).await;
    (schemas, part.problems())
}

/// Columns and Avro JSON of the reader's schema.
async fn events(topic: &Topic, gate: &mut Gate, part: &mut Part) -> Option<(SchemaRef, String)> {
    let Some(file) = &topic.reader_schema else {
        return gate.of_events(topic, part).await;
    };
    let name = format!("reader_schema {}", file.display());
    match std::fs::read_to_string(file) {
        Ok(avro) => parse(&name, avro, topic.limits, part),
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
    tls: TlsFiles,
    timeout: Duration,
    down: bool,
}

impl Gate {
    async fn of_events(&mut self, topic: &Topic, part: &mut Part) -> Option<(SchemaRef, String)> {
        let subject = match &topic.spec.route {
            None => format!("subject {}-value", topic.spec.topic),
            Some(route) => format!("subject {}", route.record),
        };
        let registry = self.registry.clone();
        self.latest(subject, registry.to_read_with(topic), topic.limits, part).await
    }

    async fn of_reference(&mut self, topic: &str, part: &mut Part) -> Option<(SchemaRef, String)> {
        let registry = self.registry.clone();
        self.latest(format!("subject {topic}-value"), registry.latest(topic), DecodeLimits::default(), part).await
    }

    async fn latest(
        &mut self,
        subject: String,
        ask: impl Future<Output = anyhow::Result<String>>,
        limits: DecodeLimits,
        part: &mut Part,
    ) -> Option<(SchemaRef, String)> {
        if self.down {
            part.skipped(format!("{subject} not looked at"));
            return None;
        }
        match tokio::time::timeout(self.timeout, ask).await {
            Ok(Ok(avro)) => parse(&subject, avro, limits, part),
            Ok(Err(error)) => {
                let problem = self.explain(&subject, &error);
                // Once more by hand, for what is wrong with the certificates of either side.
                let words =
                    if self.down { look_at("registry", &self.url, &self.tls, self.timeout).await } else { None };
                part.bad(words.map_or(problem, |words| format!("{}: {words}", self.url)));
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
                    format!(
                        "{} refuses this user: check registry.username and its password, or registry.token",
                        self.url
                    )
                }
                code => format!("{subject}: the registry answers with error {code}: {}", raw.message),
            };
        }
        self.down = true;
        let why = answer.map_or_else(|| source.cause.clone().unwrap_or_default(), causes);
        format!("{} cannot be reached ({why}): is it running, and is registry.url right?", self.url)
    }
}

fn parse(name: &str, avro: String, limits: DecodeLimits, part: &mut Part) -> Option<(SchemaRef, String)> {
    match Decoder::new(&avro, limits) {
        Ok(decoder) => {
            part.good(format!("{name} can be decoded"));
            Some((Arc::clone(decoder.columns()), avro))
        }
        Err(error) => {
            part.bad(format!("{name}: {error}"));
            None
        }
    }
}
