//! Gets the number of a schema from the registry, once, when a publisher connects. It never runs while events flow.

use std::error::Error;
use std::time::Duration;

use apache_avro::Schema;
use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_subject, get_schema_by_subject_and_version,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SubjectNameStrategy, SuppliedSchema};

use crate::Registry;

/// Why the registry gave no schema id.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No answer from the registry.
    #[error("schema registry {url} cannot be reached: {detail}. Is the address right, and is it running?")]
    Unreachable {
        /// Address tried.
        url: String,
        /// What the HTTP client said.
        detail: String,
    },
    /// The registry does not let us.
    #[error("schema registry {url} refuses the user for subject `{subject}` ({code}): {detail}")]
    NotAuthorised {
        /// Address.
        url: String,
        /// Subject.
        subject: String,
        /// Error code of the registry.
        code: u32,
        /// What it said.
        detail: String,
    },
    /// The subject holds versions that the schema is not compatible with.
    #[error(
        "the schema is not compatible with the versions that subject `{subject}` of {url} already has: {detail}. \
         Change the schema so that old and new readers cope (new fields need a default), or publish to another topic"
    )]
    Incompatible {
        /// Address.
        url: String,
        /// Subject.
        subject: String,
        /// What the registry said.
        detail: String,
    },
    /// Registering is switched off, and the subject does not have this schema among its versions.
    #[error("subject `{subject}` of {url} {state}; register the schema, or set `register_schema`")]
    NotRegistered {
        /// Address.
        url: String,
        /// Subject.
        subject: String,
        /// What the subject has instead.
        state: &'static str,
    },
    /// Anything else that the registry answered.
    #[error("schema registry {url}, subject `{subject}`: {detail}")]
    Other {
        /// Address.
        url: String,
        /// Subject.
        subject: String,
        /// What it said.
        detail: String,
    },
}

/// The id of `schema` under the subject `<topic>-value`: registers it when `register`, else only looks it up.
pub async fn schema_id(registry: &Registry, topic: &str, schema: &str, register: bool) -> Result<u32, RegistryError> {
    let subject = format!("{topic}-value");
    let explain = |error: SRCError| explain(registry, &subject, &error);
    let settings = settings(registry).map_err(explain)?;
    if register {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let strategy = SubjectNameStrategy::TopicNameStrategyWithSchema(topic.to_owned(), false, supplied);
        let registered = get_schema_by_subject(&settings, &strategy).await;
        return registered.map(|schema| schema.id).map_err(explain);
    }
    let not_registered =
        |state| RegistryError::NotRegistered { url: registry.url.clone(), subject: subject.clone(), state };
    let is_absent = |error: &SRCError| code(error).is_some_and(|code| code / 100 == 404 || code == 404);
    // Another producer may have registered a later version: ours counts as long as the subject has it.
    let versions = std::iter::once(None).chain((1..).map(Some));
    for version in versions {
        match get_schema_by_subject_and_version(&settings, &subject, version).await {
            Ok(found) => match (Schema::parse_str(&found.schema), Schema::parse_str(schema)) {
                (Ok(theirs), Ok(ours)) if theirs == ours => return Ok(found.id),
                _ => {}
            },
            Err(error) if is_absent(&error) && version.is_none() => return Err(not_registered("has no schema")),
            Err(error) if is_absent(&error) => break,
            Err(error) => return Err(explain(error)),
        }
    }
    Err(not_registered("has other schemas"))
}

fn settings(registry: &Registry) -> Result<SrSettings, SRCError> {
    let mut builder = SrSettings::new_builder(registry.url.clone());
    builder.set_timeout(Duration::from_millis(registry.timeout_ms.into()));
    if let Some(username) = &registry.username {
        let password = registry.password.as_ref().map(|password| password.expose());
        builder.set_basic_authorization(username, password);
    }
    if let Some(token) = &registry.token {
        builder.set_token_authorization(token.expose());
    }
    let connector = registry
        .tls
        .read("registry.tls")
        .and_then(|material| material.connector().map_err(|error| format!("{error:#}")));
    let connector = connector.map_err(|error| SRCError::new(&error, None, false))?;
    builder.build_with(reqwest::Client::builder().tls_backend_preconfigured(connector))
}

fn explain(registry: &Registry, subject: &str, error: &SRCError) -> RegistryError {
    let (url, subject) = (registry.url.clone(), subject.to_owned());
    let chain = chain(error);
    let detail = chain.last().map_or_else(|| error.error.clone(), |last| last.to_string());
    match code(error) {
        Some(code) if code == 409 || code / 100 == 409 => RegistryError::Incompatible { url, subject, detail },
        Some(code) if matches!(code, 401 | 403) || matches!(code / 100, 401 | 403) => {
            RegistryError::NotAuthorised { url, subject, code, detail }
        }
        None if error.retriable => RegistryError::Unreachable { url, detail },
        _ => RegistryError::Other { url, subject, detail },
    }
}

/// The registry's own code: an HTTP status, or one with two more digits.
fn code(error: &SRCError) -> Option<u32> {
    chain(error).into_iter().find_map(|cause| cause.downcast_ref::<RawError>()).map(|raw| raw.error_code)
}

fn chain(error: &SRCError) -> Vec<&(dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source()).collect()
}
