//! Clients that speak protobuf among clients that speak JSON.
//!
//! The invariant: both are the same to one another, and each hears its own kind of frame only.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use protocol::wire::{self, ack_frame, client_frame, server_event, server_frame};
use rstest::rstest;
use serde_json::json;
use testkit::cluster::{Node, SystemSpec};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

struct Binary {
    socket: WebSocketStream<TcpStream>,
}

impl Binary {
    async fn connect(node: &Node, token: &str) -> Self {
        let mut request = format!("ws://127.0.0.1:{}/ws?token={token}", node.port()).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "chatchit.v1.protobuf".parse().unwrap());
        let stream = TcpStream::connect(("127.0.0.1", node.port())).await.unwrap();
        let (socket, answer) = client_async(request, stream).await.unwrap();
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chatchit.v1.protobuf");
        let mut client = Self { socket };
        client.event(|kind| if let server_event::Kind::SessionReady(ready) = kind { Some(ready) } else { None }).await;
        client
    }

    async fn next(&mut self) -> server_frame::Frame {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.socket.next()).await;
            match next.expect("something comes").unwrap().unwrap() {
                Message::Binary(bytes) => return wire::ServerFrame::decode(bytes).unwrap().frame.unwrap(),
                Message::Ping(_) => {}
                other => panic!("not protobuf: {other:?}"),
            }
        }
    }

    /// The next event of a kind.
    async fn event<T>(&mut self, is_it: impl Fn(server_event::Kind) -> Option<T>) -> T {
        loop {
            if let server_frame::Frame::Event(event) = self.next().await
                && let Some(found) = is_it(event.kind.unwrap())
            {
                return found;
            }
        }
    }

    /// Waits for the end; its code.
    async fn closed(&mut self) -> Option<u16> {
        let end = async {
            loop {
                match self.socket.next().await.expect("a close").unwrap() {
                    Message::Close(frame) => return frame.map(|frame| u16::from(frame.code)),
                    other => assert!(!other.is_text(), "{other:?}"),
                }
            }
        };
        tokio::time::timeout(testkit::PATIENCE, end).await.expect("the connection is closed")
    }

    /// Sends a command and awaits its ack.
    async fn request(&mut self, number: i64, command: client_frame::Command) -> ack_frame::Ack {
        let frame = wire::ClientFrame { id: Some(client_frame::Id::Number(number)), command: Some(command) };
        self.socket.send(Message::binary(frame.encode_to_vec())).await.unwrap();
        loop {
            if let server_frame::Frame::Ack(ack) = self.next().await {
                assert_eq!(ack.id, Some(ack_frame::Id::Number(number)));
                return ack.ack.unwrap();
            }
        }
    }
}

#[rstest]
#[case::distributed(SystemSpec::distributed(2, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn who_speaks_protobuf_talks_with_who_speaks_json(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let mut binary = Binary::connect(system.gateway(0), &alice.token).await;
    let text = bob.connect(system.gateway(1)).await;

    assert_eq!(text.say(&room, "1", "grüß dich\u{1f44b}").await["status"], "QUEUED");
    let is_message = |kind| if let server_event::Kind::MessageDelivered(it) = kind { Some(it) } else { None };
    let heard = binary.event(is_message).await;
    let live = text.event("message.delivered", |_| true).await;
    assert_eq!((heard.seq, heard.rev), (1, Some(2)));
    assert_eq!(heard.content.as_deref(), live["content"].as_str());
    assert_eq!((&json!(heard.room_id), &json!(heard.message_id)), (&live["roomId"], &live["messageId"]));

    let say = wire::MessageSend {
        room_id: room.clone(),
        client_msg_id: "2".into(),
        content: "and you".into(),
        ..Default::default()
    };
    let ack_frame::Ack::Queued(queued) = binary.request(7, client_frame::Command::MessageSend(say)).await else {
        panic!("not queued")
    };
    let answer = text.event("message.delivered", |it| it["clientMsgId"] == "2").await;
    assert_eq!((answer["content"].as_str(), &answer["messageId"]), (Some("and you"), &json!(queued.message_id)));

    let from = wire::SyncRoom { room_id: room.clone(), after_seq: Some(0), ..Default::default() };
    let sync = wire::Sync { rooms: vec![from] };
    let ack_frame::Ack::SyncResult(synced) = binary.request(8, client_frame::Command::Sync(sync)).await else {
        panic!("not synced")
    };
    assert_eq!((synced.rooms.len(), synced.rooms[0].messages.len(), synced.rooms[0].last_seq), (1, 2, 2));

    let refused = wire::RoomJoin { room_id: alice.id.clone() };
    let ack_frame::Ack::Refusal(refusal) = binary.request(9, client_frame::Command::RoomJoin(refused)).await else {
        panic!("not refused")
    };
    assert_eq!(refusal.code, "NOT_FOUND");
    binary.socket.send(Message::text(r#"{"event":"ping"}"#)).await.unwrap();
    assert_eq!(binary.closed().await, Some(4400), "text is not its kind of frame");
    assert!(text.is_open());
    system.assert_healthy();
}
