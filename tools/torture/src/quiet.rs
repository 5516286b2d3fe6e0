//! (i) When everybody has left, nothing stays behind: no event, no presence, no subscription.
//!
//! The invariant: it looks from outside, as an operator does, and what does not answer counts as wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use testkit::client::Socket;
use testkit::cluster::System;
use tokio::time::Instant;

use crate::stage::{Shape, Stage};
use crate::truth;
use crate::world::World;

/// The ladder of retries, and the longest lease: a gateway's.
const QUIET: Duration = Duration::from_secs(31 + 60);
/// In one process there is no lease that outlives its holder.
const QUIET_OF_ONE: Duration = Duration::from_secs(31);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The statistics of the broker's management lag behind.
const LOOKS: u32 = 6;
/// What every program that has them must say is 0.
const GAUGES: [&str; 10] = [
    "chat_sockets",
    "chat_sockets_polling",
    "chat_local_rooms",
    "chat_outbox_bytes",
    "chat_polls",
    "chat_openings",
    "chat_openings_waiting",
    "chat_doubtful_users",
    "chat_confirms_outstanding",
    "chat_presence_due",
];

/// What was seen.
#[derive(Debug, Default)]
struct Sight {
    /// Events that wait or are not settled, by queue, dead letters aside.
    events: BTreeMap<String, u64>,
    programs: Vec<Program>,
    entries: Vec<Entries>,
}

#[derive(Debug)]
struct Program {
    label: String,
    runs: bool,
    /// `None`: it does not answer.
    gauges: Option<BTreeMap<&'static str, f64>>,
}

/// What is kept of a kind, in Redis or as clients are told.
#[derive(Debug)]
struct Entries {
    what: &'static str,
    wanted: usize,
    found: Result<Vec<String>, String>,
}

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
    let depths = match stage.management() {
        None => in_file(&stage.system).await,
        Some(management) => management.try_queue_depths().await.map_err(anyhow::Error::msg).map(|depths| {
            let events = depths.into_iter().filter(|(name, _)| name != "chat.events.dlq");
            events.map(|(name, depth)| (name, depth.messages_ready + depth.messages_unacknowledged)).collect()
        }),
    };
    let mut depths = depths.unwrap_or_else(|error| BTreeMap::from([(format!("the broker does not say: {error}"), 1)]));
    depths.retain(|_, count| *count > 0);
    depths
}

/// The embedded broker's file holds what was not settled, received or not.
async fn in_file(system: &System) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut connection = SqliteConnection::connect(&truth::file(system, "queue.db")).await?;
    let sql = "SELECT (SELECT count(*) FROM ready), (SELECT count(*) FROM waiting)";
    let (ready, waiting): (i64, i64) = sqlx::query_as(sql).fetch_one(&mut connection).await?;
    Ok([("ready".to_owned(), ready.unsigned_abs()), ("waiting".to_owned(), waiting.unsigned_abs())].into())
}

/// What is left after the quiet that it takes for leases to run out.
pub async fn check(stage: &Stage, world: &World, shape: Shape) -> Vec<String> {
    tokio::time::sleep(if shape == Shape::AllInOne { QUIET_OF_ONE } else { QUIET }).await;
    let mut sight = Sight { events: waiting(stage).await, ..Sight::default() };
    for node in stage.system.all() {
        let mut gauges = Some(BTreeMap::new());
        for name in GAUGES {
            match (node.try_metric(name, &[]).await, &mut gauges) {
                (Some(value), Some(gauges)) => drop(gauges.insert(name, value)),
                (None, _) if node.readyz().await.is_none() => gauges = None,
                _ => {}
            }
        }
        let (label, runs) = (node.label().to_owned(), node.ended().is_none());
        sight.programs.push(Program { label, runs, gauges });
    }
    if shape == Shape::Distributed {
        of_redis(stage, &mut sight).await;
    }
    let found = online(&stage.system, world).await.map_err(|error| format!("{error:#}"));
    sight.entries.push(Entries { what: "users who are shown as online", wanted: 0, found });
    leaks(&sight)
}

async fn of_redis(stage: &Stage, sight: &mut Sight) {
    let gateways = stage.system.gateways().len();
    for (what, query, wanted) in [
        ("users online in Redis", &["ZRANGE", "chat:online:users", "0", "-1"][..], 0),
        ("devices in Redis", &["KEYS", "chat:socket:*"], 0),
        ("changes of presence not told", &["ZRANGE", "chat:presence:due", "0", "-1"], 0),
        ("rooms subscribed to", &["PUBSUB", "CHANNELS", "chat:room:*"], 0),
        ("users subscribed to", &["PUBSUB", "CHANNELS", "chat:user:*"], 0),
        ("gateways' leases", &["KEYS", "chat:gateway:*"], gateways),
    ] {
        let found = stage.system.redis().query(query).await.map_err(|error| error.to_string());
        sight.entries.push(Entries { what, wanted, found });
    }
}

/// Whom the owner, who shares a room with everybody, is shown as online.
async fn online(system: &System, world: &World) -> anyhow::Result<Vec<String>> {
    let url = system.gateway(0).url();
    let socket = Socket::try_open(&url, &format!("/ws?token={}", world.owner.token), &[]).await?;
    let ids: Vec<&str> = world.users.iter().map(|user| user.id.as_str()).collect();
    let answer = socket.request("presence.query", json!({"userIds": ids})).await;
    let users = answer["users"].as_array().ok_or_else(|| anyhow::anyhow!("no answer: {answer}"))?;
    anyhow::ensure!(users.len() == ids.len(), "{} of {} are told: {answer}", users.len(), ids.len());
    Ok(users.iter().filter(|user| user["status"] != "offline").map(Value::to_string).collect())
}

/// What of it may not be.
fn leaks(sight: &Sight) -> Vec<String> {
    let mut left: Vec<String> = sight.events.iter().map(|(name, count)| format!("{count} events in {name}")).collect();
    let told = |gauge: &&str| sight.programs.iter().flat_map(|it| &it.gauges).any(|gauges| gauges.contains_key(*gauge));
    if sight.programs.iter().all(|it| it.gauges.is_some()) {
        left.extend(GAUGES.iter().filter(|gauge| !told(gauge)).map(|gauge| format!("nobody says what {gauge} is")));
    }
    for Program { label, runs, gauges } in &sight.programs {
        if !runs {
            left.push(format!("{label} ended when all had left"));
        }
        let Some(gauges) = gauges else {
            left.push(format!("{label} does not answer"));
            continue;
        };
        left.extend(
            gauges.iter().filter(|(_, value)| **value != 0.0).map(|(name, it)| format!("{label}: {name} is {it}")),
        );
    }
    for Entries { what, wanted, found } in &sight.entries {
        match found {
            Ok(found) if found.len() == *wanted => {}
            Ok(found) => {
                left.push(format!("{what}: {} instead of {wanted}: {:?}", found.len(), &found[..found.len().min(5)]));
            }
            Err(error) => left.push(format!("{what}: {error}")),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet() -> Sight {
        let gauges = GAUGES.into_iter().map(|name| (name, 0.0)).collect();
        Sight {
            events: BTreeMap::new(),
            programs: vec![Program { label: "gateway-0".to_owned(), runs: true, gauges: Some(gauges) }],
            entries: vec![
                Entries { what: "users online in Redis", wanted: 0, found: Ok(Vec::new()) },
                Entries { what: "gateways' leases", wanted: 1, found: Ok(vec!["a".to_owned()]) },
            ],
        }
    }

    #[test]
    fn i_what_stays_behind_is_found() {
        assert_eq!(leaks(&quiet()), Vec::<String>::new());
        let spoilt: [fn(&mut Sight); 8] = [
            |sight| *sight.events.entry("chat.events.high.0".to_owned()).or_default() += 1,
            |sight| sight.programs[0].runs = false,
            |sight| sight.programs[0].gauges = None,
            |sight| sight.programs[0].gauges.as_mut().expect("gauges").retain(|name, _| *name != "chat_sockets"),
            |sight| *sight.programs[0].gauges.as_mut().expect("gauges").entry("chat_sockets").or_default() += 1.0,
            |sight| sight.entries[0].found = Ok(vec!["somebody".to_owned()]),
            |sight| sight.entries[1].found = Ok(Vec::new()),
            |sight| sight.entries[1].found = Err("no answer".to_owned()),
        ];
        for spoil in spoilt {
            let mut sight = quiet();
            spoil(&mut sight);
            assert_eq!(leaks(&sight).len(), 1, "{sight:?}");
        }
    }
}
