//! (i) When everybody has left, nothing stays behind: no event, no presence, no subscription.
//!
//! The invariant: it looks from outside, as an operator does.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::stage::{Shape, Stage};

/// The ladder of retries, and the longest lease: a gateway's.
const QUIET: Duration = Duration::from_secs(31 + 60);
/// In one process there is no lease that outlives its holder.
const QUIET_OF_ONE: Duration = Duration::from_secs(31);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The statistics of the broker's management lag behind.
const LOOKS: u32 = 6;

/// Waits until no event waits anywhere; false when some still do after `limit`.
pub async fn drained(stage: &Stage, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    let mut empty = 0;
    while empty < LOOKS {
        empty = if waiting(stage).await.is_empty() { empty + 1 } else { 0 };
        if Instant::now() >= end {
            return false;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    true
}

/// Where events wait or are not settled, dead letters aside.
async fn waiting(stage: &Stage) -> BTreeMap<String, u64> {
    let Some(management) = stage.management() else {
        let mut waiting = BTreeMap::new();
        for class in ["high", "medium", "low", "retry"] {
            let label = format!("class=\"{class}\"");
            let depth = stage.system.gateway(0).try_metric("chat_queue_depth", &[&label]).await;
            waiting.insert(class.to_owned(), depth.map_or(1, |depth| depth as u64));
        }
        waiting.retain(|_, count| *count > 0);
        return waiting;
    };
    match management.try_queue_depths().await {
        Ok(depths) => {
            let events = depths.into_iter().filter(|(name, _)| name != "chat.events.dlq");
            events
                .map(|(name, depth)| (name, depth.messages_ready + depth.messages_unacknowledged))
                .filter(|(_, count)| *count > 0)
                .collect()
        }
        Err(error) => BTreeMap::from([(format!("the broker does not say: {error}"), 1)]),
    }
}

/// What is left after the quiet that it takes for leases to run out.
pub async fn check(stage: &Stage, shape: Shape) -> Vec<String> {
    tokio::time::sleep(if shape == Shape::AllInOne { QUIET_OF_ONE } else { QUIET }).await;
    let mut left: Vec<String> =
        waiting(stage).await.into_iter().map(|(name, count)| format!("{count} events in {name}")).collect();
    for node in stage.system.all() {
        for gauge in [
            "chat_sockets",
            "chat_sockets_polling",
            "chat_local_rooms",
            "chat_outbox_bytes",
            "chat_polls",
            "chat_openings",
            "chat_openings_waiting",
            "chat_doubtful_users",
            "chat_confirms_outstanding",
        ] {
            match node.try_metric(gauge, &[]).await {
                Some(0.0) | None => {}
                Some(value) => left.push(format!("{}: {gauge} is {value}", node.label())),
            }
        }
    }
    if shape == Shape::Distributed {
        left.extend(of_redis(stage).await);
    }
    left
}

async fn of_redis(stage: &Stage) -> Vec<String> {
    let redis = stage.system.redis();
    let mut left = Vec::new();
    let mut ask = async |what: &str, query: &[&str], wanted: usize| match redis.query(query).await {
        Ok(found) if found.len() == wanted => {}
        Ok(found) => {
            left.push(format!("{what}: {} instead of {wanted}: {:?}", found.len(), &found[..found.len().min(5)]));
        }
        Err(error) => left.push(format!("{what}: {error}")),
    };
    ask("users online in Redis", &["ZRANGE", "chat:online:users", "0", "-1"], 0).await;
    ask("devices in Redis", &["KEYS", "chat:socket:*"], 0).await;
    ask("changes of presence not told", &["ZRANGE", "chat:presence:due", "0", "-1"], 0).await;
    ask("rooms subscribed to", &["PUBSUB", "CHANNELS", "chat:room:*"], 0).await;
    ask("users subscribed to", &["PUBSUB", "CHANNELS", "chat:user:*"], 0).await;
    ask("gateways' leases", &["KEYS", "chat:gateway:*"], stage.system.gateways().len()).await;
    left
}
