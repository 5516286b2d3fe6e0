//! Handlers over a store of their own, and short words for what the tests say often.

use std::time::Duration;

use domain::room::RoomKind;
use domain::{EventKind, JobId, MessageId, RoomId, Timestamp, UserId};
use handlers::{HandlerParts, Handlers, Job, Outcome};
use protocol::{Change, Channel, EventData, Keyring, VerifiedEnvelope, delivery, wire};
use realtime::{Arrival, Inbox, Realtime, RealtimeSettings};
use runtime::{Clock, Shutdown, Tasks};
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use store::user::NewUser;
use store::{Store, StoreSettings};
use tokio::sync::oneshot;

/// Handlers, what they stand on, and an inbox to look into.
pub(crate) struct World {
    pub(crate) handlers: Handlers,
    pub(crate) store: Store,
    pub(crate) realtime: Realtime,
    pub(crate) keys: Keyring,
    pub(crate) clock: Clock,
    tasks: Tasks,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::over(RealtimeSettings::Embedded).await
    }

    /// A world in which nobody notices for so long that somebody left.
    pub(crate) async fn with_grace(grace: Duration) -> Self {
        let mut world = Self::new().await;
        world.realtime = world.realtime.with_grace(grace);
        world.handlers = handlers_over(&world.store, &world.realtime, &world.keys, &world.clock);
        world
    }

    pub(crate) async fn over(realtime: RealtimeSettings) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let store = Store::open(StoreSettings::Sqlite { path, sync_full: false }).await.expect("opens");
        store.migrate().await.expect("migrates");
        let tasks = Tasks::new(Shutdown::new());
        let realtime = Realtime::open(realtime, &tasks).await.expect("opens");
        let keys = Keyring::parse(&format!("k1:{}", "QUJD".repeat(11))).expect("keys");
        let clock = Clock::system();
        let handlers = handlers_over(&store, &realtime, &keys, &clock);
        Self { handlers, store, realtime, keys, clock, tasks, folder }
    }

    /// The same store under a realtime engine that has forgotten everything.
    pub(crate) async fn after_a_wipe(&self) -> Handlers {
        self.after_a_wipe_with_realtime().await.0
    }

    /// The same, with the engine itself.
    pub(crate) async fn after_a_wipe_with_realtime(&self) -> (Handlers, Realtime) {
        let realtime = Realtime::open(RealtimeSettings::Embedded, &self.tasks).await.expect("opens");
        (handlers_over(&self.store, &realtime, &self.keys, &self.clock), realtime)
    }

    pub(crate) async fn user(&self) -> UserId {
        let id = UserId::generate();
        let new = NewUser {
            id,
            email: format!("{id}@example.com"),
            password_hash: "$argon2id$".to_owned(),
            first_name: "Ann".to_owned(),
            last_name: "Other".to_owned(),
            phone: None,
            created_at: Timestamp(0),
        };
        self.store.create_user(&new).await.expect("an account");
        id
    }

    pub(crate) async fn group(&self, owner: UserId, others: &[UserId]) -> RoomId {
        let made = Box::pin(self.handlers.create_room(owner, RoomKind::Group, None, others.to_vec())).await;
        made.expect("a room").room.id
    }

    /// Leaves something in the store that nobody can read as a wish of this user.
    pub(crate) async fn damage_wish(&self, user: UserId) {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("store.db"));
        let mut conn = SqliteConnection::connect_with(&options).await.expect("connects");
        let damage = sqlx::query("INSERT INTO presence_wishes (user_id, status) VALUES ($1, 'nonsense')").bind(user.0);
        damage.execute(&mut conn).await.expect("damaged");
    }

    /// Removes a member past everybody, and does not commit it for that long.
    pub(crate) async fn remove_slowly(&self, room: RoomId, user: UserId, begun: oneshot::Sender<()>, hold: Duration) {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("store.db"));
        let mut conn = SqliteConnection::connect_with(&options).await.expect("connects");
        let mut tx = conn.begin().await.expect("begins");
        let remove = sqlx::query("DELETE FROM room_members WHERE room_id = $1 AND user_id = $2");
        remove.bind(room.0).bind(user.0).execute(&mut *tx).await.expect("removed");
        begun.send(()).expect("awaited");
        tokio::time::sleep(hold).await;
        tx.commit().await.expect("commits");
    }

    pub(crate) async fn inbox(&self, channel: Channel) -> Inbox {
        let inbox = self.realtime.inbox();
        self.realtime.subscribe(&inbox.id(), &[channel]).await.expect("subscribed");
        inbox
    }

    /// What is in the inbox by now, up to a mark published after it.
    pub(crate) async fn arrived(&self, inbox: &mut Inbox, channel: Channel) -> Vec<EventData> {
        self.arrived_of(&self.realtime, inbox, channel).await
    }

    /// The same on another engine.
    pub(crate) async fn arrived_of(&self, realtime: &Realtime, inbox: &mut Inbox, channel: Channel) -> Vec<EventData> {
        let mark = realtime::Outbound { channel, rev: None, payload: "mark".into() };
        realtime.publish(&[mark]).await.expect("published");
        let mut events = Vec::new();
        loop {
            match inbox.recv().await.expect("open") {
                Arrival::Delivery { payload, .. } if payload == "mark" => return events,
                Arrival::Delivery { channel, payload, .. } => {
                    events.push(delivery::open(channel, &payload, &self.keys).expect("ours").event);
                }
                Arrival::Reconnected => panic!("nothing was lost"),
            }
        }
    }

    pub(crate) async fn apply(&self, jobs: &[Job]) -> Vec<Outcome> {
        self.handlers.apply(jobs).await.expect("applied")
    }
}

fn handlers_over(store: &Store, realtime: &Realtime, keys: &Keyring, clock: &Clock) -> Handlers {
    Handlers::new(HandlerParts {
        store: store.clone(),
        realtime: realtime.clone(),
        keys: keys.clone(),
        clock: clock.clone(),
    })
}

pub(crate) fn job(room_id: RoomId, actor: UserId, job_id: JobId, kind: EventKind, change: Change) -> Job {
    let (device_id, accepted_at) = (String::new(), Clock::system().now());
    let event = VerifiedEnvelope { job_id, kind, room_id, actor, device_id, accepted_at, traceparent: None, change };
    Job { event, redelivered: false, first_failed_at: None, last_attempt: false }
}

pub(crate) fn send(room: RoomId, actor: UserId, name: &str, content: &str) -> Job {
    let (content, client_msg_id) = (content.to_owned(), name.to_owned());
    let send = wire::MessageSend { room_id: room.to_string(), content, client_msg_id, ..Default::default() };
    job(room, actor, MessageId::of(actor, name).into(), EventKind::MessageSend, Change::MessageSend(send))
}

pub(crate) fn add(room: RoomId, actor: UserId, user: UserId) -> Job {
    let add = wire::MemberAdd { user_ids: vec![user.to_string()], role: "member".into() };
    job(room, actor, JobId::generate(), EventKind::MemberAdd, Change::MemberAdd(add))
}

pub(crate) fn remove(room: RoomId, actor: UserId, user: UserId) -> Job {
    let remove = wire::MemberRemove { user_id: user.to_string() };
    job(room, actor, JobId::generate(), EventKind::MemberRemove, Change::MemberRemove(remove))
}

pub(crate) fn typing(room: RoomId, actor: UserId) -> Job {
    let typing = wire::SetTyping { room_id: room.to_string(), is_typing: true };
    job(room, actor, JobId::generate(), EventKind::Typing, Change::Typing(typing))
}
