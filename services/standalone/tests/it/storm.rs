//! Many clients of both kinds at once, while gateways are restarted and killed and Redis forgets
//! everything.
//!
//! Each client keeps its rooms' lists as the protocol tells it to. The invariant that is shown: in
//! the end all have the list that the store has, without gap and without double, and whoever was
//! told when to come back was connected again soon after that.

mod book;
mod client;
mod list;
mod talk;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::{RoomId, UserId};
use runtime::{Shutdown, Tasks};
use serde_json::{Value, json};
use testkit::client::line::Kind;
use testkit::client::{Balancer, Person};
use testkit::cluster::{System, SystemSpec};
use testkit::until;

use crate::scene::{assert_exactly_once, assert_order, dead_letters, settled};
use book::{Book, Wait};
use client::{Client, Lists, Memory, World};
use list::List;
use talk::Talk;

/// What the contract allows over the hint.
const OVER_THE_HINT: Duration = Duration::from_secs(2);
/// What programs without optimisation may take besides, altogether and for each client: a connection
/// costs them some milliseconds of a processor that others want too, and a restart brings all clients
/// back within five seconds. So the figure of the contract is held against optimised programs only
/// (`./test.sh --full`).
const UNOPTIMISED: (Duration, Duration) = if cfg!(debug_assertions) {
    (Duration::from_secs(10), Duration::from_millis(5))
} else {
    (Duration::ZERO, Duration::ZERO)
};
/// How long all clients together may take to be connected and to have caught up.
const UP_WITHIN: Duration = Duration::from_mins(2);
/// How long a gateway may take to take leave of its clients.
const DRAINED_WITHIN: Duration = Duration::from_secs(30);
/// Clients whose first connections are opened per step.
const STEP: usize = 10;
/// Members of a small room.
const MEMBERS: usize = 50;

/// How big a storm is.
struct Scale {
    clients: usize,
    /// Every so many clients one talks, to its own small room; a multiple of eight.
    talkers_every: usize,
    /// What a talker leaves between two messages.
    pause: Duration,
    /// The same for the two who talk to everybody.
    hall_pause: Duration,
}

impl Scale {
    /// `normal` clients, or `full` of them in the long runs.
    fn new(normal: usize, full: usize) -> Self {
        let seconds = Duration::from_secs;
        if std::env::var_os("TEST_FULL").is_some() {
            return Self { clients: full, talkers_every: 48, pause: seconds(2), hall_pause: seconds(4) };
        }
        Self { clients: normal, talkers_every: 8, pause: seconds(1), hall_pause: seconds(1) }
    }
}

/// A storm over one system.
struct Storm {
    system: System,
    scale: Scale,
    world: Arc<World>,
    tasks: Tasks,
    /// Rooms with their first members, who may read them to the end.
    rooms: Vec<(String, Person)>,
    /// Of each client.
    lists: Vec<Lists>,
    users: Vec<String>,
    phases: Vec<&'static str>,
}

impl Storm {
    async fn begin(spec: SystemSpec, scale: Scale) -> Self {
        let system = spec
            .env("LIMIT_IP_CONNECTIONS", "0")
            .env("LIMIT_IP_HANDSHAKES_PER_SEC", "0")
            .env("LIMIT_USER_EVENTS_PER_SEC", "0")
            .start()
            .await;
        let users: Vec<String> = (0..scale.clients).map(|_| UserId::generate().to_string()).collect();
        let small = users.chunks(MEMBERS);
        let rooms: Vec<(String, &[String])> =
            std::iter::once(users.as_slice()).chain(small).map(|room| (RoomId::generate().to_string(), room)).collect();
        import(&system, &users, &rooms).await;
        let gateways = if system.is_distributed() { 2 } else { 1 };
        let urls = (0..gateways).map(|number| system.gateway(number).url()).collect();
        let world = Arc::new(World { balancer: Arc::new(Balancer::new(urls)), book: Book::default() });
        let rooms = rooms.iter().map(|(room, members)| (room.clone(), owner(&system, &members[0]))).collect();
        let tasks = Tasks::new(Shutdown::new());
        tasks.detach("balancer", Arc::clone(&world.balancer).watch(tasks.shutdown().clone()));
        let mut storm = Self { system, scale, world, tasks, rooms, lists: vec![], users, phases: vec![] };
        storm.gather().await;
        storm
    }

    /// Lets all clients come, a few at a time.
    async fn gather(&mut self) {
        self.phase("gathering");
        for number in 0..self.scale.clients {
            let client = self.client(number);
            self.lists.push(Arc::clone(&client.lists));
            let shutdown = self.tasks.shutdown().clone();
            self.tasks.detach("client", async move {
                tokio::select! {
                    () = client.live() => {}
                    () = shutdown.requested() => {}
                }
            });
            if number % STEP == 0 {
                let enough = number.saturating_sub(STEP);
                until(UP_WITHIN, || async { self.up() >= enough }).await;
            }
        }
        self.all_up().await;
        self.world.book.is_talking.store(true, Ordering::SeqCst);
    }

    fn client(&self, number: usize) -> Client {
        let (hall, own) = (&self.rooms[0].0, &self.rooms[1 + number / MEMBERS].0);
        let every = self.scale.talkers_every;
        let talk = match number {
            0 | 2 => Some(Talk::new(number, hall, self.scale.hall_pause)),
            // Of both kinds by turns.
            _ if number % every == number / every % 2 * 2 => Some(Talk::new(number, own, self.scale.pause)),
            _ => None,
        };
        let lists = [hall, own].map(|room| (room.clone(), List::new()));
        Client {
            world: Arc::clone(&self.world),
            number,
            kind: if number % 4 < 2 { Kind::Native } else { Kind::SocketIo },
            by_seq: number % 8 >= 4,
            token: self.system.token_for(&self.users[number]),
            lists: Arc::new(Mutex::new(HashMap::from(lists))),
            talk,
            memory: Memory::default(),
        }
    }

    fn phase(&mut self, name: &'static str) {
        self.world.book.begin(name);
        self.phases.push(name);
    }

    fn up(&self) -> usize {
        self.world.book.up.load(Ordering::SeqCst)
    }

    async fn all_up(&self) {
        until(UP_WITHIN, || async { self.up() == self.scale.clients }).await;
    }

    /// Waits until every talker said something more, as nobody waits for anybody about twice.
    async fn talk_on(&self) {
        let wanted = self.world.book.sent_count() + 2 * self.scale.clients / self.scale.talkers_every;
        until(UP_WITHIN, || async { self.world.book.sent_count() >= wanted }).await;
    }

    /// SIGTERM and a new start, then everybody is there again.
    async fn restart(&mut self, name: &'static str, gateway: usize) {
        self.talk_on().await;
        self.phase(name);
        let status = self.system.gateway(gateway).terminate(DRAINED_WITHIN).await;
        assert!(status.success(), "{status}");
        self.system.gateway(gateway).start_again().await;
        self.all_up().await;
    }

    async fn kill(&mut self, name: &'static str, gateway: usize) {
        self.talk_on().await;
        self.phase(name);
        self.system.gateway(gateway).kill9().await;
        self.system.gateway(gateway).start_again().await;
        self.all_up().await;
    }

    async fn restart_redis(&mut self) {
        self.talk_on().await;
        self.phase("redis restarted");
        self.system.redis().stop().await;
        self.talk_on().await;
        self.system.redis().start_again().await;
        self.system.wait_ready().await;
        self.all_up().await;
    }

    /// Panics unless everybody who was sent away was told when to come back.
    fn assert_told(&self, phase: &str) -> Vec<Wait> {
        let waits = self.world.book.waits(phase);
        assert!(!waits.is_empty(), "nobody was sent away in {phase}");
        assert!(waits.iter().all(|wait| wait.hint.is_some()), "everybody is told when to come back");
        waits
    }

    /// Panics unless everybody who was sent away was back soon after the time that was told.
    fn assert_waits(&self, phase: &str) {
        let waits = self.assert_told(phase);
        let longest = waits.iter().map(Wait::excess).max().unwrap_or_default();
        let allowed = OVER_THE_HINT + UNOPTIMISED.0 + UNOPTIMISED.1 * self.scale.clients as u32;
        assert!(longest <= allowed, "{phase}: somebody waited {longest:?} longer than told");
    }

    /// Lets all that was said arrive, then judges what everybody has.
    async fn end(&mut self) {
        self.talk_on().await;
        self.phase("end");
        let book = &self.world.book;
        book.is_talking.store(false, Ordering::SeqCst);
        until(UP_WITHIN, || async { book.in_hand.load(Ordering::SeqCst) == 0 }).await;
        let mut wanted: HashMap<&str, Vec<String>> = HashMap::new();
        for (room, person) in &self.rooms {
            let sent = book.sent_to(room);
            let history = settled(person, room, sent.len()).await;
            assert_exactly_once(&history, &sent);
            self.assert_order(&history, &sent);
            let ids = history.iter().map(|item| item["messageId"].as_str().unwrap().to_owned());
            wanted.insert(room, ids.collect());
        }
        let is_there =
            |lists: &Lists| lists.lock().unwrap().iter().all(|(room, it)| it.messages == wanted[room.as_str()]);
        let limit = tokio::time::timeout(UP_WITHIN, async {
            while !self.lists.iter().all(is_there) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let missing = limit.await.map_err(|_| self.lists.iter().filter(|lists| !is_there(lists)).count());
        book.print(&self.phases);
        book.assert_right();
        assert_eq!(missing, Ok(()), "clients without the list that the store has");
        self.system.assert_healthy();
        if self.system.is_distributed() {
            assert!(dead_letters(&self.system).await.is_empty());
        }
        self.tasks.shutdown().request();
    }

    fn assert_order(&self, history: &[Value], sent: &[crate::scene::Sent]) {
        let mut of_talker: HashMap<usize, Vec<crate::scene::Sent>> = HashMap::new();
        for message in sent {
            let number = message.name.split_once(' ').unwrap().0.parse().unwrap();
            of_talker.entry(number).or_default().push(message.clone());
        }
        for (number, sent) in of_talker {
            assert_order(history, &self.users[number], &sent);
        }
    }
}

/// The one who may always read a room.
fn owner(system: &System, user: &str) -> Person {
    let token = system.token_for(user);
    Person {
        id: user.to_owned(),
        email: String::new(),
        refresh_token: String::new(),
        rest: system.rest().with_token(&token),
        token,
    }
}

/// Users and rooms, by `chatchit import`: making accounts takes long, because passwords do.
async fn import(system: &System, users: &[String], rooms: &[(String, &[String])]) {
    let mut lines = String::new();
    for user in users {
        writeln!(lines, "{}", json!({"user": {"id": user}})).unwrap();
    }
    for (room, members) in rooms {
        writeln!(lines, "{}", json!({"room": {"id": room, "memberIds": members}})).unwrap();
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lines).unwrap();
    let path = file.path().to_str().unwrap();
    let (status, _, stderr) = system.spec("chatchit", 0).run(&["import", path]).await;
    assert!(status.success(), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_restarts_of_gateways_and_redis_everybody_keeps_the_same_gapless_list() {
    let mut storm = Storm::begin(SystemSpec::distributed(2, 2), Scale::new(200, 2000)).await;
    storm.restart("gateway 0 restarted", 0).await;
    storm.restart("gateway 1 restarted", 1).await;
    storm.kill("gateway 0 killed", 0).await;
    storm.restart_redis().await;
    storm.end().await;
    storm.assert_waits("gateway 0 restarted");
    storm.assert_waits("gateway 1 restarted");
    let recovered = storm.world.book.counted("gateway 0 killed", "recovered");
    assert!(recovered > 0, "whoever was on the killed gateway is recovered on the other one");
    let mut counted = 0.0;
    for gateway in storm.system.gateways() {
        counted += gateway.metric("chat_recoveries_total", &["outcome=\"recovered\""]).await;
    }
    assert!(counted > 0.0, "operators see that, too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_restarts_of_the_all_in_one_everybody_keeps_the_same_gapless_list() {
    let mut storm = Storm::begin(SystemSpec::all_in_one(), Scale::new(100, 1000)).await;
    storm.restart("restarted", 0).await;
    storm.kill("killed", 0).await;
    storm.end().await;
    // There is nobody else to come back to while it starts.
    storm.assert_told("restarted");
}
