//! The same tests over the binary subprotocol: a relay between clients that speak JSON and a gateway
//! that is spoken to in protobuf.

use std::net::SocketAddr;

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use prost::Message as _;
use protocol::command::FrameId;
use protocol::json;
use protocol::wire::{self, ack_frame, client_frame, server_frame};
use runtime::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{accept_hdr_async, client_async};

/// How the gateway is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Json,
    Protobuf,
}

/// Starts a relay to a gateway; answers its address.
pub(crate) async fn relay(base: &str, tasks: &Tasks) -> String {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (authority, owner) = (base.trim_start_matches("http://").to_owned(), tasks.clone());
    let shutdown = tasks.shutdown().clone();
    tasks.detach("relay", async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.expect("a connection");
                    owner.detach("relayed", carry(stream, authority.clone()));
                }
                () = shutdown.requested() => return,
            }
        }
    });
    format!("http://{address}")
}

async fn carry(stream: TcpStream, authority: String) {
    let mut asked = None;
    #[allow(clippy::result_large_err, reason = "the shape is the library's")]
    let keep = |request: &Request, response: Response| {
        asked = Some((request.uri().to_string(), request.headers().get("authorization").cloned()));
        Ok(response)
    };
    let Ok(client) = accept_hdr_async(stream, keep).await else { return };
    let (path, bearer) = asked.expect("a request");
    let mut request = format!("ws://{authority}{path}").into_client_request().expect("a request");
    request.headers_mut().insert("sec-websocket-protocol", "chatchit.v1.protobuf".parse().expect("a value"));
    bearer.map(|bearer| request.headers_mut().insert("authorization", bearer));
    let stream = TcpStream::connect(&authority).await.expect("the gateway");
    let (server, response) = client_async(request, stream).await.expect("upgraded");
    assert_eq!(response.headers()["sec-websocket-protocol"], "chatchit.v1.protobuf");
    let ((to_client, from_client), (to_server, from_server)) = (client.split(), server.split());
    tokio::select! {
        () = pump(from_client, to_server, to_binary) => {}
        () = pump(from_server, to_client, to_json) => {}
    }
}

async fn pump(
    mut from: impl Stream<Item = Result<Message, Error>> + Unpin,
    mut to: impl Sink<Message, Error = Error> + Unpin,
    translate: impl Fn(&Message) -> Message,
) {
    while let Some(Ok(message)) = from.next().await {
        let is_last = message.is_close();
        if matches!(message, Message::Ping(_) | Message::Pong(_)) {
            continue;
        }
        let sent = to.send(if is_last { message } else { translate(&message) }).await;
        if is_last || sent.is_err() {
            return;
        }
    }
}

fn to_binary(message: &Message) -> Message {
    let frame = json::decode(message.to_text().expect("text")).expect("a frame");
    let id = frame.id.map(|id| match id {
        FrameId::Number(number) => client_frame::Id::Number(number),
        FrameId::Text(text) => client_frame::Id::Text(text),
    });
    let command = Some(frame.command.expect("what protobuf can say"));
    Message::binary(wire::ClientFrame { id, command }.encode_to_vec())
}

fn to_json(message: &Message) -> Message {
    let Message::Binary(data) = message else { panic!("not binary: {message:?}") };
    let frame = wire::ServerFrame::decode(data.clone()).expect("a frame").frame.expect("not empty");
    let mut out = Vec::new();
    match frame {
        server_frame::Frame::Event(event) => json::write_event(&event.kind.expect("an event"), &mut out),
        server_frame::Frame::Ack(ack) => {
            let id = match ack.id.expect("an id") {
                ack_frame::Id::Number(number) => FrameId::Number(number),
                ack_frame::Id::Text(text) => FrameId::Text(text),
            };
            json::write_ack(&id, &ack.ack.expect("an ack"), &mut out);
        }
    }
    Message::text(String::from_utf8(out).expect("JSON"))
}
