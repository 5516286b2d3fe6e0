//! The whole system over a Redis cluster.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::Value;
use testkit::cluster::SystemSpec;
use testkit::services::RedisCluster;
use testkit::{PATIENCE, until};

use super::presence::direct_room;

/// Messages in each room.
const MESSAGES: usize = 60;
const ROOMS: usize = 4;

/// The ids of messages, in the order in which they came.
fn ids(messages: &[Value]) -> Vec<String> {
    messages.iter().map(|message| message["messageId"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn over_a_redis_cluster_a_node_dies_and_comes_back_and_everybody_has_the_same_list() {
    let redis = RedisCluster::start().await;
    let system = SystemSpec::distributed(2, 2).env("REDIS_URL", &redis.url()).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(alice.create_group(&[&bob]).await);
    }
    let one = alice.connect(system.gateway(0)).await;
    let other = bob.connect(system.gateway(1)).await;

    let saying = async {
        for number in 0..MESSAGES {
            for room in &rooms {
                let (socket, who) = if number % 2 == 0 { (&one, "alice") } else { (&other, "bob") };
                let ack = socket.say(room, &format!("{who}-{number}-{room}"), &format!("number {number}")).await;
                assert_eq!(ack["status"], "QUEUED", "{ack}");
            }
        }
    };
    let dying = async {
        for room in &rooms {
            one.delivered(room, 10).await;
        }
        // The node that has the first room, and perhaps presence.
        let lost = redis.owner_of(&format!("chat:log:{{{}}}", rooms[0])).await;
        redis.nodes()[lost].kill9().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        redis.nodes()[lost].start_again().await;
    };
    tokio::join!(saying, dying);

    for room in &rooms {
        let (seen, also) = (one.delivered(room, MESSAGES).await, other.delivered(room, MESSAGES).await);
        let expected = ids(&alice.history(room).await);
        assert_eq!((ids(&seen), ids(&also)), (expected.clone(), expected.clone()));
        assert_eq!((expected.len(), expected.iter().collect::<HashSet<_>>().len()), (MESSAGES, MESSAGES));
    }
    system.wait_ready().await;
    system.assert_healthy();
}

#[tokio::test]
async fn over_a_redis_cluster_people_see_one_another_come_and_go_from_other_gateways() {
    let redis = RedisCluster::start().await;
    let system = SystemSpec::distributed(2, 1).env("REDIS_URL", &redis.url()).env("PRESENCE_GRACE", "0s").start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    direct_room(&alice, &bob).await;
    let watching = alice.connect(system.gateway(0)).await;
    let come_and_go = async || {
        let of_bob = |status: &'static str| {
            let bob = bob.id.clone();
            move |data: &Value| data["userId"] == *bob && data["status"] == status
        };
        let before = watching.events("presence.changed").len();
        let there = bob.connect(system.gateway(1)).await;
        until(PATIENCE, || async { watching.events("presence.changed")[before..].iter().any(of_bob("online")) }).await;
        there.cut();
        until(PATIENCE, || async { watching.events("presence.changed")[before..].iter().any(of_bob("offline")) }).await;
    };
    come_and_go().await;
    // The node that carries presence forgets everything.
    let carrier = redis.owner_of("chat:{presence}:online:users").await;
    redis.nodes()[carrier].kill9().await;
    redis.nodes()[carrier].start_again().await;
    redis.whole(3).await;
    system.wait_ready().await;
    come_and_go().await;
    system.assert_healthy();
}
