//! Who may open sockets: how many of an address, how fast, and whether it only ever fails.
//!
//! Knows no session. The invariant: a connection that was counted in is counted out exactly once, and
//! only failures count towards a block.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::response::{IntoResponse, Response};
use config::{IpRange, Limits};
use dashmap::DashMap;
use domain::rate::{ArrivalUs, Rate};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::Code;
use telemetry::{Counter, client_address, network};
use transport::handshake::Refused;

use crate::door::failures::{Blocks, Failures};
use crate::door::openings::ComeBack;

/// After so many handshakes, addresses without connections whose budget is full again are forgotten.
const SWEEP_EVERY: u64 = 16_384;
/// When to try again where nothing better is known, milliseconds.
const RETRY_AFTER_MS: u64 = 1_000;

/// Why a request does not become a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declined {
    /// It is no handshake.
    Handshake(Refused),
    /// A query that cannot be read, or a device name that is none.
    BadQuery,
    /// Too many connections of that address, too fast or after too many failures.
    TooMany { retry_after_ms: u64 },
    /// Too many clients come at once.
    Busy(ComeBack),
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
        let (status, code, words, retry_after_ms) = match self {
            Self::Handshake(refused) => return refused.into_response(),
            Self::BadQuery => {
                return (StatusCode::BAD_REQUEST, "the query holds a malformed parameter").into_response();
            }
            Self::TooMany { retry_after_ms } => {
                (StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, "too many connections from here", retry_after_ms)
            }
            Self::Busy(ComeBack { after_ms }) => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Overloaded, "too many clients come at once", after_ms)
            }
            Self::Draining => {
                (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "the service is about to stop", RETRY_AFTER_MS)
            }
        };
        // RFC 9457, like the refusals of the REST service.
        let problem = serde_json::json!({
            "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(),
            "detail": words, "code": code.as_str(), "retryAfterMs": retry_after_ms,
        });
        let mut response = (status, problem.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1000).max(1)));
        response
    }
}

/// The door.
pub(crate) struct Admission {
    addresses: Arc<Addresses>,
    connections: u32,
    handshakes: Rate,
    trusted: Vec<IpRange>,
    handshaken: AtomicU64,
}

struct Addresses {
    by_network: DashMap<IpAddr, Address>,
    blocks: Blocks,
}

#[derive(Default)]
struct Address {
    connections: u32,
    handshakes: ArrivalUs,
    failures: Failures,
}

/// A connection that was let in; counted out when dropped.
pub(crate) struct Admitted(Option<(Arc<Addresses>, IpAddr)>);

impl Admission {
    pub(crate) fn new(limits: &Limits, trusted: Vec<IpRange>) -> Self {
        let per_second = limits.ip_handshakes_per_sec;
        let handshakes = Rate { per_second, burst: per_second.saturating_mul(2) };
        let addresses = Addresses { by_network: DashMap::new(), blocks: Blocks::new(limits.ip_failures_per_min) };
        Self {
            addresses: Arc::new(addresses),
            connections: limits.ip_connections,
            handshakes,
            trusted,
            handshaken: AtomicU64::new(0),
        }
    }

    fn is_off(&self) -> bool {
        self.connections == 0 && self.handshakes.per_second == 0 && self.addresses.blocks.is_off()
    }

    fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        network(client_address(peer.ip(), headers, &self.trusted))
    }

    /// Lets a request in, or not.
    pub(crate) fn admit(&self, peer: SocketAddr, headers: &HeaderMap, now_us: u64) -> Result<Admitted, Declined> {
        if self.is_off() {
            return Ok(Admitted(None));
        }
        let client = self.client(peer, headers);
        let addresses = &self.addresses.by_network;
        if self.handshaken.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            addresses.retain(|_, address| {
                address.connections > 0 || address.handshakes > now_us || address.failures.matter(now_us)
            });
        }
        let mut address = addresses.entry(client).or_default();
        address.failures.judge(now_us).map_err(|left_ms| too_many("ip_failures", left_ms))?;
        address.handshakes =
            self.handshakes.take(address.handshakes, now_us).map_err(|wait_ms| too_many("ip_handshakes", wait_ms))?;
        if self.connections > 0 && address.connections >= self.connections {
            return Err(too_many("ip_connections", RETRY_AFTER_MS));
        }
        address.connections += 1;
        Ok(Admitted(Some((Arc::clone(&self.addresses), client))))
    }

    /// Notes a handshake that was none.
    pub(crate) fn failed(&self, peer: SocketAddr, headers: &HeaderMap, now_us: u64) {
        if !self.addresses.blocks.is_off() {
            self.addresses.failed(self.client(peer, headers), now_us);
        }
    }
}

fn too_many(limit: &'static str, retry_after_ms: u64) -> Declined {
    Counter::Limited.inc_with(limit);
    Declined::TooMany { retry_after_ms }
}

impl Addresses {
    fn failed(&self, client: IpAddr, now_us: u64) {
        self.blocks.count(&mut self.by_network.entry(client).or_default().failures, now_us);
    }
}

impl Admitted {
    /// Notes that the client could not say who it is.
    pub(crate) fn failed(&self, now_us: u64) {
        if let Some((addresses, client)) = &self.0 {
            addresses.failed(*client, now_us);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some((addresses, client)) = self.0.take()
            && let Some(mut address) = addresses.by_network.get_mut(&client)
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
        let limits = Limits { ip_connections, ip_handshakes_per_sec, ..Limits::default() };
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
        assert!(held.is_ok() && door.addresses.by_network.len() < 10, "{}", door.addresses.by_network.len());
        assert!(door.addresses.by_network.contains_key(&IpAddr::from([203, 0, 113, 1])), "who is connected stays");
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

    #[test]
    fn who_only_fails_is_kept_out_for_a_while_and_nobody_else() {
        let limits = Limits { ip_failures_per_min: 10, ..Limits::default() };
        let door = Admission::new(&limits, Vec::new());
        let other = SocketAddr::from(([10, 0, 0, 2], 1));
        for _ in 0..=10 {
            door.admit(PEER, &HeaderMap::new(), 1).expect("let in").failed(1);
        }
        let declined = door.admit(PEER, &HeaderMap::new(), 2).err();
        assert!(matches!(declined, Some(Declined::TooMany { retry_after_ms: 14_000..=15_000 })), "{declined:?}");
        assert!(door.admit(other, &HeaderMap::new(), 2).is_ok());
        assert!(door.admit(PEER, &HeaderMap::new(), 15_000_002).is_ok());
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let busy = Declined::Busy(ComeBack { after_ms: 2_100 }).into_response();
        assert_eq!((busy.status().as_u16(), &busy.headers()["retry-after"]), (503, &HeaderValue::from_static("3")));
        assert_eq!(busy.headers()["content-type"], "application/problem+json");
    }
}
