//! What the tests of this crate stand on: an engine, its handlers, and somebody with an account.

use std::sync::Arc;

use broker::{Confirm, Consumer, Incoming};
use config::{Role, Settings};
use domain::room::RoomKind;
use domain::{JobId, RoomId, Timestamp, UserId};
use engine::Engine;
use handlers::{HandlerParts, Handlers};
use protocol::envelope::NewEvent;
use protocol::{Change, Keyring, SignedEnvelope};
use runtime::{Shutdown, Tasks};
use store::user::NewUser;

use crate::Parts;
use crate::deaths::Turn;
use crate::joint::Joint;
use crate::pruning::Duty;

/// The key that processors know, as `HMAC_KEYS` has it.
pub(crate) fn known_key() -> String {
    format!("k1:{}", "QUJD".repeat(11))
}

pub(crate) struct Bench {
    pub(crate) parts: Parts,
    pub(crate) ann: UserId,
    _tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl Bench {
    /// Over these services, or embedded.
    pub(crate) async fn over(services: &[(&str, &str)]) -> Self {
        let (folder, key) = (tempfile::tempdir().expect("a folder"), known_key());
        let path = folder.path().to_str().expect("a name in UTF-8");
        let secret = "a secret that is long enough";
        let mut pairs = vec![("DATA_DIR", path), ("HMAC_KEYS", &*key), ("JWT_ACCESS_TOKEN", secret)];
        pairs.extend(services);
        let settings = Settings::from_pairs(Role::AllInOne, &pairs).expect("good settings");
        let tasks = Tasks::new(Shutdown::new());
        let engine = Box::pin(Engine::open(&settings, &tasks)).await.expect("opens");
        let Engine { store, broker, realtime, keys, clock, .. } = engine;
        let handlers = Handlers::new(HandlerParts {
            store: store.clone(),
            realtime: realtime.clone(),
            keys: keys.clone(),
            clock: clock.clone(),
        });
        let (joint, joiner) = Joint::new(handlers.clone());
        tasks.own("joiner", joiner.run());
        let (room_log_kept, duty, turn, tally) = (None, Duty::default(), Turn::default(), Arc::default());
        let parts = Parts { store, broker, realtime, handlers, joint, keys, clock, room_log_kept, duty, turn, tally };
        let ann = UserId::generate();
        let account = NewUser {
            id: ann,
            email: "ann@example.com".to_owned(),
            password_hash: "none".to_owned(),
            first_name: "Ann".to_owned(),
            last_name: "Lee".to_owned(),
            phone: None,
            created_at: Timestamp(0),
        };
        parts.store.create_user(&account).await.expect("an account");
        Self { parts, ann, _tasks: tasks, _folder: folder }
    }

    pub(crate) async fn new_room(&self) -> RoomId {
        let made = Box::pin(self.parts.handlers.create_room(self.ann, RoomKind::Group, None, Vec::new())).await;
        made.expect("a room").room.id
    }

    pub(crate) async fn publish(&self, room_id: RoomId, job_id: JobId, change: Change, keys: &Keyring) {
        self.hand_over(room_id, job_id, change, keys).await.expect("confirmed");
    }

    /// The same without waiting.
    pub(crate) fn hand_over(&self, room_id: RoomId, job_id: JobId, change: Change, keys: &Keyring) -> Confirm {
        let event = NewEvent {
            job_id,
            room_id,
            actor: self.ann,
            device_id: String::new(),
            accepted_at: self.parts.clock.now(),
            correlation_id: None,
            traceparent: None,
            change,
        };
        self.parts.broker.publish(SignedEnvelope::seal(event, keys))
    }
}

/// The next so many events.
pub(crate) async fn receive(consumer: &mut Consumer, events: usize) -> Vec<Incoming> {
    let mut received = Vec::new();
    while received.len() < events {
        let next = consumer.next_batch(events - received.len());
        received.extend(tokio::time::timeout(testkit::PATIENCE, next).await.expect("it comes").expect("open"));
    }
    received
}
