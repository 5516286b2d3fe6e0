//! What failed once and is tried again, or was a dead letter and is replayed, when something newer was stored.

use domain::{EventKind, JobId, MessageId};
use handlers::Outcome;
use protocol::{Change, Code, wire};

use crate::world::{World, job, send};

#[tokio::test]
async fn an_edit_and_a_title_that_come_late_leave_what_was_stored_since_and_are_refused_with_conflict() {
    let world = World::new().await;
    let ann = world.user().await;
    let room = world.group(ann, &[]).await;
    let message = MessageId::of(ann, "a");
    world.apply(&[send(room, ann, "a", "first")]).await;
    let edit = |content: &str| {
        let (room_id, message_id) = (room.to_string(), message.to_string());
        let edit = wire::MessageEdit { room_id, message_id, content: content.to_owned() };
        job(room, ann, JobId::generate(), EventKind::MessageEdit, Change::MessageEdit(edit))
    };
    let title = |title: &str| {
        let update = wire::RoomUpdate { title: Some(title.to_owned()) };
        job(room, ann, JobId::generate(), EventKind::RoomUpdate, Change::RoomUpdate(update))
    };
    let mut late = [edit("old"), title("old")];
    for job in &mut late {
        job.first_failed_at = Some(world.clock.now());
    }
    assert_eq!(world.apply(&[edit("new"), title("new")]).await, vec![Outcome::Stored; 2]);
    assert_eq!(world.apply(&late).await, vec![Outcome::Refused(Code::Conflict); 2]);
    assert_eq!(world.apply(&late).await, vec![Outcome::Duplicate; 2], "that was their outcome");
    let stored = world.store.message(message).await.expect("reads").expect("it is there");
    assert_eq!(stored.content, "new");
    let room = world.store.room(room).await.expect("reads").expect("it is there");
    assert_eq!(room.title.as_deref(), Some("new"));
}
