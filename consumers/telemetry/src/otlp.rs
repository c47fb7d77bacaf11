//! Spans as OTLP over HTTP in protobuf, as <https://opentelemetry.io/docs/specs/otlp/#otlphttp> says. It keeps nothing.

use anyhow::{Context, Result};
use opentelemetry_proto::{
    tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    transform::{common::tonic::ResourceAttributesWithSchema, trace::tonic::group_spans_by_resource_and_scope},
};
use opentelemetry_sdk::{Resource, trace::SpanData};
use prost::Message;
use reqwest::{
    Client, StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};

use crate::traces::Settings;

/// Characters of an answer that a log line shows.
const SHOWN: usize = 200;
/// Bytes of an answer that are read.
const READ: usize = 64 << 10;

/// A receiver of spans.
#[derive(Debug)]
pub(crate) struct Receiver {
    client: Client,
    endpoint: String,
    resource: ResourceAttributesWithSchema,
}

/// What became of spans that were sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// All but so many are there.
    Taken { rejected: usize },
    /// Sending them again would not help.
    Refused(String),
    /// It may, later.
    Later(String),
}

impl Receiver {
    pub(crate) fn new(settings: &Settings, resource: &Resource) -> Result<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers.0 {
            // The value is never part of a message.
            let name = HeaderName::try_from(name).with_context(|| format!("{name:?} cannot be a header's name"))?;
            let value =
                HeaderValue::try_from(value).ok().with_context(|| format!("the value of header {name} cannot be one"));
            let mut value = value?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        // A redirect would carry the headers to somebody else.
        let mut client = Client::builder().default_headers(headers).timeout(settings.timeout).redirect(Policy::none());
        if let Some(pem) = &settings.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(pem).context("parse the authorities as PEM")?;
            client = client.tls_certs_only(authorities);
        }
        Ok(Self {
            client: client.build().context("set the HTTP client up")?,
            endpoint: settings.endpoint.clone(),
            resource: resource.into(),
        })
    }

    pub(crate) async fn send(&self, spans: &[SpanData]) -> Answer {
        let resource_spans = group_spans_by_resource_and_scope(spans.to_vec(), &self.resource);
        let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let sent = self.client.post(&self.endpoint).body(body).send().await;
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(error) => return Answer::Later(words(&anyhow::Error::new(error))),
        };
        let status = answer.status();
        let mut body = Vec::new();
        while body.len() < READ
            && let Ok(Some(piece)) = answer.chunk().await
        {
            body.extend_from_slice(&piece);
        }
        judge(status, &body)
    }
}

fn judge(status: StatusCode, body: &[u8]) -> Answer {
    if status.is_success() {
        let rejected = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
        let rejected = rejected.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0));
        return Answer::Taken { rejected };
    }
    let text: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    let told = format!("{status} {text}").trim_end().to_owned();
    // Those that the protocol calls retryable.
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Later(told),
        _ => Answer::Refused(told),
    }
}

/// The whole chain of causes, in one line.
fn words(error: &anyhow::Error) -> String {
    format!("{error:#}").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    #[test]
    fn an_answer_says_what_was_taken_and_whether_to_send_again() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".into() };
        let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(judge(StatusCode::OK, &body), Answer::Taken { rejected: 3 });
        assert_eq!(judge(StatusCode::OK, b""), Answer::Taken { rejected: 0 });
        assert_eq!(judge(StatusCode::OK, b"<html>"), Answer::Taken { rejected: 0 });
        for status in [429, 502, 503, 504] {
            let answer = judge(StatusCode::from_u16(status).unwrap(), b"busy\nnow");
            assert!(matches!(&answer, Answer::Later(told) if told.ends_with("busynow")), "{answer:?}");
        }
        for status in [301, 400, 401, 404, 413, 500] {
            let answer = judge(StatusCode::from_u16(status).unwrap(), &[b'x'; 1000]);
            assert!(matches!(&answer, Answer::Refused(told) if told.len() < 300), "{answer:?}");
        }
    }
}
