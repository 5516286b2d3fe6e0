//! A client that does not read, or only later.
//!
//! Its own buffers are small; what is not read waits at the server. The invariant: nothing is read
//! before it is asked for.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use testkit::client::Socket;
use testkit::cluster::Node;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// A connection over the native WebSocket.
pub(crate) struct Sleeper {
    socket: WebSocketStream<tokio::net::TcpStream>,
}

impl Sleeper {
    /// Connects, hears `session.ready` and then nothing.
    pub(crate) async fn open(node: &Node, token: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(([127, 0, 0, 1], node.port()).into()).await.unwrap();
        let url = format!("ws://127.0.0.1:{}/ws?token={token}", node.port());
        let (socket, _) = client_async(url, stream).await.unwrap();
        let mut sleeper = Self { socket };
        assert_eq!(sleeper.hear().await.unwrap()["event"], "session.ready");
        sleeper
    }

    /// The next event; `Err`: the close code, if there was one.
    pub(crate) async fn hear(&mut self) -> Result<Value, Option<u16>> {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.socket.next()).await;
            match next.expect("something comes") {
                Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err(None),
            }
        }
    }
}

/// Talks until the gateway has closed somebody who does not read; how many messages were delivered to
/// `listener` by then.
pub(crate) async fn talk_until_too_slow(node: &Node, sender: &Socket, listener: &Socket, room: &str) -> usize {
    let mut said = listener.events("message.delivered").len();
    while node.metric("chat_limited_total", &["limit=\"outbox\""]).await < 1.0 {
        assert!(said < 2_000, "nobody is too slow");
        for number in said..said + 4 {
            let data = json!({"roomId": room, "clientMsgId": format!("long {number}"), "content": "x".repeat(16_000)});
            sender.send("message.send", data).await;
        }
        said += 4;
        listener.delivered(room, said).await;
    }
    said
}
