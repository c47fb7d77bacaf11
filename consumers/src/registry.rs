//! The schema registry: schemas by id for decoding, and the latest of a subject to read with, each with the schemas that
//! it refers to. It decodes nothing.

mod references;

use std::{collections::HashSet, error::Error, ops::RangeInclusive, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use millrace_pipeline::{record::Record, route::RoutedDecoder, spec::RouteSpec, wire};
use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_referenced_schema, get_schema_by_id, get_schema_by_subject},
    error::SRCError,
    schema_registry_common::{RawError, RegisteredSchema, SchemaType, SubjectNameStrategy},
};

use crate::{
    config::{self, Credentials},
    one_line,
    retry::{Target, within_budget},
    tls::{Material, Renewed},
};

/// A client of the registry; cheap to clone, connections are pooled.
#[derive(Clone)]
pub struct Registry {
    settings: Arc<Renewed<SrSettings>>,
    patience: Patience,
}

/// What is done about a question that the registry does not answer.
#[derive(Clone, Debug)]
enum Patience {
    /// Whoever asks is told at once.
    None,
    /// It is asked again within a budget.
    Budget(config::Retry),
    /// Whoever asks is told and asks again; this counts for the breaker of all who do.
    Guarded(Arc<Target>),
}

/// What the registry says of a schema id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The schema, as Avro JSON, with the types that it takes from other subjects.
    Schema(String),
    /// The registry is well and has no Avro schema of this id.
    Absent,
}

/// Error codes of the Confluent API for a subject, version or schema that is not there. A bare 404 is not among them: it
/// may come from whatever stands in front of the registry, and would make dead letters of good events.
const NOT_FOUND: RangeInclusive<u32> = 40_401..=40_499;

/// Schemas that one may refer to, also indirectly.
const MAX_REFERENCES: usize = 200;

impl Registry {
    /// A client for the configured registry, made anew when the files of its certificates change. Connects to nothing yet.
    ///
    /// # Errors
    /// The files cannot be read, are not PEM, or do not belong together.
    pub fn new(registry: &config::Registry) -> Result<Self> {
        let (url, timeout) = (registry.url.clone(), registry.request_timeout);
        let credentials = registry.credentials.clone();
        let client = move |material: &Material| {
            let mut builder = SrSettings::new_builder(url.clone());
            builder.set_timeout(timeout);
            match &credentials {
                None => {}
                Some(Credentials::Password(user, password)) => {
                    builder.set_basic_authorization(user, Some(password.expose()));
                }
                Some(Credentials::Token(token)) => _ = builder.set_token_authorization(token.expose()),
            }
            let http = reqwest::Client::builder().tls_backend_preconfigured(material.connector()?);
            builder.build_with(http).context("set the registry's client up")
        };
        Ok(Self { settings: Arc::new(Renewed::new("registry", &registry.tls, client)?), patience: Patience::None })
    }

    /// Asks again within the budget when there is no answer: for commands, which give up in the end.
    #[must_use]
    pub fn patient(self, retry: &config::Retry) -> Self {
        Self { patience: Patience::Budget(*retry), ..self }
    }

    /// Asks only when the breaker permits, and tells it what came of that: for those who ask until there is an answer.
    #[must_use]
    pub fn guarded(self, target: Arc<Target>) -> Self {
        Self { patience: Patience::Guarded(target), ..self }
    }

    /// The breaker of all who ask, if there is one.
    pub fn target(&self) -> Option<&Target> {
        match &self.patience {
            Patience::Guarded(target) => Some(target),
            Patience::None | Patience::Budget(_) => None,
        }
    }

    async fn ask<T, F: Future<Output = Result<T>>>(&self, mut question: impl FnMut() -> F) -> Result<T> {
        match &self.patience {
            Patience::None => question().await,
            Patience::Budget(retry) => within_budget(retry, is_outage, question).await,
            Patience::Guarded(target) => {
                let Ok(call) = target.try_permit() else {
                    let error = target.last_error().unwrap_or_default();
                    bail!("the registry is not asked while its circuit breaker is open: {error}");
                };
                let answer = question().await;
                match &answer {
                    Err(error) if is_outage(error) => call.failed(one_line(format!("{error:#}"))),
                    Ok(_) | Err(_) => call.succeeded(),
                }
                answer
            }
        }
    }

    /// The schema of an id.
    ///
    /// # Errors
    /// The registry cannot be reached or is unwell: that says nothing about the id, ask again later.
    pub async fn by_id(&self, id: u32) -> Result<Answer> {
        self.ask(|| self.by_id_once(id)).await
    }

    async fn by_id_once(&self, id: u32) -> Result<Answer> {
        match get_schema_by_id(id, &self.settings.get()).await {
            Ok(schema) if schema.schema_type == SchemaType::Avro => Ok(Answer::Schema(self.whole(schema).await?)),
            Ok(_) => Ok(Answer::Absent),
            Err(error) if is_not_found(&error) => Ok(Answer::Absent),
            Err(error) => Err(error).with_context(|| format!("ask the registry for schema id {id}")),
        }
    }

    /// Gives a decoder the schemas of records that it does not know yet: for commands, which wait for each answer.
    ///
    /// # Errors
    /// As [`Registry::by_id`].
    pub async fn teach(&self, decoder: &mut RoutedDecoder, records: &[Record<'_>]) -> Result<()> {
        for record in records {
            let Ok((id, _)) = wire::split(record.value) else { continue };
            if decoder.knows(id) {
                continue;
            }
            let answer = self.by_id(id).await;
            let answer =
                answer.with_context(|| format!("read partition {}, offset {}", record.partition, record.offset))?;
            match answer {
                Answer::Schema(schema) => decoder.learn(id, &schema),
                Answer::Absent => decoder.learn_absent(id),
            }
        }
        Ok(())
    }

    /// The latest schema of a topic's values, subject `<topic>-value`.
    ///
    /// # Errors
    /// The registry cannot be reached, is unwell, or has no Avro schema for the subject.
    pub async fn latest(&self, topic: &str) -> Result<String> {
        self.latest_of(SubjectNameStrategy::TopicNameStrategy(topic.to_owned(), false), &format!("{topic}-value")).await
    }

    /// The schema to read a topic's events with: that of the configuration, else the latest of the topic, or of the record
    /// that its section is for.
    ///
    /// # Errors
    /// As [`Registry::latest`] and [`own_schema`].
    pub async fn to_read_with(&self, topic: &config::Topic) -> Result<String> {
        if let Some(schema) = own_schema(topic)? {
            return Ok(schema);
        }
        match &topic.spec.route {
            None => self.latest(&topic.spec.topic).await,
            Some(RouteSpec { record, .. }) => {
                self.latest_of(SubjectNameStrategy::RecordNameStrategy(record.clone()), record).await
            }
        }
    }

    async fn latest_of(&self, strategy: SubjectNameStrategy, subject: &str) -> Result<String> {
        self.ask(|| self.latest_of_once(&strategy, subject)).await
    }

    async fn latest_of_once(&self, strategy: &SubjectNameStrategy, subject: &str) -> Result<String> {
        let schema = get_schema_by_subject(&self.settings.get(), strategy).await;
        let schema = schema.with_context(|| format!("ask the registry for the latest schema of `{subject}`"))?;
        ensure!(schema.schema_type == SchemaType::Avro, "the latest schema of `{subject}` is not Avro");
        self.whole(schema).await
    }

    /// A schema as one text, whatever it refers to. A reference that the registry does not have stays a name: that schema
    /// is refused by the decoder, which tells it, and is asked for again.
    async fn whole(&self, schema: RegisteredSchema) -> Result<String> {
        let (mut seen, mut referenced, mut open) = (HashSet::new(), Vec::new(), schema.references);
        while let Some(reference) = open.pop() {
            if !seen.insert((reference.subject.clone(), reference.version)) {
                continue;
            }
            ensure!(seen.len() <= MAX_REFERENCES, "a schema refers to more than {MAX_REFERENCES} others");
            match get_referenced_schema(&self.settings.get(), &reference).await {
                Ok(found) => {
                    referenced.push(found.schema);
                    open.extend(found.references);
                }
                Err(error) if is_not_found(&error) => {}
                Err(error) => {
                    let (version, subject) = (reference.version, reference.subject);
                    return Err(error).with_context(|| {
                        format!("ask the registry for version {version} of `{subject}`, to which a schema refers")
                    });
                }
            }
        }
        if seen.is_empty() { Ok(schema.schema) } else { Ok(references::inline(&schema.schema, &referenced)) }
    }
}

/// The schema to read a topic's events with, in Avro JSON, if the configuration names a file.
///
/// # Errors
/// The file cannot be read.
pub fn own_schema(topic: &config::Topic) -> Result<Option<String>> {
    let Some(file) = &topic.reader_schema else { return Ok(None) };
    let schema = std::fs::read_to_string(file).with_context(|| format!("read reader_schema {}", file.display()))?;
    Ok(Some(schema))
}

/// Whether an error says that the registry is in trouble, and nothing of what was asked.
fn is_outage(error: &anyhow::Error) -> bool {
    error.downcast_ref::<SRCError>().is_some_and(|error| !is_not_found(error))
}

fn is_not_found(error: &SRCError) -> bool {
    let raw = error.source().and_then(|source| source.downcast_ref::<RawError>());
    raw.is_some_and(|raw| NOT_FOUND.contains(&raw.error_code))
}
