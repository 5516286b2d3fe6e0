//! Clients that cannot hold a socket: the long poll beside sockets, on both engines, through outages and restarts.

use std::time::Duration;

use rstest::rstest;
use serde_json::{Value, json};
use testkit::client::Person;
use testkit::cluster::{System, SystemSpec};
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(1);

/// Somebody who polls, and all that was told.
struct Poller<'a> {
    person: &'a Person,
    cursor: String,
    items: Vec<Value>,
}

impl<'a> Poller<'a> {
    async fn start(person: &'a Person) -> Self {
        let mut poller = Self { person, cursor: String::new(), items: Vec::new() };
        let answer = person.rest.get("/api/v1/sync").await.expect(200);
        assert_eq!((&answer["items"], &answer["complete"]), (&json!([]), &json!(true)));
        answer["cursor"].as_str().unwrap().clone_into(&mut poller.cursor);
        poller
    }

    /// One poll; what it told.
    async fn poll(&mut self, timeout_ms: u64) -> Vec<Value> {
        let path = format!("/api/v1/sync?cursor={}&timeoutMs={timeout_ms}", self.cursor);
        let answer = self.person.rest.get(&path).await.expect(200);
        answer["cursor"].as_str().unwrap().clone_into(&mut self.cursor);
        let items = answer["items"].as_array().unwrap().clone();
        self.items.extend(items.iter().cloned());
        items
    }

    /// Polls until an event of that name came; how long that took, and its data.
    async fn until(&mut self, event: &str) -> (Duration, Value) {
        let asked = Instant::now();
        loop {
            for item in self.poll(10_000).await {
                if item["event"] == event {
                    return (asked.elapsed(), item["data"].clone());
                }
            }
            assert!(asked.elapsed() < testkit::PATIENCE, "no {event} came: {:?}", self.items);
        }
    }

    fn revs(&self) -> Vec<i64> {
        self.items.iter().filter_map(|item| item["rev"].as_i64()).collect()
    }
}

/// Something that is done a moment after.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::sleep(Duration::from_millis(200)).await;
    what.await
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 2))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn who_polls_hears_what_the_others_hear_live(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let socket = alice.connect(system.gateway(0)).await;
    let mut poller = Poller::start(&bob).await;

    let ((took, message), _) = tokio::join!(poller.until("message.delivered"), soon(socket.say(&room, "1", "hello")));
    assert!(took < SOON, "{took:?}");
    let live = socket.event("message.delivered", |_| true).await;
    assert_eq!(message, live, "the same as on a socket");
    let id = live["messageId"].clone();

    let edit = json!({"roomId": room, "messageId": id, "content": "better"});
    let ((_, edited), _) = tokio::join!(poller.until("message.edited"), soon(socket.request("message.edit", edit)));
    assert_eq!(edited, socket.event("message.edited", |_| true).await);
    let react = json!({"roomId": room, "messageId": id, "emoji": "👍"});
    let ((_, reaction), _) =
        tokio::join!(poller.until("message.reaction"), soon(socket.request("message.react", react)));
    assert_eq!(reaction, socket.event("message.reaction", |_| true).await);
    let delete = json!({"roomId": room, "messageId": id, "forEveryone": true});
    let ((_, deleted), _) =
        tokio::join!(poller.until("message.deleted"), soon(socket.request("message.delete", delete)));
    assert_eq!(deleted, socket.event("message.deleted", |_| true).await);
    let read = json!({"roomId": room, "seq": 1});
    let ((took, mark), _) = tokio::join!(poller.until("message.read"), soon(socket.request("message.read", read)));
    assert_eq!(mark, socket.event("message.read", |_| true).await);
    assert!(took < SOON, "{took:?}");

    let path = format!("/api/v1/conversations/{room}/members/{}", bob.id);
    let ((took, left), _) = tokio::join!(poller.until("room.memberLeft"), soon(alice.rest.delete(&path)));
    assert!(took < SOON, "{took:?}");
    assert_eq!((&left["userId"], &left["reason"]), (&json!(bob.id), &json!("removed")));
    assert_eq!(poller.revs(), [2, 3, 4, 5, 6]);
    socket.say(&room, "2", "not for bob").await;
    socket.event("message.delivered", |message| message["clientMsgId"] == "2").await;
    assert!(poller.poll(500).await.is_empty());
    system.assert_healthy();
}

#[rstest]
#[case::distributed(SystemSpec::distributed(1, 1))]
#[case::all_in_one(SystemSpec::all_in_one())]
#[tokio::test]
async fn a_client_that_goes_while_it_waits_frees_its_place(#[case] spec: SystemSpec) {
    let system = spec.start().await;
    let [alice] = system.people(["Alice"]).await;
    let poller = Poller::start(&alice).await;
    let path = format!("/api/v1/sync?cursor={}&timeoutMs=30000", poller.cursor);
    {
        let polls = futures_util::future::join_all((0..4).map(|_| alice.rest.get(&path)));
        tokio::pin!(polls);
        assert!(tokio::time::timeout(SOON, &mut polls).await.is_err(), "they wait");
        assert!(system.api().metric("chat_polls", &[]).await > 3.5, "counted");
        assert_eq!(alice.rest.get(&path).await.code(), "RATE_LIMITED");
    }
    testkit::until(SOON, || async { system.api().try_metric("chat_polls", &[]).await == Some(0.0) }).await;
    system.assert_healthy();
}

/// A talker and a poller while something happens to the system: nothing is missed, nothing comes twice.
async fn talk_through(system: &System, alice: &Person, bob: &Person, trouble: impl Future<Output = ()>) {
    const MESSAGES: i64 = 60;
    let room = alice.create_group(&[bob]).await;
    let mut poller = Poller::start(bob).await;
    let mut steady = crate::scene::Steady::new(system, alice);
    let talking = async {
        for number in 0..MESSAGES {
            steady.say(0, &room, &format!("{room}{number}")[20..]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let polling = async {
        let asked = Instant::now();
        while poller.revs().len() < MESSAGES as usize {
            poller.poll(5000).await;
            assert!(asked.elapsed() < 2 * testkit::PATIENCE, "{:?}", poller.revs());
        }
    };
    tokio::join!(talking, polling, soon(trouble));
    assert_eq!(poller.revs(), (2..=MESSAGES + 1).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_redis_that_is_wiped_or_gone_costs_no_answer() {
    let system = SystemSpec::distributed(1, 1).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let wipe = async {
        system.redis().command("FLUSHALL").await.unwrap();
    };
    talk_through(&system, &alice, &bob, wipe).await;
    let restart = async {
        system.redis().kill9().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        system.redis().start_again().await;
    };
    talk_through(&system, &alice, &bob, restart).await;
    system.assert_healthy();
}

#[tokio::test]
async fn an_api_that_stops_answers_those_who_wait_and_the_next_one_goes_on() {
    let system = SystemSpec::distributed(1, 1).start().await;
    let [alice, bob] = system.people(["Alice", "Bob"]).await;
    let room = alice.create_group(&[&bob]).await;
    let socket = alice.connect(system.gateway(0)).await;
    let mut poller = Poller::start(&bob).await;
    let asked = Instant::now();
    let (items, status) = tokio::join!(poller.poll(20_000), soon(system.api().terminate(testkit::PATIENCE)));
    assert!(items.is_empty() && status.success());
    assert!(asked.elapsed() < 5 * SOON, "{:?}", asked.elapsed());
    socket.say(&room, "1", "meanwhile").await;
    system.api().start_again().await;
    let (_, message) = poller.until("message.delivered").await;
    assert_eq!(message["content"], "meanwhile");
    system.assert_healthy();
}
