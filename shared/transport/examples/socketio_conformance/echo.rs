//! Engine.IO alone: messages are sent back.

use protocol::CloseCode;
use transport::engineio::packet::{self, Packet};
use transport::{Frame, Received};

use crate::client::Client;

/// Serves a client; why it is to be closed.
pub(crate) async fn run(client: &mut Client) -> CloseCode {
    loop {
        match client.next().await {
            Ok(Received::Binary(data)) => client.send(Frame::Binary(data)),
            Ok(Received::Text(text)) => match packet::parse(&text) {
                Ok(Packet::Message(_)) => client.send(Frame::Text(text.into())),
                Ok(Packet::Close) => return CloseCode::Normal,
                Ok(Packet::Pong | Packet::Noop) => {}
                Err(_) => return CloseCode::BadFrame,
            },
            Ok(_) => {}
            Err(code) => return code,
        }
    }
}
