//! The part of an address after `?`.

use axum::extract::{FromRequestParts, Query as Read};
use axum::http::Uri;
use axum::http::request::Parts;
use protocol::Refusal;
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The query as a `T`; unknown keys are ignored, a known one may stand there once.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(read(&parts.uri).map(Self)?)
    }
}

fn read<T: DeserializeOwned>(uri: &Uri) -> Result<T, Refusal> {
    Read::try_from_uri(uri).map(|Read(query)| query).map_err(|_| match repeated(uri) {
        Some(key) => Refusal::invalid(key, "is there more than once"),
        None => Refusal::invalid("query", "is malformed"),
    })
}

fn repeated(uri: &Uri) -> Option<String> {
    let Read(pairs) = Read::<Vec<(String, String)>>::try_from_uri(uri).ok()?;
    let mut keys: Vec<String> = pairs.into_iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.array_windows().find(|[one, next]| one == next).map(|[key, _]| key.clone())
}
