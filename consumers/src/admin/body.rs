//! Reads the body of a command: JSON, not large, and with no field that is not known.

use axum::{
    body,
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;

/// Longest body, in bytes.
const LONGEST: usize = 16 << 10;

/// The body as a `T`; an empty one counts as `{}`.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let too_large = || {
        let detail = "the body is longer than 16 KiB";
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    };
    let (head, body) = request.into_parts();
    let announced = text(&head.headers, header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    if announced.is_some_and(|length| length > LONGEST as u64) {
        return Err(too_large());
    }
    let bytes = body::to_bytes(body, LONGEST).await.map_err(|_| too_large())?;
    if bytes.is_empty() {
        return parse(b"{}");
    }
    // A form of another site can send anything but this.
    let media = text(&head.headers, header::CONTENT_TYPE).and_then(|media| media.split(';').next());
    if !media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json")) {
        let detail = "expected a body with content-type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "body_media_type", detail));
    }
    parse(&bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut value: Value = serde_json::from_slice(bytes).map_err(invalid)?;
    make_whole(&mut value);
    serde_json::from_value(value).map_err(invalid)
}

fn invalid(error: serde_json::Error) -> Problem {
    let detail = format!("the body is not as expected: {error}");
    Problem::new(StatusCode::BAD_REQUEST, "body_invalid", detail)
}

/// Writes numbers such as 7.0 without their fraction: to JSON Schema they are integers.
fn make_whole(value: &mut Value) {
    /// Up to here every whole number is a double.
    const EXACT: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Array(values) => values.iter_mut().for_each(make_whole),
        Value::Object(fields) => fields.values_mut().for_each(make_whole),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| number.is_f64() && float.fract() == 0.0)
                && float.abs() <= EXACT
            {
                *number = (float as i64).into();
            }
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
