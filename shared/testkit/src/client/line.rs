//! One connection of a light client: the native WebSocket, or Socket.IO over one or over requests, spoken by
//! hand.
//!
//! Knows frames and packets and nothing of what they mean. The invariant: pings are answered, and
//! whatever was sent is heard in the order in which it came.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::polling::Polling;

/// How long becoming a WebSocket may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(15);
/// Thousands of connections live in one process.
const BUFFER_BYTES: usize = 4096;
const NAMESPACE: &str = "/chat";

/// Which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A native WebSocket.
    Native,
    /// Socket.IO over a WebSocket.
    SocketIo,
    /// Socket.IO over requests: long polling, and no way over to a WebSocket.
    Polling,
}

/// What a client shows when it connects.
pub struct Pass<'a> {
    /// An access token.
    pub token: &'a str,
    /// Native clients name their device; Socket.IO's stock settings do not.
    pub device: &'a str,
    /// Socket.IO's `pid` and `offset` of the connection before.
    pub recovery: Option<(&'a str, &'a str)>,
}

/// What came.
#[derive(Debug)]
pub enum Heard {
    /// An event; `offset` is what the stock Socket.IO client would keep.
    Event {
        /// Its name.
        name: String,
        /// Its object.
        data: Value,
        /// Socket.IO's, of events of rooms.
        offset: Option<String>,
    },
    /// The answer to a command.
    Ack {
        /// What `send` returned.
        id: i64,
        /// The answer.
        body: Value,
    },
    /// Socket.IO: let into the namespace, recoverable by `pid`.
    Accepted {
        /// Public to nobody but this client.
        pid: Option<String>,
    },
    /// Socket.IO: not let in.
    Declined(Value),
    /// Nothing that concerns a client's application.
    Nothing,
    /// A frame that no server sends.
    Unreadable(String),
    /// The end; the code where the protocol has one.
    Closed(Option<u16>),
}

/// Why there is no connection.
#[derive(Debug)]
pub struct Refused {
    /// HTTP's, when there was an answer.
    pub status: Option<u16>,
    /// When to come back, if that was said.
    pub retry_after: Option<Duration>,
}

/// What carries frames and packets.
#[derive(Debug)]
enum Carrier {
    Socket(WebSocketStream<TcpStream>),
    Requests(Polling),
}

/// A connection.
#[derive(Debug)]
pub struct Line {
    carrier: Carrier,
    kind: Kind,
    next_id: i64,
}

impl Line {
    /// Connects to `http://host:port` and says who it is.
    pub async fn open(base: &str, kind: Kind, pass: &Pass<'_>) -> Result<Self, Refused> {
        let nothing = Refused { status: None, retry_after: None };
        tokio::time::timeout(HANDSHAKE_LIMIT, Self::try_open(base, kind, pass)).await.unwrap_or(Err(nothing))
    }

    async fn try_open(base: &str, kind: Kind, pass: &Pass<'_>) -> Result<Self, Refused> {
        let carrier = match kind {
            Kind::Polling => Carrier::Requests(Polling::open(base).await?),
            Kind::Native | Kind::SocketIo => {
                Carrier::Socket(socket(base, kind, pass).await.map_err(|error| refused(&error))?)
            }
        };
        let mut line = Self { carrier, kind, next_id: 1 };
        if kind != Kind::Native {
            let mut auth = json!({"token": pass.token});
            if let Some((pid, offset)) = pass.recovery {
                auth["pid"] = pid.into();
                auth["offset"] = offset.into();
            }
            line.say(format!("40{NAMESPACE},{auth}")).await.map_err(|error| refused(&error))?;
        }
        Ok(line)
    }

    async fn say(&mut self, text: String) -> Result<(), Error> {
        match &mut self.carrier {
            Carrier::Socket(socket) => socket.send(Message::text(text)).await,
            Carrier::Requests(polling) => {
                polling.send(text);
                Ok(())
            }
        }
    }

    /// Sends a command; the id its ack will have. A broken connection is heard of by `hear`.
    pub async fn send(&mut self, event: &str, data: &Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        let text = match self.kind {
            Kind::Native => json!({"id": id, "event": event, "data": data}).to_string(),
            Kind::SocketIo | Kind::Polling => format!("42{NAMESPACE},{id}{}", json!([event, data])),
        };
        drop(self.say(text).await);
        id
    }

    /// The next thing that came. May be given up and called again.
    pub async fn hear(&mut self) -> Heard {
        let text = match &mut self.carrier {
            Carrier::Socket(socket) => match socket.next().await {
                Some(Ok(Message::Text(text))) => text,
                Some(Ok(Message::Close(frame))) => return Heard::Closed(frame.map(|frame| u16::from(frame.code))),
                Some(Ok(_)) => return Heard::Nothing,
                Some(Err(_)) | None => return Heard::Closed(None),
            },
            Carrier::Requests(polling) => match polling.hear().await {
                Some(text) if text != "1" => text.into(),
                _ => return Heard::Closed(None),
            },
        };
        if self.kind == Kind::Native {
            return frame(&text).unwrap_or_else(|| Heard::Unreadable(text.to_string()));
        }
        if text.as_str() == "2" {
            drop(self.say("3".to_owned()).await);
            return Heard::Nothing;
        }
        packet(&text).unwrap_or_else(|| Heard::Unreadable(text.to_string()))
    }
}

async fn socket(base: &str, kind: Kind, pass: &Pass<'_>) -> Result<WebSocketStream<TcpStream>, Error> {
    let authority = base.trim_start_matches("http://");
    let path = match kind {
        Kind::Native => format!("/ws?token={}&deviceId={}", pass.token, pass.device),
        Kind::SocketIo | Kind::Polling => "/socket.io/?EIO=4&transport=websocket".to_owned(),
    };
    let request = format!("ws://{authority}{path}").into_client_request()?;
    let stream = TcpStream::connect(authority).await.map_err(Error::Io)?;
    stream.set_nodelay(true).map_err(Error::Io)?;
    let config = WebSocketConfig::default().read_buffer_size(BUFFER_BYTES).write_buffer_size(0);
    let (mut socket, _) = client_async_with_config(request, stream, Some(config)).await?;
    if kind != Kind::Native {
        // Engine.IO's own opening.
        socket.next().await.ok_or(Error::ConnectionClosed)??;
    }
    Ok(socket)
}

fn refused(error: &Error) -> Refused {
    let Error::Http(answer) = error else { return Refused { status: None, retry_after: None } };
    let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Refused { status: Some(answer.status().as_u16()), retry_after: seconds.map(Duration::from_secs) }
}

fn read(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

fn frame(text: &str) -> Option<Heard> {
    let mut frame = read(text)?;
    if let Some(id) = frame["id"].as_i64() {
        return Some(Heard::Ack { id, body: frame["ack"].take() });
    }
    let name = frame["event"].as_str()?.to_owned();
    Some(Heard::Event { name, data: frame["data"].take(), offset: None })
}

fn packet(text: &str) -> Option<Heard> {
    // Engine.IO's own packets have one letter: a pong, for example.
    let Some((kind, rest)) = text.split_at_checked(2) else { return Some(Heard::Nothing) };
    let body = rest.strip_prefix(NAMESPACE).and_then(|rest| rest.strip_prefix(','));
    Some(match (kind, body) {
        ("40", Some(body)) => Heard::Accepted { pid: read(body)?["pid"].as_str().map(str::to_owned) },
        ("41", _) => Heard::Closed(None),
        ("42", Some(body)) => event(read(body)?)?,
        ("43", Some(body)) => {
            let (id, args) = body.split_at_checked(body.find('[')?)?;
            Heard::Ack { id: id.parse().ok()?, body: read(args)?.get_mut(0)?.take() }
        }
        ("44", Some(body)) => Heard::Declined(read(body)?),
        _ => return None,
    })
}

fn event(mut args: Value) -> Option<Heard> {
    let offset = args.as_array()?.last().and_then(Value::as_str).map(str::to_owned);
    let name = args.get(0)?.as_str()?.to_owned();
    Some(Heard::Event { name, data: args.get_mut(1)?.take(), offset })
}
