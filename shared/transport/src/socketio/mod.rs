//! Socket.IO v5 packets (<https://socket.io/docs/v4/socket-io-protocol/>), read and written, with
//! their binary attachments.
//!
//! Knows no namespace by name and no session. The invariant: what is not a packet of this protocol is
//! an error, and what is built from a client's bytes is bounded.

mod attachments;
mod packet;

pub use attachments::{Assembled, Assembler};
pub use packet::{BadPacket, Message, Packet, event, parse};

/// Binary attachments of one packet.
pub const PACKET_ATTACHMENTS: usize = 10;
