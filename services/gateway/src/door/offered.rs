//! What a client brings along with its request: a token, a device's name.
//!
//! Judges no token. The invariant: of several tokens the first in the order of the protocol is the
//! one that counts, and none is ever logged.

use axum::extract::Query;
use domain::DeviceId;
use http::{HeaderMap, Uri, header};

use crate::door::admission::Declined;

/// The parameters of the query that mean something here.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct Params {
    token: Option<String>,
    #[serde(rename = "deviceId")]
    device_id: Option<String>,
}

/// Who the client says it is, before anybody asked.
#[derive(Debug, Default, Clone)]
pub(crate) struct Offered {
    /// From `Authorization: Bearer`.
    pub(crate) bearer: Option<String>,
    /// From `?token=`.
    pub(crate) query: Option<String>,
    /// From `?deviceId=`.
    pub(crate) device: Option<DeviceId>,
}

impl Params {
    /// Reads the query.
    pub(crate) fn read(uri: &Uri) -> Result<Self, Declined> {
        Query::<Self>::try_from_uri(uri).map(|Query(params)| params).map_err(|_| Declined::BadQuery)
    }
}

impl Offered {
    /// Gathers what a request brings.
    pub(crate) fn read(headers: &HeaderMap, params: &Params) -> Result<Self, Declined> {
        let device = params.device_id.as_deref().filter(|text| !text.is_empty()).map(DeviceId::parse).transpose();
        Ok(Self {
            bearer: bearer(headers),
            query: params.token.clone().filter(|token| !token.is_empty()),
            device: device.map_err(|_| Declined::BadQuery)?,
        })
    }

    /// `None` when nothing was brought.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        let is_empty = self.bearer.is_none() && self.query.is_none() && self.device.is_none();
        (!is_empty).then(|| Box::new(self))
    }

    /// The token that counts; `own` is what the transport itself carries, second in the order.
    pub(crate) fn token(&self, own: Option<&str>) -> Option<String> {
        let own = own.filter(|token| !token.is_empty());
        self.bearer.clone().or_else(|| own.map(str::to_owned)).or_else(|| self.query.clone())
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(authorization: Option<&str>, query: &str) -> Result<Offered, Declined> {
        let headers = authorization.map(|value| (header::AUTHORIZATION, value.parse().expect("a header")));
        let uri = format!("/ws?{query}").parse().expect("an address");
        Offered::read(&headers.into_iter().collect(), &Params::read(&uri)?)
    }

    #[test]
    fn the_header_comes_before_the_transports_own_and_that_before_the_query() {
        let both = offered(Some("Bearer a"), "token=c").expect("well-formed");
        assert_eq!(both.token(Some("b")).as_deref(), Some("a"));
        let query = offered(None, "token=c").expect("well-formed");
        assert_eq!(query.token(Some("b")).as_deref(), Some("b"));
        assert_eq!(query.token(Some("")).as_deref(), Some("c"));
        assert_eq!(offered(Some("Basic a"), "").expect("well-formed").token(None), None);
    }

    #[test]
    fn a_devices_name_is_checked() {
        let named = offered(None, "deviceId=phone-1").expect("well-formed");
        assert_eq!(named.device.map(|device| device.to_string()).as_deref(), Some("phone-1"));
        assert!(offered(None, "deviceId=two%20words").is_err());
        assert!(offered(None, "deviceId=").expect("well-formed").device.is_none());
    }
}
