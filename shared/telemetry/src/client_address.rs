//! The address a request really came from, behind however many proxies of ours.
//!
//! The invariant: a header that no trusted proxy wrote changes nothing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use config::IpRange;
use http::HeaderMap;

/// The rightmost address in `X-Forwarded-For` that is not one of our proxies; the peer itself when
/// the peer is none.
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpRange]) -> IpAddr {
    let is_ours = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut nearest = peer;
    let lines: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        if !is_ours(nearest) {
            break;
        }
        // What stands left of something unreadable was not written by a proxy of ours.
        let Some(address) = parse_hop(hop.trim()) else { break };
        nearest = address;
    }
    nearest.to_canonical()
}

/// What one attacker holds: an IPv4 address, or a whole IPv6 /64.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1` or `[2001:db8::1]:443`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip())).or_else(bare)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_network_is_what_one_attacker_holds() {
        let of = |text: &str| network(text.parse().expect("an address")).to_string();
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("2001:db8::1"), of("2001:db8::2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[rstest]
    #[case::a_stranger_may_write_what_it_likes("203.0.113.9", &["1.1.1.1"], "203.0.113.9")]
    #[case::one_proxy("10.0.0.1", &["203.0.113.9"], "203.0.113.9")]
    #[case::the_client_lies_to_the_proxy("10.0.0.1", &["1.1.1.1, 203.0.113.9"], "203.0.113.9")]
    #[case::two_proxies("10.0.0.1", &["1.1.1.1, 203.0.113.9, 10.0.0.2"], "203.0.113.9")]
    #[case::two_lines("10.0.0.1", &["1.1.1.1", "203.0.113.9,10.0.0.2"], "203.0.113.9")]
    #[case::nothing_written("10.0.0.1", &[], "10.0.0.1")]
    #[case::only_proxies("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3")]
    #[case::unreadable("10.0.0.1", &["203.0.113.9, unknown, 10.0.0.2"], "10.0.0.2")]
    #[case::with_ports("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9")]
    #[case::ipv6("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1")]
    #[case::ipv4_written_as_ipv6("::ffff:10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9")]
    fn the_rightmost_address_that_is_not_ours(
        #[case] peer: &str,
        #[case] forwarded: &[&'static str],
        #[case] real: &str,
    ) {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_static(line));
        }
        let trusted = [IpRange::parse("10.0.0.0/8").expect("a range")];
        let found = client_address(peer.parse().expect(peer), &headers, &trusted);
        assert_eq!(found, real.parse::<IpAddr>().expect(real));
    }
}
