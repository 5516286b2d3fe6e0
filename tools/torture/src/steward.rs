//! The owner of all rooms, by REST: removes the guests, adds them again, renames rooms.
//!
//! The invariant: what was asked for is written down before it is asked; of what has no answer nobody
//! knows whether it was accepted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use runtime::Shutdown;
use serde_json::json;
use testkit::client::{Method, Rest};

use crate::history::{API, Answer, Change, Trouble, Wish};
use crate::world::World;

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One room's steward.
pub struct Steward {
    world: Arc<World>,
    rest: Rest,
    room: usize,
    rng: StdRng,
}

impl Steward {
    /// Sees to room number `room`.
    pub fn new(world: &Arc<World>, room: usize, seed: u64) -> Self {
        let rest = Rest::new(&world.api).with_token(&world.owner.token);
        Self { world: Arc::clone(world), rest, room, rng: StdRng::seed_from_u64(seed ^ (room as u64) << 32) }
    }

    /// Works until it is told to end; the guest is a member then.
    pub async fn live(mut self, stop: Shutdown) {
        tokio::select! {
            () = self.work() => {}
            () = stop.requested() => {}
        }
    }

    async fn work(&mut self) {
        let Some(guest) = self.world.rooms[self.room].guest else { return };
        let guest = self.world.users[guest].id.clone();
        let members = format!("/api/v1/conversations/{}/members", self.world.rooms[self.room].id);
        loop {
            self.pause(2_000..7_000).await;
            self.world.stewards.fetch_add(1, Ordering::SeqCst);
            if self.world.is_talking.load(Ordering::SeqCst) {
                self.rename().await;
                // Nobody is a member any more: it was removed by an attempt without an answer.
                self.insist(Wish::Remove, Method::DELETE, &format!("{members}/{guest}"), None, &[404]).await;
                self.pause(1_000..5_000).await;
                let add = json!({"userIds": [guest]}).to_string();
                self.insist(Wish::Add, Method::POST, &members, Some(add), &[]).await;
            }
            self.world.stewards.fetch_sub(1, Ordering::SeqCst);
        }
    }

    async fn pause(&mut self, ms: std::ops::Range<u64>) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(ms))).await;
    }

    async fn rename(&mut self) {
        let title = format!("title {}", self.rng.random_range(0..1_000_000));
        let body = json!({"title": title}).to_string();
        let path = format!("/api/v1/conversations/{}", self.world.rooms[self.room].id);
        self.ask(Wish::Rename(title), Method::PATCH, &path, Some(body)).await;
    }

    /// Asks until it is accepted or answered with one of `enough`.
    async fn insist(&self, wish: Wish, method: Method, path: &str, body: Option<String>, enough: &[u16]) {
        loop {
            let status = self.ask(wish.clone(), method.clone(), path, body.clone()).await;
            if status == Some(202) || status.is_some_and(|status| enough.contains(&status)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// One attempt; the status of its answer.
    async fn ask(&self, wish: Wish, method: Method, path: &str, body: Option<String>) -> Option<u16> {
        let sender = &self.world.senders[self.world.owner_number()];
        let number = {
            let (at, room) = (self.world.clock.now(), self.room);
            let mut sender = sender.lock();
            sender.changes.push(Change { wish, room, at, by: None, answer: Answer::Unknown });
            sender.changes.len() - 1
        };
        let from = self.world.clock.now();
        let answer = self.rest.try_call(method, path, body, ANSWER_LIMIT).await;
        let to = self.world.clock.now();
        let trouble = |what: String| Trouble { gateway: API, from, to, what };
        let Ok(answer) = answer else {
            sender.lock().troubles.push(trouble("no answer".to_owned()));
            return None;
        };
        let code = answer.code().to_owned();
        // How long a backlog is worked off depends on what else the machine does.
        if matches!(answer.status, 503 | 504) && code != "OVERLOADED" {
            sender.lock().troubles.push(trouble(format!("{} {code}", answer.status)));
        }
        sender.lock().changes[number].answer = match (answer.status, answer.body["messageId"].as_str()) {
            (202, Some(job)) => Answer::Queued { at: self.world.clock.now(), of: None, job: job.to_owned() },
            // It may have been accepted all the same.
            (503 | 504, _) => Answer::Unknown,
            (500..600, _) => {
                let text = format!("room {}: the owner was answered with {} {code}", self.room, answer.status);
                sender.lock().wrongs.push(text);
                Answer::Unknown
            }
            _ => Answer::Refused(code),
        };
        Some(answer.status)
    }
}
