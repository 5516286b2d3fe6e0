//! Refusals as problem documents (RFC 9457): the one shape of every answer that is not a success.
//!
//! Knows the public codes and nothing of why inside. The invariant: a problem shows no more than a
//! refusal does; what the operator must know goes to the log under the request id.

use auth::PasswordError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::Invalid;
use protocol::{Code, Refusal};
use serde::Serialize;
use store::StoreError;
use utoipa::ToSchema;

/// The media type of problem documents.
pub(crate) const MEDIA_TYPE: &str = "application/problem+json";

/// What a route answers.
pub(crate) type Answer<T> = Result<T, Problem>;

/// Why a request was refused, and the status that says so.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    refusal: Refusal,
}

/// A refusal as it is sent.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document<'a> {
    /// Always `about:blank`: `code` tells kinds apart.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// The public code: `INVALID_PAYLOAD`, `NOT_FOUND`, …
    code: &'static str,
    /// What was wrong, for a developer.
    detail: &'a str,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
    /// How long to wait before trying again, milliseconds; `Retry-After` says it in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    /// The client's own name for the message that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_msg_id: Option<&'a str>,
    /// The request's id, as in the header `x-request-id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

impl Problem {
    /// A refusal under another status than its code's own.
    pub(crate) fn with_status(status: StatusCode, refusal: Refusal) -> Self {
        Self { status, refusal }
    }

    /// What an answer without words says: of the router, of a layer, of an extractor.
    pub(crate) fn from_status(status: StatusCode) -> Self {
        let (code, words) = match status {
            StatusCode::NOT_FOUND => (Code::NotFound, "there is no such resource"),
            StatusCode::METHOD_NOT_ALLOWED => (Code::UnknownEvent, "the resource does not know this method"),
            StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "the body is too large"),
            StatusCode::UNAUTHORIZED => (Code::Unauthenticated, "a token is required"),
            StatusCode::SERVICE_UNAVAILABLE => return Refusal::unavailable().into(),
            other if other.is_client_error() => (Code::InvalidPayload, "the request is malformed"),
            _ => return Refusal::internal().into(),
        };
        Self { status, refusal: Refusal::new(code, words) }
    }

    /// The public code.
    pub(crate) fn code(&self) -> Code {
        self.refusal.code
    }

    /// The answer, its body naming the request.
    pub(crate) fn render(&self, request_id: Option<&str>) -> Response {
        let refusal = &self.refusal;
        let document = Document {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Refused"),
            status: self.status.as_u16(),
            code: refusal.code.as_str(),
            detail: &refusal.message,
            field: refusal.field.as_deref(),
            retry_after_ms: refusal.retry_after_ms,
            client_msg_id: refusal.client_msg_id.as_deref(),
            request_id,
        };
        let body = serde_json::to_vec(&document).expect("plain data can be written as JSON");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if let Some(retry_after_ms) = refusal.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1000).max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.render(None);
        // The context renders it again once it knows the request's id.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, refusal }
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Self {
        Refusal::from(invalid).into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        if let StoreError::Conflict(what) = error {
            let refusal = Refusal::new(Code::Conflict, format!("{what} is taken already"));
            return Refusal { field: Some(what.to_owned()), ..refusal }.into();
        }
        if error.is_transient() {
            tracing::warn!(%error, "the store does not answer");
            return Refusal::unavailable().into();
        }
        tracing::error!(%error, "the store rejected a statement");
        Refusal::internal().into()
    }
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Refusal::overloaded(1000).into(),
            PasswordError::Failed => {
                tracing::error!(%error, "a password could not be hashed");
                Refusal::internal().into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_status_of_the_protocol() {
        for code in Code::ALL {
            let response = Problem::from(Refusal::new(code, "x")).into_response();
            assert_eq!(response.status().as_u16(), code.http_status());
            assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        }
    }

    #[test]
    fn waiting_is_told_in_whole_seconds_too() {
        let retry_after = |ms| {
            let response = Problem::from(Refusal::rate_limited(ms)).into_response();
            response.headers()[header::RETRY_AFTER].to_str().map(str::to_owned).expect("digits")
        };
        assert_eq!((retry_after(1), retry_after(1000), retry_after(1001)), ("1".into(), "1".into(), "2".into()));
    }

    #[test]
    fn the_store_s_own_words_stay_inside() {
        let problem = Problem::from(StoreError::Rejected("relation \"users\" does not exist".into()));
        assert_eq!((problem.refusal.code, problem.refusal.message.contains("users")), (Code::Internal, false));
        let problem = Problem::from(StoreError::Unavailable("10.0.0.7 refused".into()));
        assert_eq!((problem.refusal.code, problem.refusal.message.contains("10.0")), (Code::Unavailable, false));
    }
}
