//! Events that kill: lives of a worker on an embedded engine, each ended by a panic that nothing
//! catches.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use broker::LetterQuery;
use config::{Role, Settings};
use domain::room::RoomKind;
use domain::{JobId, MessageId, RoomId, Timestamp, UserId};
use engine::Engine;
use futures_util::FutureExt as _;
use handlers::{HandlerParts, Handlers};
use protocol::envelope::NewEvent;
use protocol::wire::MessageSend;
use protocol::{Change, SignedEnvelope};
use runtime::{Shutdown, Tasks};
use store::message::Page;
use store::user::NewUser;

use super::*;

/// Nothing more comes after so long.
const QUIET: Duration = Duration::from_millis(500);

struct World {
    parts: Parts,
    room: RoomId,
    ann: UserId,
    _tasks: Tasks,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let keys = format!("k1:{}", "QUJD".repeat(11));
        let path = folder.path().to_str().expect("a name in UTF-8");
        let pairs = [("DATA_DIR", path), ("HMAC_KEYS", &keys), ("JWT_ACCESS_TOKEN", "a secret that is long enough")];
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
        let (room_log_kept, duty) = (None, crate::pruning::Duty::default());
        let parts = Parts { store, broker, realtime, handlers, keys, clock, room_log_kept, duty };
        let ann = UserId::generate();
        let new = NewUser {
            id: ann,
            email: "ann@example.com".to_owned(),
            password_hash: "none".to_owned(),
            first_name: "Ann".to_owned(),
            last_name: "Lee".to_owned(),
            phone: None,
            created_at: Timestamp(0),
        };
        parts.store.create_user(&new).await.expect("an account");
        let made = Box::pin(parts.handlers.create_room(ann, RoomKind::Group, None, Vec::new())).await;
        let room = made.expect("a room").room.id;
        Self { parts, room, ann, _tasks: tasks, _folder: folder }
    }

    async fn say(&self, contents: &[&str]) {
        for (number, content) in contents.iter().enumerate() {
            let name = format!("{number} {content}");
            let send = MessageSend {
                room_id: self.room.to_string(),
                content: (*content).to_owned(),
                client_msg_id: name.clone(),
                ..Default::default()
            };
            let event = NewEvent {
                job_id: JobId::from(MessageId::of(self.ann, &name)),
                room_id: self.room,
                actor: self.ann,
                device_id: String::new(),
                accepted_at: Timestamp(0),
                correlation_id: None,
                traceparent: None,
                change: Change::MessageSend(send),
            };
            self.parts.broker.publish(SignedEnvelope::seal(event, &self.parts.keys)).await.expect("confirmed");
        }
    }

    /// Takes what there is until it is quiet; false when something killed it.
    async fn live(&self) -> bool {
        let mut consumer = self.parts.broker.consume(0).await.expect("free");
        let mut caution = Caution::new(0);
        let life = async {
            while let Ok(batch) = tokio::time::timeout(QUIET, consumer.next_batch(200)).await {
                caution.take(&self.parts, &mut consumer, batch.expect("open")).await.expect("nothing is away");
            }
        };
        AssertUnwindSafe(life).catch_unwind().await.is_ok()
    }

    async fn contents(&self) -> Vec<String> {
        let stored = self.parts.store.history(self.room, Page::Newest, 100).await.expect("reads");
        stored.into_iter().map(|message| message.content).collect()
    }

    /// Whether anything is still counted as begun.
    async fn is_anything_counted(&self) -> bool {
        let again = self.parts.store.begin_again(0, uuid::Uuid::max(), self.parts.clock.now()).await.expect("counts");
        self.parts.store.finish_again(0, uuid::Uuid::max()).await.expect("forgets");
        again.is_any_alone || again.times > 1
    }
}

#[tokio::test]
async fn an_event_that_kills_takes_nobody_along_and_ends_as_a_dead_letter() {
    let world = World::new().await;
    world.say(&["a", "b", "poison", "c", "d"]).await;
    let mut deaths = 0;
    while !world.live().await {
        deaths += 1;
        assert!(deaths < 20, "it kills for ever");
        if deaths == 3 {
            assert_eq!(world.contents().await, ["a", "b"], "those before it are done one by one");
        }
    }
    // Once before anybody suspects anything, once more with the same head, and five times alone.
    assert_eq!(deaths, 7);
    assert_eq!(world.contents().await, ["a", "b", "c", "d"]);
    let letters = world.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].header("x-cause"), letters[0].header("x-kind")), (Some("crashes"), Some("bug")));
    assert_eq!(letters[0].header("x-sender"), Some(world.ann.to_string().as_str()));
    assert!(!world.is_anything_counted().await);
}

#[tokio::test]
async fn two_that_kill_are_both_found() {
    let world = World::new().await;
    world.say(&["a", "poison", "b", "poison", "c"]).await;
    let mut deaths = 0;
    while !world.live().await {
        deaths += 1;
        assert!(deaths < 30, "it kills for ever");
    }
    assert_eq!(world.contents().await, ["a", "b", "c"]);
    let letters = world.parts.broker.dead_letters(&LetterQuery::first(10)).await.expect("an answer").letters;
    assert_eq!(letters.len(), 2);
}

#[tokio::test]
async fn whoever_dies_otherwise_leaves_no_count_behind() {
    let world = World::new().await;
    world.say(&["a", "b", "c"]).await;
    for _ in 0..3 {
        let mut consumer = world.parts.broker.consume(0).await.expect("free");
        let held = consumer.next_batch(200).await.expect("open");
        assert_eq!(held.len(), 3, "it dies before it did anything");
    }
    assert!(world.live().await);
    assert_eq!(world.contents().await, ["a", "b", "c"]);
    assert!(!world.is_anything_counted().await);
}
