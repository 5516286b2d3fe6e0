//! Read marks: whoever is told that one was taken can rely on it.

use std::time::Duration;

use protocol::{Code, wire};
use tokio::sync::oneshot;

use crate::world::{World, send};

#[tokio::test]
async fn a_mark_of_somebody_who_is_removed_at_that_moment_is_not_acked() {
    let world = World::new().await;
    let (ann, ben) = (world.user().await, world.user().await);
    let room = world.group(ann, &[ben]).await;
    world.apply(&[send(room, ann, "1", "hello")]).await;
    let mark = wire::MessageRead { room_id: room.to_string(), seq: Some(1), message_id: None };
    let (begun, removing) = oneshot::channel();
    let reads = async {
        removing.await.expect("begun");
        // It is a member still by what is committed, and waits to write.
        world.handlers.read(ben, mark.clone()).await
    };
    let ((), read) = tokio::join!(world.remove_slowly(room, ben, begun, Duration::from_millis(500)), reads);
    assert_eq!(read.expect_err("refused").code, Code::NotFound);
    for _ in 0..2 {
        world.handlers.read(ann, mark.clone()).await.expect("a mark that stands already is fine");
    }
}
