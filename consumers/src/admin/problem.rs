//! What is answered when something is not done: RFC 9457, `application/problem+json`. It tells what a caller can act on, and
//! nothing of the inside.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// A refusal or failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// Of the answer.
    pub(super) status: StatusCode,
    /// What has happened, for machines: a word of a closed list.
    pub(super) code: &'static str,
    /// What has happened, for people, and what to do.
    pub(super) detail: String,
    /// How the caller can show who it is, if that was not enough.
    challenge: Option<String>,
    /// When to try again, in seconds.
    retry_after: Option<u32>,
}

impl Problem {
    /// A problem.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), challenge: None, retry_after: None }
    }

    /// 401: RFC 6750, section 3.
    pub(super) fn unauthorized(code: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let challenge = match code {
            "token_missing" => "Bearer realm=\"millrace\"".to_owned(),
            _ => format!("Bearer realm=\"millrace\", error=\"invalid_token\", error_description=\"{detail}\""),
        };
        Self { challenge: Some(challenge), ..Self::new(StatusCode::UNAUTHORIZED, code, detail) }
    }

    /// Says when to try again.
    pub(super) fn retry_after(self, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

/// The code, carried by the answer for whoever tells of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, detail, challenge, retry_after } = self;
        let body = json!({
            "type": format!("urn:millrace:problem:{code}"),
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
        });
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response();
        response.extensions_mut().insert(Code(code));
        let headers = response.headers_mut();
        if let Some(challenge) = challenge.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
