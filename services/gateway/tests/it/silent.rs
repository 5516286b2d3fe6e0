//! Events that are stored and that nobody is told of, as when a processor dies between commit and
//! publish, or pub/sub loses the word.

use domain::{JobId, MessageId, RoomId, UserId};
use handlers::{HandlerParts, Handlers, Job};
use protocol::envelope::NewEvent;
use protocol::{Change, SignedEnvelope, wire};
use realtime::{Realtime, RealtimeSettings};
use runtime::{Shutdown, Tasks};

use crate::house::House;

/// Stores a message.
pub(crate) async fn say(house: &House, room: RoomId, sender: UserId, name: &str) {
    let send = wire::MessageSend {
        room_id: room.to_string(),
        content: "unsaid".into(),
        client_msg_id: name.into(),
        ..Default::default()
    };
    apply(house, room, sender, MessageId::of(sender, name).into(), Change::MessageSend(send)).await;
}

/// Removes somebody from a room.
pub(crate) async fn remove(house: &House, owner: UserId, room: RoomId, who: UserId) {
    let remove = wire::MemberRemove { user_id: who.to_string() };
    apply(house, room, owner, JobId::generate(), Change::MemberRemove(remove)).await;
}

/// Adds somebody to a room.
pub(crate) async fn add(house: &House, owner: UserId, room: RoomId, who: UserId) {
    let add = wire::MemberAdd { user_ids: vec![who.to_string()], role: "member".to_owned() };
    apply(house, room, owner, JobId::generate(), Change::MemberAdd(add)).await;
}

async fn apply(house: &House, room_id: RoomId, actor: UserId, job_id: JobId, change: Change) {
    let tasks = Tasks::new(Shutdown::new());
    let nowhere = Realtime::open(RealtimeSettings::Embedded, &tasks).await.expect("in memory");
    let engine = house.engine.clone();
    let parts =
        HandlerParts { store: engine.store, realtime: nowhere, keys: engine.keys.clone(), clock: engine.clock.clone() };
    let event = NewEvent {
        job_id,
        room_id,
        actor,
        device_id: String::new(),
        accepted_at: engine.clock.now(),
        correlation_id: None,
        traceparent: None,
        change,
    };
    let envelope = SignedEnvelope::seal(event, &engine.keys);
    let event = envelope.to_unverified().verify(&engine.keys).expect("ours");
    let job = Job { event, redelivered: false, first_failed_at: None, last_attempt: false };
    Box::pin(Handlers::new(parts).apply(&[job])).await.expect("applied");
}
