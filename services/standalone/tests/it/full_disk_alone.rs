//! The all-in-one on a disk that nothing but its own files fills, and of which nobody deletes anything.

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use testkit::client::{Person, Socket};
use testkit::cluster::{System, SystemSpec};
use testkit::folder::{SmallDisk, may_mount, small_disk};
use testkit::until;
use tokio::time::Instant;

use crate::scene::{SETTLED_WITHIN, settled};

const MIB: u64 = 1024 * 1024;
/// With so much left messages are taken again.
const ENOUGH: u64 = 24 * MIB;
/// How long it may take until what was taken is stored and the logs are given back, on a busy machine.
const RECOVERED_WITHIN: Duration = Duration::from_mins(1);
/// Said at once.
const TOGETHER: usize = 50;

struct Scene {
    disk: SmallDisk,
    system: System,
    bob: Person,
    room: String,
    socket: Socket,
    _alice: Person,
    names: usize,
    taken: Vec<String>,
}

impl Scene {
    async fn new(disk_bytes: u64) -> Self {
        let disk = small_disk(disk_bytes).unwrap();
        let spec = SystemSpec::all_in_one().env("DATA_DIR", disk.path().join("data").to_str().unwrap());
        let system = spec.env("LIMIT_USER_EVENTS_PER_SEC", "0").env("LIMIT_USER_BURST", "0").start().await;
        let [alice, bob] = system.people(["Alice", "Bob"]).await;
        let room = alice.create_group(&[&bob]).await;
        let socket = alice.connect(system.gateway(0)).await;
        Self { disk, system, bob, room, socket, _alice: alice, names: 0, taken: Vec::new() }
    }

    /// Says long things all at once; whether all of them were taken.
    async fn say(&mut self, count: usize) -> bool {
        let names: Vec<String> = (0..count).map(|number| format!("{:0>60}", self.names + number)).collect();
        self.names += count;
        let (socket, room) = (&self.socket, &self.room);
        let says = names.iter().map(async |name| socket.say(room, name, &name.repeat(150)).await);
        let acks = join_all(says).await;
        let taken = names.into_iter().zip(&acks).filter(|(_, ack)| ack["status"] == "QUEUED").map(|(name, _)| name);
        self.taken.extend(taken);
        let refused: Vec<_> = acks.iter().filter(|ack| ack["status"] != "QUEUED").collect();
        let is_rightly = |ack: &serde_json::Value| ack["code"] == "UNAVAILABLE" || ack["code"] == "OVERLOADED";
        assert!(refused.iter().all(|ack| is_rightly(ack)), "{refused:?}");
        refused.is_empty()
    }

    /// Says something again and again until it is taken.
    async fn until_taken(&mut self) {
        let end = Instant::now() + RECOVERED_WITHIN;
        while !self.say(1).await {
            assert!(Instant::now() < end, "{} are free, and nothing is taken", self.free_bytes());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The logs of both files.
    fn log_bytes(&self) -> u64 {
        let size = |name: &str| self.file(name).metadata().map_or(0, |file| file.len());
        size("chat.db-wal") + size("queue.db-wal")
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.disk.path().join("data").join(name)
    }

    /// Somebody who looks at a file, as a backup does: its log cannot begin anew until they are done.
    async fn reader(&self, name: &str) -> SqliteConnection {
        let mut db = SqliteConnectOptions::new().filename(self.file(name)).read_only(true).connect().await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT COUNT(*) FROM sqlite_schema").execute(&mut db).await.unwrap();
        db
    }

    /// Whether all that is in a file's log is in the file too.
    async fn is_folded(&self, name: &str) -> bool {
        let mut db = SqliteConnectOptions::new().filename(self.file(name)).connect().await.unwrap();
        let looked: (i64, i64, i64) =
            sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(&mut db).await.unwrap();
        db.close().await.unwrap();
        looked.0 == 0 && looked.1 == looked.2
    }

    fn free_bytes(&self) -> u64 {
        runtime::disk::Space::of(self.disk.path()).unwrap().free_bytes
    }

    /// Panics unless all that was taken is stored, once, and nothing else.
    async fn assert_stored(&self) {
        until(RECOVERED_WITHIN, || async { self.waiting().await == Some(0.0) }).await;
        let history = settled(&self.bob, &self.room, self.taken.len()).await;
        let mut stored: Vec<&str> = history.iter().filter_map(|item| item["clientMsgId"].as_str()).collect();
        let mut taken: Vec<&str> = self.taken.iter().map(String::as_str).collect();
        stored.sort_unstable();
        taken.sort_unstable();
        assert!(stored == taken, "{} were taken, {} are stored", taken.len(), stored.len());
        assert!(history.iter().all(|item| item["content"] == item["clientMsgId"].as_str().unwrap().repeat(150)));
    }

    async fn waiting(&self) -> Option<f64> {
        self.system.gateway(0).try_metric("chat_queue_depth", &["class=\"high\""]).await
    }
}

#[tokio::test]
async fn logs_that_grew_are_given_back_to_a_disk_that_is_full_of_them() {
    let this = "full_disk_alone::logs_that_grew_are_given_back_to_a_disk_that_is_full_of_them";
    if !may_mount(this) {
        return;
    }
    let mut scene = Scene::new(256 * MIB).await;
    let readers = [scene.reader("chat.db").await, scene.reader("queue.db").await];
    while scene.taken.len() < 2_500 {
        assert!(scene.say(TOGETHER).await, "there is room");
    }
    scene.assert_stored().await;
    for reader in readers {
        reader.close().await.unwrap();
    }
    until(SETTLED_WITHIN, || async { scene.is_folded("chat.db").await && scene.is_folded("queue.db").await }).await;
    assert!(scene.log_bytes() > 32 * MIB, "they are no longer than that: {}", scene.log_bytes());

    // What it gives back meanwhile would be filled, too.
    scene.system.gateway(0).pause();
    scene.disk.fill(8 * MIB);
    scene.system.gateway(0).resume();
    until(RECOVERED_WITHIN, || async { scene.log_bytes() < MIB }).await;
    scene.until_taken().await;
    scene.system.gateway(0).wait_ready().await;
    scene.assert_stored().await;
    scene.system.assert_healthy();
}

#[tokio::test]
async fn what_was_taken_until_the_disk_was_full_is_stored_and_logs_keep_nothing_of_it() {
    let this = "full_disk_alone::what_was_taken_until_the_disk_was_full_is_stored_and_logs_keep_nothing_of_it";
    if !may_mount(this) {
        return;
    }
    let mut scene = Scene::new(72 * MIB).await;
    while scene.say(TOGETHER).await {}
    assert_goes_on(scene).await;
}

#[tokio::test]
async fn what_was_taken_while_nothing_could_be_stored_finds_its_room_in_the_store() {
    let this = "full_disk_alone::what_was_taken_while_nothing_could_be_stored_finds_its_room_in_the_store";
    if !may_mount(this) {
        return;
    }
    let mut scene = Scene::new(72 * MIB).await;
    // Whoever holds the write lock holds up the store.
    let mut db = SqliteConnectOptions::new().filename(scene.file("chat.db")).connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut db).await.unwrap();
    while scene.say(TOGETHER).await {}
    db.close().await.unwrap();
    assert_goes_on(scene).await;
}

/// After the first refusal: what was taken is stored, and it takes more if there is room.
async fn assert_goes_on(mut scene: Scene) {
    // What comes now and then comes in vain, or not.
    for _ in 0..20 {
        scene.say(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    scene.assert_stored().await;
    until(SETTLED_WITHIN, || async { scene.log_bytes() == 0 }).await;
    let free = scene.free_bytes();
    if free >= ENOUGH + MIB {
        scene.until_taken().await;
        scene.system.gateway(0).wait_ready().await;
    } else {
        // Full of what was said, and of nothing else.
        assert!(free > ENOUGH / 2, "{free} are free");
    }
    scene.assert_stored().await;
    scene.system.assert_healthy();
}
