//! Bodies of requests: JSON objects of a bounded size that arrive in bounded time.

use std::time::Duration;

use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use protocol::{Code, Refusal, json, nesting};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::context::BODY_BYTES;
use crate::problem::Problem;

/// A body that takes longer to arrive is given up.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);

/// The body as a `T`, as the last argument of a route.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let refusal = Refusal::new(Code::InvalidPayload, "the body must be application/json");
            return Err(Problem::with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE, refusal));
        }
        match tokio::time::timeout(ARRIVAL_LIMIT, collect(request.into_body())).await {
            Ok(Ok(Some(bytes))) => Ok(Self(read(&bytes)?)),
            Ok(Ok(None)) => {
                let words = format!("the body is larger than {BODY_BYTES} bytes");
                Err(Refusal::new(Code::TooLarge, words).into())
            }
            Ok(Err(_)) => Err(Refusal::invalid("body", "could not be read").into()),
            Err(_) => {
                let refusal = Refusal::invalid("body", "did not arrive in time");
                Err(Problem::with_status(StatusCode::REQUEST_TIMEOUT, refusal))
            }
        }
    }
}

/// The body; `None` when it is too large.
async fn collect(mut body: axum::body::Body) -> Result<Option<Bytes>, axum::Error> {
    let mut kept = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if kept.len() + data.len() > BODY_BYTES {
            return Ok(None);
        }
        kept.extend_from_slice(&data);
    }
    Ok(Some(kept.freeze()))
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Reads an object; a wrong type names its field.
fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    let text = std::str::from_utf8(bytes).map_err(|_| Refusal::invalid("body", "must be UTF-8"))?;
    if nesting::is_deeper_than(bytes, domain::limits::FRAME_NESTING) {
        return Err(Refusal::invalid("body", "is nested too deeply"));
    }
    json::read(text).map_err(|refusal| {
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        let names_a_field = refusal.field.as_deref() != Some("data");
        if is_json && names_a_field { refusal } else { Refusal::invalid("body", "must be one JSON object") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(default)]
    struct Sample {
        name: String,
    }

    #[test]
    fn what_is_no_object_names_the_body_and_a_wrong_type_its_field() {
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(40), "]".repeat(40));
        for bad in ["", "null", "[]", "{", "{}x", deep.as_str()] {
            let refusal = read::<Sample>(bad.as_bytes()).expect_err(bad);
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidPayload, Some("body")), "{bad}");
        }
        assert_eq!(read::<Sample>(b"{\"name\":\"\xff\"}").expect_err("not UTF-8").field.as_deref(), Some("body"));
        assert_eq!(read::<Sample>(br#"{"name":7}"#).expect_err("a number").field.as_deref(), Some("name"));
        assert_eq!(read::<Sample>(br#"{"name":"x","more":[1]}"#).expect("read").name, "x");
    }
}
