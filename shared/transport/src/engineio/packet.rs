//! Engine.IO packets: one digit, then the payload.
//!
//! The invariant: what is not a packet of this protocol is an error, never a guess.

use super::Config;

/// A ping to the client.
pub const PING: &str = "2";
/// Takes leave.
pub(crate) const CLOSE: &str = "1";
/// Says nothing; ends a poll.
pub(crate) const NOOP: &str = "6";
/// Asks whether a transport works, and says that it does.
pub(crate) const PROBE: &str = "2probe";
pub(crate) const PROBED: &str = "3probe";
/// The client goes on over the transport it probed.
pub(crate) const UPGRADE: &str = "5";

/// A packet from a client, as whoever serves it sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The client takes leave.
    Close,
    /// The answer to a ping.
    Pong,
    /// What the packet carries.
    Message(&'a str),
    /// Says nothing.
    Noop,
}

/// Not an Engine.IO packet, or not one a client may send here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadPacket;

/// Reads a text packet.
pub fn parse(text: &str) -> Result<Packet<'_>, BadPacket> {
    let Some((kind, payload)) = text.split_at_checked(1) else { return Err(BadPacket) };
    match (kind, payload) {
        ("1", "") => Ok(Packet::Close),
        ("3", _) => Ok(Packet::Pong),
        ("4", message) => Ok(Packet::Message(message)),
        ("6", "") => Ok(Packet::Noop),
        _ => Err(BadPacket),
    }
}

/// The handshake packet of a session; `upgrades` says whether it may go on over WebSocket.
pub(crate) fn open(sid: &str, upgrades: bool, config: &Config) -> String {
    let upgrades = if upgrades { r#""websocket""# } else { "" };
    let Config { ping_interval_ms, ping_timeout_ms, max_payload, .. } = config;
    format!(
        r#"0{{"sid":"{sid}","upgrades":[{upgrades}],"pingInterval":{ping_interval_ms},"pingTimeout":{ping_timeout_ms},"maxPayload":{max_payload}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_by_their_digit() {
        assert_eq!(parse("1"), Ok(Packet::Close));
        assert_eq!(parse("3"), Ok(Packet::Pong));
        assert_eq!(parse("42[\"a\"]"), Ok(Packet::Message("2[\"a\"]")));
        assert_eq!(parse("6"), Ok(Packet::Noop));
        for bad in ["", "0", "2", "2probe", "5", "7", "x", "é"] {
            assert_eq!(parse(bad), Err(BadPacket), "{bad:?}");
        }
    }

    #[test]
    fn the_handshake_is_json_that_names_the_limits() {
        let config = Config { ping_interval_ms: 300, ping_timeout_ms: 200, max_payload: 1000, tag: "t".into() };
        let json: serde_json::Value = serde_json::from_str(&open("abc", true, &config)[1..]).expect("JSON");
        let expected = serde_json::json!({
            "sid": "abc", "upgrades": ["websocket"], "pingInterval": 300, "pingTimeout": 200, "maxPayload": 1000,
        });
        assert_eq!(json, expected);
        assert!(open("abc", false, &config).contains(r#""upgrades":[]"#));
    }
}
