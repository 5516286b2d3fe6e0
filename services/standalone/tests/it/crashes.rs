//! Processes that are killed with work in hand.

use std::time::Duration;

use serde_json::json;
use testkit::client::Socket;
use testkit::cluster::SystemSpec;
use testkit::until;

use crate::scene::{
    SETTLED_WITHIN, Sent, a_room_on_every_shard, assert_exactly_once, assert_order, assert_seen_live, dead_letters,
    settled, until_metric,
};

const EACH: usize = 150;

fn unlimited(spec: SystemSpec) -> SystemSpec {
    spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0")
}

/// A message on its way: the room's number, the frame's id, the message's name.
type Frame = (usize, i64, String);

/// Sends `each` messages to every room without waiting for an ack in between.
async fn pour(socket: &Socket, rooms: &[String], round: usize, each: usize) -> Vec<Frame> {
    let mut frames = Vec::new();
    for number in 0..each {
        for (index, room) in rooms.iter().enumerate() {
            let name = format!("room {index} round {round} number {number}");
            let data = json!({"roomId": room, "content": format!("this is {name}"), "clientMsgId": name});
            frames.push((index, socket.send("message.send", data).await, name));
        }
    }
    frames
}

/// What was acked QUEUED, and the names of what was not.
async fn outcomes(socket: &Socket, frames: impl Iterator<Item = &Frame>) -> (Vec<Sent>, Vec<String>) {
    let (mut queued, mut unknown) = (Vec::new(), Vec::new());
    for (_, id, name) in frames {
        match socket.try_ack(*id, Duration::from_secs(15)).await {
            Some(ack) if ack["status"] == "QUEUED" => {
                let message_id = ack["messageId"].as_str().unwrap().to_owned();
                queued.push(Sent { name: name.clone(), message_id });
            }
            _ => unknown.push(name.clone()),
        }
    }
    (queued, unknown)
}

#[tokio::test]
async fn a_processor_killed_in_the_middle_of_batches_loses_and_repeats_nothing() {
    let system = unlimited(SystemSpec::distributed(1, 2)).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let rooms = a_room_on_every_shard(&alice, &[&bob]).await;
    let (sender, witness) = (alice.connect(system.gateway(0)).await, bob.connect(system.gateway(0)).await);

    let mut frames = Vec::new();
    for (round, victim) in system.processors.iter().enumerate() {
        for processor in &system.processors {
            until_metric(processor, "chat_shards_owned", &[], 2.0).await;
        }
        let before = victim.metric("chat_events_processed_total", &[]).await;
        let kill = async {
            until_metric(victim, "chat_events_processed_total", &[], before + 1.0).await;
            victim.kill9().await;
        };
        let (poured, ()) = tokio::join!(pour(&sender, &rooms, round, EACH), kill);
        frames.extend(poured);
        victim.start_again().await;
    }
    for (index, room) in rooms.iter().enumerate() {
        let (queued, unknown) = outcomes(&sender, frames.iter().filter(|frame| frame.0 == index)).await;
        assert!(unknown.is_empty(), "a processor's death is none of the sender's business: {unknown:?}");
        let history = settled(&bob, room, queued.len()).await;
        assert_exactly_once(&history, &queued);
        assert_order(&history, &alice.id, &queued);
        assert_seen_live(&witness, room, &history).await;
    }
    assert!(dead_letters(&system).await.is_empty());
    system.assert_healthy();
}

#[tokio::test]
async fn the_all_in_one_killed_in_the_middle_of_sends_has_everything_it_acked() {
    let system = unlimited(SystemSpec::all_in_one()).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let rooms = [alice.create_group(&[&bob]).await];
    let node = system.gateway(0);

    let (mut sent, mut in_hand) = (Vec::new(), 0);
    for round in 0..3 {
        let sender = alice.connect(node).await;
        let kill = async {
            until(SETTLED_WITHIN, || async { sender.acks().len() > 30 }).await;
            node.kill9().await;
        };
        let (frames, ()) = tokio::join!(pour(&sender, &rooms, round, 400), kill);
        let (acked, unknown) = outcomes(&sender, frames.iter()).await;
        in_hand += acked.len().saturating_sub(sender.events("message.delivered").len());
        sent.extend(acked);
        node.start_again().await;
        // What was not acked may or may not be there; sent again, it is there once.
        let sender = alice.connect(node).await;
        for name in unknown {
            let ack = sender.say(&rooms[0], &name, &format!("this is {name}")).await;
            assert_eq!(ack["status"], "QUEUED", "{ack}");
            sent.push(Sent { name, message_id: ack["messageId"].as_str().unwrap().to_owned() });
        }
    }
    assert!(in_hand > 0, "some were acked and not yet stored when it was killed");
    let history = settled(&bob, &rooms[0], sent.len()).await;
    assert_exactly_once(&history, &sent);
    // Who was signed in before the crash still is: secrets and accounts survive.
    bob.rest.get("/api/v1/users/me").await.expect(200);
    system.assert_healthy();
}
