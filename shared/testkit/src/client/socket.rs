//! A native WebSocket client that keeps all it received, so that tests ask about the past too.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use runtime::{Shutdown, Tasks};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::PATIENCE;

/// How a connection ended: the close frame's code and reason, or nothing when it was cut.
pub type Closed = Option<(u16, String)>;

#[derive(Debug, Default)]
struct Received {
    events: Vec<(String, Value)>,
    acks: HashMap<i64, Value>,
    closed: Option<Closed>,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Received>,
    news: Notify,
}

/// A connection.
#[derive(Debug)]
pub struct Socket {
    sink: tokio::sync::Mutex<SplitSink<WebSocketStream<TcpStream>, Message>>,
    shared: Arc<Shared>,
    next_id: AtomicI64,
    cut: Shutdown,
}

impl Socket {
    /// Opens `path` (with its query) at `http://host:port`; panics when it is not upgraded.
    pub async fn open(base: &str, path: &str) -> Self {
        Self::try_open(base, path, &[]).await.unwrap_or_else(|error| panic!("{path} was not upgraded: {error}"))
    }

    /// Opens `path` with additional headers; the error holds the HTTP answer when it was refused.
    pub async fn try_open(base: &str, path: &str, headers: &[(&'static str, &str)]) -> Result<Self, Error> {
        let authority = base.trim_start_matches("http://");
        let mut request = format!("ws://{authority}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header value"));
        }
        let stream = TcpStream::connect(authority).await.map_err(Error::Io)?;
        stream.set_nodelay(true).map_err(Error::Io)?;
        let (socket, _) = client_async(request, stream).await?;
        let (sink, source) = socket.split();
        let (shared, cut) = (Arc::<Shared>::default(), Shutdown::new());
        Tasks::new(cut.clone()).detach("test client", read(source, Arc::clone(&shared), cut.clone()));
        Ok(Self { sink: tokio::sync::Mutex::new(sink), shared, next_id: AtomicI64::new(1), cut })
    }

    /// Sends any frame.
    pub async fn raw(&self, message: Message) -> Result<(), Error> {
        self.sink.lock().await.send(message).await
    }

    /// Sends a text frame.
    pub async fn text(&self, text: impl Into<String>) -> Result<(), Error> {
        self.raw(Message::text(text.into())).await
    }

    /// Sends a command and returns its id; `ack` awaits the answer.
    pub async fn send(&self, event: &str, data: Value) -> i64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        drop(self.text(json!({"id": id, "event": event, "data": data}).to_string()).await);
        id
    }

    /// Sends a command without an id: no ack will come.
    pub async fn tell(&self, event: &str, data: Value) {
        drop(self.text(json!({"event": event, "data": data}).to_string()).await);
    }

    /// Awaits the ack of a command.
    pub async fn ack(&self, id: i64) -> Value {
        self.try_ack(id, PATIENCE).await.unwrap_or_else(|| panic!("no ack of {id}; {}", self.summary()))
    }

    /// The ack of a command, or nothing when the connection ended or `limit` passed before.
    pub async fn try_ack(&self, id: i64, limit: Duration) -> Option<Value> {
        self.look(limit, |received| match received.acks.get(&id) {
            Some(ack) => Some(Some(ack.clone())),
            None if received.closed.is_some() => Some(None),
            None => None,
        })
        .await
        .flatten()
    }

    /// Sends a command and awaits its ack.
    pub async fn request(&self, event: &str, data: Value) -> Value {
        let id = self.send(event, data).await;
        self.ack(id).await
    }

    /// Sends a text message and awaits its ack.
    pub async fn say(&self, room: &str, name: &str, content: &str) -> Value {
        self.request("message.send", json!({"roomId": room, "content": content, "clientMsgId": name})).await
    }

    /// The first event of that name, received already or soon, that `fits`.
    #[track_caller]
    pub fn event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            let find = |received: &Received| {
                received.events.iter().find(|(event, data)| event == name && fits(data)).map(|(_, data)| data.clone())
            };
            let found = self.look(PATIENCE, find).await;
            found.unwrap_or_else(|| panic!("{caller}: no such {name}; {}", self.summary()))
        }
    }

    /// Waits until `count` messages of `room` were delivered and returns them in the order they came.
    pub async fn delivered(&self, room: &str, count: usize) -> Vec<Value> {
        let enough = |received: &Received| {
            let messages = of_room(received, room);
            (messages.len() >= count).then_some(messages)
        };
        let found = self.look(2 * PATIENCE, enough).await;
        found.unwrap_or_else(|| panic!("not {count} messages of {room}; {}", self.summary()))
    }

    /// All events of that name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let received = self.shared.received.lock();
        received.events.iter().filter(|(event, _)| event == name).map(|(_, data)| data.clone()).collect()
    }

    /// Everything so far: names and data, in the order they came.
    pub fn everything(&self) -> Vec<(String, Value)> {
        self.shared.received.lock().events.clone()
    }

    /// How often the acks so far carry a `status`.
    pub fn acks(&self) -> Vec<Value> {
        self.shared.received.lock().acks.values().cloned().collect()
    }

    /// How many acks came so far.
    pub fn answered(&self) -> usize {
        self.shared.received.lock().acks.len()
    }

    /// Waits until the other side has ended the connection.
    pub async fn closed(&self) -> Closed {
        let closed = self.look(PATIENCE, |received| received.closed.clone()).await;
        closed.unwrap_or_else(|| panic!("was not closed; {}", self.summary()))
    }

    /// True while the connection stands.
    pub fn is_open(&self) -> bool {
        self.shared.received.lock().closed.is_none()
    }

    /// Cuts the connection without a word, as a lost network does.
    pub fn cut(self) {
        self.cut.request();
    }

    async fn look<T>(&self, limit: Duration, mut find: impl FnMut(&Received) -> Option<T>) -> Option<T> {
        let search = async {
            loop {
                let news = self.shared.news.notified();
                if let Some(found) = find(&self.shared.received.lock()) {
                    return found;
                }
                news.await;
            }
        };
        tokio::time::timeout(limit, search).await.ok()
    }

    /// What was received, for the message of a failed test.
    fn summary(&self) -> String {
        let received = self.shared.received.lock();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for (name, _) in &received.events {
            *counts.entry(name).or_default() += 1;
        }
        let last: Vec<_> = received.events.iter().rev().take(3).collect();
        format!("received {counts:?}, {} acks, closed {:?}, last {last:?}", received.acks.len(), received.closed)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.cut.request();
    }
}

fn of_room(received: &Received, room: &str) -> Vec<Value> {
    let is_of_room = |(name, data): &&(String, Value)| name == "message.delivered" && data["roomId"] == room;
    received.events.iter().filter(is_of_room).map(|(_, data)| data.clone()).collect()
}

async fn read(mut source: SplitStream<WebSocketStream<TcpStream>>, shared: Arc<Shared>, cut: Shutdown) {
    let closed = loop {
        let next = tokio::select! {
            next = source.next() => next,
            () = cut.requested() => break None,
        };
        match next {
            Some(Ok(Message::Text(text))) => keep(&shared, &text),
            Some(Ok(Message::Close(frame))) => {
                break frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break None,
        }
    };
    shared.received.lock().closed = Some(closed);
    shared.news.notify_waiters();
}

fn keep(shared: &Shared, text: &str) {
    let mut frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"));
    let mut received = shared.received.lock();
    if let Some(id) = frame["id"].as_i64() {
        let before = received.acks.insert(id, frame["ack"].take());
        assert!(before.is_none(), "a second ack of {id}");
    } else {
        let name = frame["event"].as_str().unwrap_or_default().to_owned();
        received.events.push((name, frame["data"].take()));
    }
    drop(received);
    shared.news.notify_waiters();
}
