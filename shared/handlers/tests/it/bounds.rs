//! What is read back is bounded in bytes, goes on from where it ended, and misses nothing.

use std::collections::HashMap;

use domain::{Rev, limits};
use handlers::Job;
use protocol::wire;

use crate::world::{World, send};

/// So much content no client may send; its attachments may weigh as much.
const HEAVY: usize = 250 * 1024;

#[tokio::test]
async fn a_replay_ends_after_some_mib_and_goes_on_from_there() {
    const MESSAGES: i64 = 60;
    let world = World::new().await;
    let ann = world.user().await;
    let room = world.group(ann, &[]).await;
    let content = "x".repeat(HEAVY);
    let jobs: Vec<Job> = (0..MESSAGES).map(|number| send(room, ann, &format!("m{number}"), &content)).collect();
    world.apply(&jobs).await;
    let (mut position, end) = (Rev(1), Rev(1 + MESSAGES));
    let mut calls = 0;
    while position < end {
        let page = world.handlers.replay(room, position, end).await.expect("reads").expect("kept");
        assert!(page.len() * HEAVY < 10 * 1024 * 1024, "{} at once", page.len());
        for delivery in &page {
            assert_eq!(delivery.rev, Some(position.next()));
            position = position.next();
        }
        assert!(!page.is_empty(), "it goes on");
        calls += 1;
    }
    assert!(calls > 1);
}

#[tokio::test]
async fn a_sync_is_bounded_in_bytes_over_all_its_rooms_and_always_goes_on() {
    let world = World::new().await;
    let ann = world.user().await;
    let rooms = [world.group(ann, &[]).await, world.group(ann, &[]).await, world.group(ann, &[]).await];
    let content = "x".repeat(HEAVY);
    for room in &rooms[..2] {
        let name = |number: i32| format!("{room}{number}").chars().skip(24).collect::<String>();
        let jobs: Vec<Job> = (0..8).map(|number| send(*room, ann, &name(number), &content)).collect();
        world.apply(&jobs).await;
    }
    let mut after: HashMap<String, i64> = rooms.iter().map(|room| (room.to_string(), 0)).collect();
    for call in 1.. {
        let asked = rooms.iter().chain(&rooms).map(|room| wire::SyncRoom {
            room_id: room.to_string(),
            after_seq: after.get(&room.to_string()).copied(),
            after_rev: None,
        });
        let answer = world.handlers.sync(ann, wire::Sync { rooms: asked.collect() }).await.expect("synced");
        assert_eq!(answer.rooms.len(), 3, "each room once, though asked for twice");
        let bytes: usize = answer.rooms.iter().flat_map(|room| &room.messages).map(|_| HEAVY).sum();
        assert!(bytes <= limits::ANSWER_BYTES + HEAVY, "{bytes}");
        assert!(answer.rooms[2].complete, "nothing is missing there");
        for room in &answer.rooms {
            for message in &room.messages {
                let position = after.get_mut(&room.room_id).expect("asked for");
                *position += 1;
                assert_eq!(message.seq, *position);
            }
        }
        if answer.rooms.iter().all(|room| room.complete) {
            assert!(call > 3 && after.values().sum::<i64>() == 16);
            return;
        }
        assert!(bytes > 0, "it goes on");
    }
}
