//! The schema registry: schemas by id for decoding, and the latest of a subject to read with. It decodes nothing.

use anyhow::{Context, Result};
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_schema_by_id, get_schema_by_subject},
    error::SRCError,
    schema_registry_common::{RawError, RegisteredSchema, SchemaType, SubjectNameStrategy},
};
use std::{error::Error, ops::RangeInclusive};

use crate::config;

/// A client of the registry; cheap to clone, connections are pooled.
#[derive(Clone, Debug)]
pub struct Registry {
    settings: SrSettings,
}

/// What the registry says of a schema id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The schema, as Avro JSON.
    Schema(String),
    /// The registry is well and has no Avro schema of this id.
    Absent,
}

/// Error codes of the Confluent API for a subject, version or schema that is not there. A bare 404 is not among them: it
/// may come from whatever stands in front of the registry, and would make dead letters of good events.
const NOT_FOUND: RangeInclusive<u32> = 40_401..=40_499;

impl Registry {
    /// A client for the configured registry. Connects to nothing yet.
    ///
    /// # Errors
    /// The file of authorities cannot be read or is not PEM.
    pub fn new(registry: &config::Registry) -> Result<Self> {
        let mut builder = SrSettings::new_builder(registry.url.clone());
        builder.set_timeout(registry.request_timeout);
        if let Some((user, password)) = &registry.credentials {
            builder.set_basic_authorization(user, Some(password.expose()));
        }
        let settings = match &registry.ca_file {
            None => builder.build(),
            Some(file) => {
                let pem = std::fs::read(file).with_context(|| format!("read registry.ca_file {}", file.display()))?;
                let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                    .with_context(|| format!("parse registry.ca_file {} as PEM", file.display()))?;
                builder.build_with(reqwest::Client::builder().tls_certs_only(authorities))
            }
        };
        Ok(Self { settings: settings.context("set the registry's client up")? })
    }

    /// The schema of an id.
    ///
    /// # Errors
    /// The registry cannot be reached or is unwell: that says nothing about the id, ask again later.
    pub async fn by_id(&self, id: u32) -> Result<Answer> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(schema) => match avro(schema) {
                Some(schema) => Ok(Answer::Schema(schema)),
                None => Ok(Answer::Absent),
            },
            Err(error) if is_not_found(&error) => Ok(Answer::Absent),
            Err(error) => Err(error).with_context(|| format!("ask the registry for schema id {id}")),
        }
    }

    /// The latest schema of a topic's values, subject `<topic>-value`.
    ///
    /// # Errors
    /// The registry cannot be reached, is unwell, or has no Avro schema for the subject.
    pub async fn latest(&self, topic: &str) -> Result<String> {
        let strategy = SubjectNameStrategy::TopicNameStrategy(topic.to_owned(), false);
        let schema = get_schema_by_subject(&self.settings, &strategy).await;
        let schema = schema.with_context(|| format!("ask the registry for the latest schema of `{topic}-value`"))?;
        avro(schema).with_context(|| format!("the latest schema of `{topic}-value` is not Avro"))
    }
}

fn avro(schema: RegisteredSchema) -> Option<String> {
    (schema.schema_type == SchemaType::Avro).then_some(schema.schema)
}

fn is_not_found(error: &SRCError) -> bool {
    let raw = error.source().and_then(|source| source.downcast_ref::<RawError>());
    raw.is_some_and(|raw| NOT_FOUND.contains(&raw.error_code))
}
