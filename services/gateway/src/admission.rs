//! How many sockets an address may open, and how fast. Off unless configured.
//!
//! Knows no session. The invariant: a connection that was counted in is counted out exactly once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::response::{IntoResponse, Response};
use config::{IpRange, Limits};
use dashmap::DashMap;
use domain::rate::{ArrivalUs, Rate};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use telemetry::{client_address, network};
use transport::handshake::Refused;

/// After so many handshakes, addresses without connections whose budget is full again are forgotten.
const SWEEP_EVERY: u64 = 16_384;

/// Why a request does not become a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declined {
    /// It is no handshake.
    Handshake(Refused),
    /// A query that cannot be read, or a device name that is none.
    BadQuery,
    /// Too many connections of that address.
    TooMany,
    /// The service is about to stop.
    Draining,
}

impl From<Refused> for Declined {
    fn from(refused: Refused) -> Self {
        Self::Handshake(refused)
    }
}

impl IntoResponse for Declined {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Handshake(refused) => return refused.into_response(),
            Self::BadQuery => (StatusCode::BAD_REQUEST, "the query holds a malformed parameter"),
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address"),
            Self::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the service is about to stop"),
        };
        let mut response = (status, words).into_response();
        if status != StatusCode::BAD_REQUEST {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// The door.
pub(crate) struct Admission {
    addresses: Arc<DashMap<IpAddr, Address>>,
    connections: u32,
    handshakes: Rate,
    trusted: Vec<IpRange>,
    handshaken: AtomicU64,
}

#[derive(Default)]
struct Address {
    connections: u32,
    handshakes: ArrivalUs,
}

/// A connection that was let in; counted out when dropped.
pub(crate) struct Admitted(Option<(Arc<DashMap<IpAddr, Address>>, IpAddr)>);

impl Admission {
    pub(crate) fn new(limits: &Limits, trusted: Vec<IpRange>) -> Self {
        let per_second = limits.ip_handshakes_per_sec;
        let handshakes = Rate { per_second, burst: per_second.saturating_mul(2) };
        Self {
            addresses: Arc::default(),
            connections: limits.ip_connections,
            handshakes,
            trusted,
            handshaken: AtomicU64::new(0),
        }
    }

    /// Lets a request in, or not.
    pub(crate) fn admit(&self, peer: SocketAddr, headers: &HeaderMap, now_us: u64) -> Result<Admitted, Declined> {
        if self.connections == 0 && self.handshakes.per_second == 0 {
            return Ok(Admitted(None));
        }
        let client = network(client_address(peer.ip(), headers, &self.trusted));
        if self.handshaken.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.addresses.retain(|_, address| address.connections > 0 || address.handshakes > now_us);
        }
        let mut address = self.addresses.entry(client).or_default();
        address.handshakes = self.handshakes.take(address.handshakes, now_us).map_err(|_| Declined::TooMany)?;
        if self.connections > 0 && address.connections >= self.connections {
            return Err(Declined::TooMany);
        }
        address.connections += 1;
        Ok(Admitted(Some((Arc::clone(&self.addresses), client))))
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some((addresses, client)) = self.0.take()
            && let Some(mut address) = addresses.get_mut(&client)
        {
            address.connections = address.connections.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 5000);

    fn door(ip_connections: u32, ip_handshakes_per_sec: u32) -> Admission {
        let limits =
            Limits { user_events_per_sec: 0, user_burst: 0, ip_connections, ip_handshakes_per_sec, logins_per_min: 0 };
        Admission::new(&limits, vec![IpRange::parse("10.0.0.0/8").expect("a range")])
    }

    fn via(hops: &'static str) -> HeaderMap {
        [("x-forwarded-for".parse().expect("a name"), hops.parse().expect("a value"))].into_iter().collect()
    }

    #[test]
    fn an_address_has_so_many_connections_and_gets_them_back() {
        let door = door(2, 0);
        let first = door.admit(PEER, &HeaderMap::new(), 0).expect("let in");
        let _second = door.admit(PEER, &HeaderMap::new(), 0).expect("let in");
        assert!(door.admit(PEER, &HeaderMap::new(), 0).is_err());
        drop(first);
        assert!(door.admit(PEER, &HeaderMap::new(), 0).is_ok());
    }

    #[test]
    fn behind_a_proxy_of_ours_the_forwarded_address_counts() {
        let door = door(1, 0);
        let _one = door.admit(PEER, &via("203.0.113.1"), 0).expect("let in");
        assert!(door.admit(PEER, &via("203.0.113.2"), 0).is_ok());
        assert!(
            door.admit(PEER, &via("198.51.100.7, 203.0.113.1"), 0).is_err(),
            "what the client wrote counts for nothing"
        );
    }

    #[test]
    fn zero_switches_a_limit_off() {
        let door = door(0, 0);
        let held: Vec<_> = (0..1000).map(|_| door.admit(PEER, &HeaderMap::new(), 0)).collect();
        assert!(held.iter().all(Result::is_ok));
    }

    #[test]
    fn addresses_that_do_nothing_are_forgotten() {
        let door = door(2, 1);
        let held = door.admit(PEER, &via("203.0.113.1"), 0);
        for n in 0..2 * SWEEP_EVERY as u32 {
            let peer = SocketAddr::from((n.to_be_bytes(), 1));
            drop(door.admit(peer, &HeaderMap::new(), u64::from(n) * 1_000_000));
        }
        assert!(held.is_ok() && door.addresses.len() < 10, "{}", door.addresses.len());
        assert!(door.addresses.contains_key(&IpAddr::from([203, 0, 113, 1])), "who is connected stays");
    }

    #[test]
    fn handshakes_are_limited_in_time() {
        let door = door(0, 1);
        let mut passed = 0;
        while door.admit(PEER, &HeaderMap::new(), 1_000_000).is_ok() {
            passed += 1;
        }
        assert_eq!(passed, 2);
        assert!(door.admit(PEER, &HeaderMap::new(), 3_000_000).is_ok());
    }
}
