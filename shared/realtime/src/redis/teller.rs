//! Who is due to be looked at, taken so that each is in one pair of hands, and put back.
//!
//! Tells nobody anything itself. The invariant: a user who was taken is put back when the look is over,
//! or comes back by itself when whoever took it does not say so in time.

use std::sync::LazyLock;

use domain::{Timestamp, UserId};
use protocol::Channel;
use uuid::Uuid;

use super::RedisEngine;
use super::presence::{Kept, SLICE, people_script, read_presence};
use super::round::{Round, Script, read};
use crate::presence::Shown;
use crate::{Due, LOOK_WITHIN, Look, RealtimeError};

static TAKE: LazyLock<Script> = people_script!("scripts/take.lua");
static LOOKED: LazyLock<Script> = people_script!("scripts/looked.lua");

/// What the script answers of one user: id, what is kept, told, changes and the end of a lost look.
type Taken = (
    String,
    Option<f64>,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<String>,
    Option<String>,
    Option<u64>,
    Option<String>,
);

impl RedisEngine {
    pub(crate) async fn due_presence(&self, limit: usize, now: Timestamp) -> Result<Due, RealtimeError> {
        let mut round = self.about_people(&TAKE, now);
        round.arg(limit.min(SLICE)).arg(LOOK_WITHIN.as_millis() as u64);
        let (waiting, gateway_died, until_ms, found): (u64, bool, i64, Vec<redis::Value>) = self.answer(&round).await?;
        let now = Timestamp(until_ms - LOOK_WITHIN.as_millis() as i64);
        let mut looks = Vec::with_capacity(found.len());
        for taken in found {
            looks.extend(read_look(read(taken)?, Timestamp(until_ms), now));
        }
        Ok(Due { looks, waiting, gateway_died })
    }

    pub(crate) async fn looked(&self, looks: &[Look], now: Timestamp) -> Result<(), RealtimeError> {
        for slice in looks.chunks(SLICE) {
            let mut round = self.about_people(&LOOKED, now);
            for look in slice {
                round.arg(look.presence.user.to_string()).arg(look.held_until.0);
                round.arg(look.presence.shown().to_text()).arg(look.grace_ends.map_or(0, |at| at.0));
            }
            self.answer::<()>(&round).await?;
        }
        Ok(())
    }

    pub(crate) async fn listening(&self, users: &[UserId]) -> Result<Vec<bool>, RealtimeError> {
        let mut found = Vec::with_capacity(users.len());
        for slice in users.chunks(SLICE) {
            let mut round = Round::new(None);
            let counts = if self.is_cluster() { "SHARDNUMSUB" } else { "NUMSUB" };
            for together in slice.chunks(self.keys.together(SLICE)) {
                let names = together.iter().map(|user| self.keys.channel(Channel::User(*user)));
                let names: Vec<String> = names.collect();
                round.command(&names[0], "PUBSUB").arg(counts).arg(names);
            }
            let mut counted: Vec<(String, u64)> = Vec::with_capacity(slice.len());
            for answer in self.send(&round).await? {
                counted.extend(read::<Vec<(String, u64)>>(answer)?);
            }
            if counted.len() != slice.len() {
                return Err(RealtimeError::Unavailable("a short answer about channels".into()));
            }
            found.extend(counted.into_iter().map(|(_, count)| count > 0));
        }
        Ok(found)
    }
}

fn read_look(taken: Taken, held_until: Timestamp, now: Timestamp) -> Option<Look> {
    let (user, score, status, seen, left, gone, idle, told, changes, lost) = taken;
    let user = UserId(Uuid::try_parse(&user).ok()?);
    let is_connected = score.is_some();
    let kept: Kept = (score, status, seen, left, gone, idle);
    Some(Look {
        presence: read_presence(user, kept, now),
        told: told.as_deref().and_then(Shown::parse),
        changes: changes.unwrap_or_default(),
        is_unsure: lost.is_some(),
        held_until,
        grace_ends: gone.filter(|gone_ms| !is_connected && *gone_ms > now.0).map(Timestamp),
    })
}
