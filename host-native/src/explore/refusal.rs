//! Answers of this server's own that are no success, in the form that registries use.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::set;
use crate::image::ImageError;
use crate::source::FetchError;

/// Why something is not answered (OCI distribution specification, "Error Codes").
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    header: Option<(HeaderName, String)>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self { status, code, message: message.to_string(), header: None }
    }

    /// The same with a header.
    pub(super) fn with(self, name: HeaderName, value: &str) -> Self {
        Self { header: Some((name, value.to_owned())), ..self }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "errors": [{ "code": self.code, "message": self.message }] });
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some((name, value)) = self.header {
            set(headers, name, &value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl From<FetchError> for Refusal {
    fn from(error: FetchError) -> Self {
        let (status, code) = match &error {
            FetchError::NotFound { .. } => (404, "LAZYSTAR_NOT_FOUND"),
            FetchError::Denied { status, .. } => (*status, "LAZYSTAR_DENIED"),
            FetchError::RangeNotSatisfiable { .. } => (416, "LAZYSTAR_RANGE"),
            FetchError::NotPublic { .. } => (403, "LAZYSTAR_PRIVATE_ADDRESS"),
            FetchError::Timeout { .. } => (504, "LAZYSTAR_TIMEOUT"),
            FetchError::Unreachable { .. } => (502, "LAZYSTAR_UNREACHABLE"),
            FetchError::Status { code: 429, .. } => (429, "LAZYSTAR_TOO_MANY_REQUESTS"),
            FetchError::Status { .. } | FetchError::Refused { .. } => (502, "LAZYSTAR_STATUS"),
            FetchError::Io { .. } => (500, "LAZYSTAR_FILE"),
            FetchError::WrongRange { .. }
            | FetchError::Changed { .. }
            | FetchError::Truncated { .. }
            | FetchError::Protocol { .. } => (502, "LAZYSTAR_PROTOCOL"),
        };
        let advice = match error {
            FetchError::Unreachable { .. } => "; check the name of the registry, and the network",
            _ => "",
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        Self::new(status, code, format!("{error}{advice}"))
    }
}

/// What is wrong with an image on this machine.
impl From<ImageError> for Refusal {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Fetch(error) => error.into(),
            error => Self::new(StatusCode::NOT_FOUND, "LAZYSTAR_NOT_FOUND", error),
        }
    }
}
