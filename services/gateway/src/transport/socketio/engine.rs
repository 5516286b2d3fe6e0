//! Engine.IO v4 packets (<https://socket.io/docs/v4/engine-io-protocol/>): one digit, then the payload.
//!
//! Knows nothing of Socket.IO. The invariant: what is not a packet of this protocol is an error,
//! never a guess.

/// How often the server pings, milliseconds.
pub(crate) const PING_INTERVAL_MS: u64 = crate::deadlines::PING_EVERY_MS;
/// How long it waits for the pong, milliseconds.
pub(crate) const PING_TIMEOUT_MS: u64 = crate::deadlines::PONG_WITHIN_MS;

/// A ping to the client.
pub(crate) const PING: &str = "2";

/// A packet from a client over a transport that is not being upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// The client takes leave.
    Close,
    /// The answer to a ping.
    Pong,
    /// A Socket.IO packet.
    Message(&'a str),
    /// Says nothing.
    Noop,
}

/// Not an Engine.IO packet, or not one a client may send here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPacket;

/// Reads a packet.
pub(crate) fn parse(text: &str) -> Result<Packet<'_>, BadPacket> {
    let Some((kind, payload)) = text.split_at_checked(1) else { return Err(BadPacket) };
    match (kind, payload) {
        ("1", "") => Ok(Packet::Close),
        ("3", _) => Ok(Packet::Pong),
        ("4", message) => Ok(Packet::Message(message)),
        ("6", "") => Ok(Packet::Noop),
        _ => Err(BadPacket),
    }
}

/// The handshake packet.
pub(crate) fn open(sid: &str) -> String {
    let max_payload = domain::limits::FRAME_BYTES;
    format!(
        r#"0{{"sid":"{sid}","upgrades":[],"pingInterval":{PING_INTERVAL_MS},"pingTimeout":{PING_TIMEOUT_MS},"maxPayload":{max_payload}}}"#
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
    fn the_handshake_is_json_that_names_our_limits() {
        let json: serde_json::Value = serde_json::from_str(&open("abc")[1..]).expect("JSON");
        assert_eq!(json["sid"], "abc");
        assert_eq!(json["pingInterval"], 25_000);
        assert_eq!(json["pingTimeout"], 20_000);
        assert_eq!(json["maxPayload"], 262_144);
    }
}
