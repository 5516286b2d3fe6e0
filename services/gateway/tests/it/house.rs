//! One process with everything a gateway needs, and clients that are not ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::{Role, Settings};
use domain::room::RoomKind;
use domain::{RoomId, UserId};
use engine::Engine;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use gateway::{Gateway, GatewayParts};
use handlers::{HandlerParts, Handlers};
use intake::{Actor, Intake, IntakeParts};
use processor::Processor;
use realtime::{Realtime, RealtimeSettings};
use runtime::{Shutdown, Tasks};
use serde_json::Value;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use store::{ImportRoom, ImportUser};
use telemetry::http;
use testkit::client::Socket;
use testkit::token::mint;
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::codec::{Codec, relay};

pub(crate) const SECRET: &str = "a secret of the tests that is long enough for every check there is";
const KEYS: &str = "t1:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// A gateway and a processor over one embedded engine.
pub(crate) struct House {
    pub(crate) engine: Engine,
    pub(crate) gateway: Gateway,
    pub(crate) base: String,
    /// The gateway itself, whatever it is spoken to in.
    pub(crate) direct: String,
    settings: Arc<Settings>,
    tasks: Tasks,
    _processor: Processor,
    folder: tempfile::TempDir,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(&[]).await
    }

    /// A house whose gateway is spoken to in that codec; clients of `base` speak JSON in any case.
    pub(crate) async fn speaking(codec: Codec) -> Self {
        Self::speaking_with(codec, &[]).await
    }

    /// The same with these settings besides the usual ones.
    pub(crate) async fn speaking_with(codec: Codec, more: &[(&str, &str)]) -> Self {
        let mut house = Self::with(more).await;
        if codec == Codec::Protobuf {
            house.base = relay(&house.base, &house.tasks).await;
        }
        house
    }

    /// A house with these settings besides the usual ones.
    pub(crate) fn with<'a>(more: &'a [(&'a str, &'a str)]) -> BoxFuture<'a, Self> {
        Box::pin(Self::build(more, None, None))
    }

    /// A house whose network holds little: what it holds for a client that does not read is no memory
    /// of ours, and there is not enough of it for a thousand of them.
    pub(crate) async fn narrow() -> Self {
        Box::pin(Self::build(&[], Some(32 * 1024), None)).await
    }

    /// A house over the Redis at that URL.
    pub(crate) async fn over(redis: String) -> Self {
        Box::pin(Self::build(&[], None, Some(redis))).await
    }

    async fn build(more: &[(&str, &str)], send_buffer: Option<u32>, redis: Option<String>) -> Self {
        telemetry::recorder::install();
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("UTF-8").to_owned();
        let mut pairs = vec![
            ("APP_ENV", "test"),
            ("DATA_DIR", &path),
            ("EMBEDDED_SYNC", "normal"),
            ("JWT_ACCESS_TOKEN", SECRET),
            ("HMAC_KEYS", KEYS),
            ("LIMIT_USER_EVENTS_PER_SEC", "0"),
        ];
        pairs.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        pairs.extend_from_slice(more);
        let settings = Arc::new(Settings::from_pairs(Role::AllInOne, &pairs).expect("good settings"));
        let tasks = Tasks::new(Shutdown::new());
        let mut engine = Box::pin(Engine::open(&settings, &tasks)).await.expect("an engine");
        if let Some(url) = redis {
            engine.realtime = Realtime::open(RealtimeSettings::Redis { url }, &tasks).await.expect("a realtime engine");
        }
        let processor = Processor::start(&engine, None, &tasks);
        let (gateway, base) = start_gateway(&settings, &engine, &tasks, send_buffer);
        Self { engine, gateway, direct: base.clone(), base, settings, tasks, _processor: processor, folder }
    }

    /// One more gateway over the same engine.
    pub(crate) fn another_gateway(&self) -> (Gateway, String) {
        start_gateway(&self.settings, &self.engine, &self.tasks, None)
    }

    /// How often that limit turned something away or ended it, in this process.
    pub(crate) fn limited(limit: &str) -> usize {
        Self::gauge(&format!("chat_limited_total{{limit=\"{limit}\"}}"))
    }

    /// What a metric of this process says, a whole number.
    pub(crate) fn gauge(name: &str) -> usize {
        let text = telemetry::recorder::install().render();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or(0)
    }

    /// Runs a statement of SQL past everybody.
    pub(crate) async fn sql(&self, statement: &'static str) {
        let file =
            SqliteConnectOptions::new().filename(self.folder.path().join("chat.db")).busy_timeout(testkit::PATIENCE);
        let mut connection = SqliteConnection::connect_with(&file).await.expect("the store's file");
        sqlx::query(statement).execute(&mut connection).await.expect(statement);
    }

    pub(crate) fn handlers(&self) -> Handlers {
        let Engine { store, realtime, keys, clock, .. } = self.engine.clone();
        Handlers::new(HandlerParts { store, realtime, keys, clock })
    }

    pub(crate) fn intake(&self) -> Intake {
        let Engine { broker, store, realtime, keys, clock, .. } = self.engine.clone();
        let rate = domain::rate::Rate { per_second: 0, burst: 0 };
        Intake::new(IntakeParts { broker, store, realtime, keys, clock, rate, queued_events: 0 }, &self.tasks)
    }

    /// Somebody new.
    pub(crate) async fn user(&self) -> UserId {
        let id = UserId::generate();
        let user = ImportUser {
            id,
            email: None,
            password_hash: None,
            first_name: "Test".to_owned(),
            last_name: "Person".to_owned(),
        };
        let mut import = self.engine.store.begin_import(self.engine.clock.now()).await.expect("an import");
        import.users(&[user]).await.expect("a user");
        import.commit().await.expect("a commit");
        id
    }

    /// A group that nobody is told of; the first is its owner.
    pub(crate) async fn room(&self, members: &[UserId]) -> RoomId {
        let id = RoomId::generate();
        let room = ImportRoom { id, kind: RoomKind::Group, title: None, members: members.to_vec() };
        let mut import = self.engine.store.begin_import(self.engine.clock.now()).await.expect("an import");
        import.rooms(&[room]).await.expect("a room");
        import.commit().await.expect("a commit");
        id
    }

    /// A direct room that nobody is told of.
    pub(crate) async fn direct_room(&self, one: UserId, other: UserId) {
        let id = RoomId::direct(one, other);
        let room = ImportRoom { id, kind: RoomKind::Direct, title: None, members: vec![one, other] };
        let mut import = self.engine.store.begin_import(self.engine.clock.now()).await.expect("an import");
        import.rooms(&[room]).await.expect("a room");
        import.commit().await.expect("a commit");
    }

    /// Removes somebody from a room, by its owner.
    pub(crate) async fn remove(&self, owner: UserId, room: RoomId, who: UserId) {
        let removed = self.intake().remove_member(&by(owner), room, who).await.expect("may be removed");
        removed.confirmed().await.expect("a confirm");
    }

    /// Adds somebody to a room, by its owner.
    pub(crate) async fn add(&self, owner: UserId, room: RoomId, who: UserId) {
        let added = self.intake().add_members(&by(owner), room, vec![who.to_string()], None).await;
        added.expect("may be added").confirmed().await.expect("a confirm");
    }

    pub(crate) fn token(user: UserId) -> String {
        mint(SECRET, &user.to_string(), 3600)
    }

    /// A ready native session.
    pub(crate) async fn connect(&self, user: UserId) -> Socket {
        connect_to(&self.base, user).await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.tasks.shutdown().request();
    }
}

/// A ready native session on some gateway.
pub(crate) async fn connect_to(base: &str, user: UserId) -> Socket {
    let socket = Socket::open(base, &format!("/ws?token={}", House::token(user))).await;
    socket.event("session.ready", |_| true).await;
    socket
}

fn start_gateway(
    settings: &Arc<Settings>,
    engine: &Engine,
    tasks: &Tasks,
    send_buffer: Option<u32>,
) -> (Gateway, String) {
    let parts = GatewayParts { settings: Arc::clone(settings), engine: engine.clone(), tasks: tasks.clone() };
    let gateway = Gateway::start(parts);
    let socket = TcpSocket::new_v4().expect("a socket");
    if let Some(bytes) = send_buffer {
        socket.set_send_buffer_size(bytes).expect("a small buffer");
    }
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
    let listener = socket.listen(4096).expect("listens");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    http::serve(listener, gateway.router(), tasks);
    (gateway, base)
}

fn by(user: UserId) -> Actor {
    Actor { user, device: String::new(), traceparent: None }
}

/// A WebSocket that does nothing by itself.
pub(crate) struct Raw {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Raw {
    pub(crate) async fn open(base: &str, path: &str) -> Self {
        Self::try_open(base, path).await.expect("upgraded")
    }

    pub(crate) async fn try_open(base: &str, path: &str) -> Result<Self, Error> {
        let authority = base.trim_start_matches("http://");
        let request = format!("ws://{authority}{path}").into_client_request()?;
        let stream = TcpStream::connect(authority).await.map_err(Error::Io)?;
        let (socket, _) = client_async(request, stream).await?;
        Ok(Self { socket })
    }

    pub(crate) async fn say(&mut self, text: impl Into<String>) {
        self.socket.send(Message::text(text.into())).await.expect("sent");
    }

    /// The next message that is not a ping or pong; `None` when the connection is over.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let next = tokio::time::timeout(testkit::PATIENCE, self.socket.next()).await.expect("something in time");
            match next {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next text.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("no text but {other:?}"),
        }
    }

    /// The next text that starts like this, without the start, as JSON.
    pub(crate) async fn json_after(&mut self, start: &str) -> Value {
        loop {
            if let Some(rest) = self.text().await.strip_prefix(start) {
                return serde_json::from_str(rest).expect("JSON");
            }
        }
    }

    /// The close code, after whatever else comes before.
    pub(crate) async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.next().await {
                Some(Message::Close(frame)) => return frame.map(|frame| frame.code.into()),
                Some(_) => {}
                None => return None,
            }
        }
    }
}

/// Shows what was measured to whoever changes it.
#[allow(clippy::print_stdout, reason = "that is what it is for")]
pub(crate) fn figure(text: &str) {
    println!("{text}");
}

/// Waits until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    testkit::until(testkit::PATIENCE, || std::future::ready(condition())).await;
}

/// A moment in which what must not come would have come.
pub(crate) const QUIET: Duration = Duration::from_millis(300);
