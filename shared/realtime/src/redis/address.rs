//! Reading the URL that says where Redis is.
//!
//! `redis://` and `rediss://` are one server, `redis+cluster://` and `rediss+cluster://` name some nodes
//! of a cluster. The invariant: which of the two it is, the scheme says alone.

use redis::{ConnectionInfo, IntoConnectionInfo as _};

use super::unavailable;
use crate::RealtimeError;

/// Where Redis is.
pub(super) enum Address {
    One(Box<ConnectionInfo>),
    /// Some nodes, at least one; they know the others.
    Cluster(Vec<ConnectionInfo>),
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, RealtimeError> {
        let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.ends_with("+cluster")) else {
            return read(url).map(|info| Self::One(Box::new(info)));
        };
        let scheme = scheme.trim_end_matches("+cluster");
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
        let at = if user.is_empty() { "" } else { "@" };
        let nodes = hosts.split(',').map(|host| read(&format!("{scheme}://{user}{at}{host}{path}")));
        let nodes: Vec<ConnectionInfo> = nodes.collect::<Result<_, _>>()?;
        if nodes.iter().any(|node| node.redis_settings().db() != 0) {
            return Err(RealtimeError::Misplaced("a cluster has database 0 only".into()));
        }
        Ok(Self::Cluster(nodes))
    }
}

fn read(url: &str) -> Result<ConnectionInfo, RealtimeError> {
    url.into_connection_info().map_err(|error| unavailable("the address", &error))
}

#[cfg(test)]
mod tests {
    use redis::ConnectionAddr;

    use super::*;

    fn hosts(url: &str) -> Vec<String> {
        match Address::parse(url) {
            Ok(Address::Cluster(nodes)) => nodes.iter().map(|node| node.addr().to_string()).collect(),
            Ok(Address::One(_)) => vec!["one".to_owned()],
            Err(error) => vec![error.to_string()],
        }
    }

    #[test]
    fn the_scheme_says_what_it_is() {
        assert_eq!(hosts("redis://localhost:1/3"), ["one"]);
        assert_eq!(hosts("redis+cluster://a:1,b:2,[::1]:3"), ["a:1", "b:2", "::1:3"]);
        assert_eq!(hosts("redis+cluster://a,b/0"), ["a:6379", "b:6379"]);
        assert!(hosts("redis+cluster://a:1/3")[0].contains("database 0"));
        assert!(hosts("http+cluster://a:1")[0].contains("the address"));
    }

    #[test]
    fn user_password_and_tls_are_those_of_all_nodes() {
        let Ok(Address::Cluster(nodes)) = Address::parse("rediss+cluster://chat:sesa%40me@a:1,b:2/0") else {
            panic!("a good address")
        };
        for node in nodes {
            assert_eq!(node.redis_settings().username(), Some("chat"));
            assert_eq!(node.redis_settings().password(), Some("sesa@me"));
            assert!(matches!(node.addr(), ConnectionAddr::TcpTls { insecure: false, .. }));
        }
    }
}
