//! A service of its own for each test: embedded engine, routes, and a worker that applies events.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use api::ApiParts;
use auth::Tokens;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use broker::{DeadLetterNote, Failure, Incoming, Settlement};
use config::{Limits, Role, SecretString, Settings};
use domain::{Cause, Timestamp, UserId};
use engine::Engine;
use handlers::{HandlerParts, Handlers, Job};
use intake::Intake;
use protocol::Change;
use runtime::{Shutdown, Tasks};
use serde_json::{Value, json};
use store::user::NewUser;
use tower::ServiceExt as _;

pub(crate) const SECRET: &str = "a secret of the tests, long enough";
/// Longer than anything here takes on a loaded machine.
const LIMIT: Duration = Duration::from_secs(20);

/// A running service.
pub(crate) struct World {
    pub(crate) engine: Engine,
    pub(crate) router: Router,
    pub(crate) tokens: Tokens,
    pub(crate) intake: Intake,
    pub(crate) stopping: Shutdown,
    /// True: the worker gives up what says so.
    ill: Arc<AtomicBool>,
    tasks: Tasks,
    folder: tempfile::TempDir,
}

/// Somebody with an account and a token.
pub(crate) struct Person {
    pub(crate) id: String,
    pub(crate) user: UserId,
    pub(crate) token: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

pub(crate) fn settings(folder: &std::path::Path) -> Settings {
    let keys = format!("k1:{}", "QUJD".repeat(11));
    let pairs = [
        ("APP_ENV", "test"),
        ("DATA_DIR", folder.to_str().expect("a name in UTF-8")),
        ("EMBEDDED_SYNC", "normal"),
        ("JWT_ACCESS_TOKEN", SECRET),
        ("HMAC_KEYS", &keys),
        ("JWT_ACCESS_EXPIRED", "1h"),
        ("JWT_REFRESH_EXPIRED", "1d"),
        ("CORS_ORIGINS", "https://chat.example"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
    ];
    let settings = Settings::from_pairs(Role::AllInOne, &pairs).expect("good settings");
    Settings { limits: Limits::default(), ..settings }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut settings = settings(folder.path());
        change(&mut settings);
        let tasks = Tasks::new(Shutdown::new());
        let engine = Box::pin(Engine::open(&settings, &tasks)).await.expect("the embedded engine opens");
        let stopping = Shutdown::new();
        let tokens = Tokens::new(&SecretString::from(SECRET), settings.access_lifetime);
        let intake = api::intake(&settings, &engine, &tasks);
        let parts = ApiParts {
            intake: intake.clone(),
            settings: Arc::new(settings),
            engine: engine.clone(),
            tokens: tokens.clone(),
            tasks: tasks.clone(),
            stopping: stopping.clone(),
        };
        let router = api::router(parts).fallback(api::unknown_route);
        let ill = Arc::new(AtomicBool::new(true));
        tasks.detach("worker", Box::pin(apply(engine.clone(), Arc::clone(&ill))));
        Self { engine, router, tokens, intake, stopping, ill, tasks, folder }
    }

    /// From now on nothing is given up any more.
    pub(crate) fn heal(&self) {
        self.ill.store(false, Ordering::Release);
    }

    /// The file of the queues is not to be found any more.
    pub(crate) fn lose_the_queues(&self) {
        std::fs::rename(self.folder.path().join("queue.db"), self.folder.path().join("lost.db")).expect("renamed");
    }

    /// An account without a password of use, and a token for it.
    pub(crate) async fn person(&self, name: &str) -> Person {
        let user = UserId::generate();
        let new = NewUser {
            id: user,
            email: format!("{name}@example.com"),
            password_hash: "none".to_owned(),
            first_name: name.to_owned(),
            last_name: "Tester".to_owned(),
            phone: None,
            created_at: self.now(),
        };
        self.engine.store.create_user(&new).await.expect("a new account");
        let (token, _) = self.tokens.issue(user, self.now());
        Person { id: user.to_string(), user, token }
    }

    /// What processors and gateways use.
    pub(crate) fn handlers(&self) -> Handlers {
        handlers(&self.engine)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.engine.clock.now()
    }

    /// A group of `owner` and `others`; its id.
    pub(crate) async fn group(&self, owner: &Person, others: &[&Person]) -> String {
        let ids: Vec<&str> = others.iter().map(|other| other.id.as_str()).collect();
        let body = json!({ "type": "group", "title": "Group", "memberIds": ids });
        let reply = self.post("/conversations", &owner.token, body).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{reply:?}");
        reply.text("id")
    }

    /// Sends and waits until it is stored.
    pub(crate) async fn say(&self, from: &Person, room: &str, content: &str) -> String {
        let body = json!({ "content": content, "clientMsgId": uuid::Uuid::now_v7().to_string() });
        let reply = self.post(&format!("/conversations/{room}/messages"), &from.token, body).await;
        assert_eq!(reply.status, StatusCode::ACCEPTED, "{reply:?}");
        let id = reply.text("messageId");
        self.until(from, &format!("/conversations/{room}/messages?limit=200"), |page| {
            page["items"].as_array().is_some_and(|items| items.iter().any(|item| item["messageId"] == id.as_str()))
        })
        .await;
        id
    }

    /// Asks again and again until the answer's body is as wanted.
    pub(crate) async fn until(&self, who: &Person, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            loop {
                let reply = self.get(path, &who.token).await;
                if wanted(&reply.body) {
                    return reply.body;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, asking).await.unwrap_or_else(|_| panic!("{path} never became as wanted"))
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Reply {
        self.ask(Method::GET, path, token, None).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: Value) -> Reply {
        self.ask(Method::POST, path, token, Some(body)).await
    }

    /// A request below `/api/v1`; an empty token is none.
    pub(crate) async fn ask(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Reply {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = match body {
            Some(body) => request.header("content-type", "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        self.send(request.expect("a request")).await
    }

    /// A request as it is, from an address that is no proxy.
    pub(crate) async fn send(&self, mut request: Request<Body>) -> Reply {
        let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 4711));
        if request.extensions().get::<ConnectInfo<SocketAddr>>().is_none() {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let response = self.router.clone().oneshot(request).await.expect("a router answers");
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.expect("a body");
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Reply { status: parts.status, headers: parts.headers, body }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.tasks.shutdown().request();
    }
}

impl Reply {
    /// A text field of the body.
    pub(crate) fn text(&self, field: &str) -> String {
        self.body[field].as_str().unwrap_or_else(|| panic!("{field} in {self:?}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Asserts a whole and well-formed refusal; `field` empty: none may be named.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str, field: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], status, "{self:?}");
        assert_eq!(self.body["code"], code, "{self:?}");
        assert_eq!(self.body["field"].as_str().unwrap_or_default(), field, "{self:?}");
        assert_eq!(self.body["requestId"], self.header("x-request-id"), "{self:?}");
        for member in ["type", "title", "detail"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {self:?}");
        }
    }
}

fn handlers(engine: &Engine) -> Handlers {
    let Engine { store, realtime, keys, clock, .. } = engine.clone();
    Handlers::new(HandlerParts { store, realtime, keys, clock })
}

/// Applies whatever comes through the broker, as a processor does.
async fn apply(engine: Engine, ill: Arc<AtomicBool>) {
    let handlers = handlers(&engine);
    let mut consumer = engine.broker.consume(0).await.expect("the embedded broker has one shard");
    while let Ok(batch) = consumer.next_batch(200).await {
        let is_ill = |incoming: &Incoming| ill.load(Ordering::Acquire) && illness(incoming).is_some();
        let (given_up, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(is_ill);
        let given_up = given_up.into_iter().filter_map(|incoming| give_up(incoming, engine.clock.now()));
        let jobs: Vec<Job> = batch
            .iter()
            .map(|incoming| Job {
                event: incoming.envelope.verify(&engine.keys).expect("our own envelope"),
                redelivered: incoming.redelivered,
                first_failed_at: incoming.first_failed_at,
                last_attempt: false,
            })
            .collect();
        if handlers.apply(&jobs).await.is_err() {
            return;
        }
        let settled = batch.into_iter().map(|incoming| (incoming, Settlement::Done)).chain(given_up).collect();
        if consumer.settle(settled).await.is_err() {
            return;
        }
    }
}

/// The cause that a message names for which it is to be given up.
fn illness(incoming: &Incoming) -> Option<Cause> {
    match incoming.envelope.peek()?.change? {
        Change::MessageSend(send) => Cause::parse(send.content.strip_prefix("give up: ")?),
        _ => None,
    }
}

fn give_up(mut incoming: Incoming, at: Timestamp) -> Option<(Incoming, Settlement)> {
    let (cause, event) = (illness(&incoming)?, incoming.envelope.peek()?);
    incoming.failures = 3;
    let id = |bytes: &[u8]| uuid::Uuid::from_slice(bytes).ok().map(|id| id.to_string());
    let note = DeadLetterNote { sender: id(&event.actor_id), room: id(&event.room_id), rendering: "{}".to_owned() };
    Some((incoming, Settlement::Failed(Failure { cause, error: "it says so".to_owned(), at, counts: true, note })))
}
