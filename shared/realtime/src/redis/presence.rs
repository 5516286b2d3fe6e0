//! Who is connected where, and how they wish to be seen.
//!
//! Every change is one script, so that devices of one user on several gateways cannot cross, and notes
//! the user as due to be looked at. The invariant: a device whose gateway has no lease does not count.

use std::sync::LazyLock;

use domain::id::DeviceId;
use domain::presence::Status;
use domain::{SessionId, Timestamp, UserId};
use uuid::Uuid;

use super::round::{Round, Script, read};
use super::{RedisEngine, keys};
use crate::presence::{LIST_DOUBTED_FOR, LOOK_AGAIN_AFTER};
use crate::{DeviceLease, PRESENCE_KEPT, Presence, RealtimeError, Wish};

/// Users in one script or round.
pub(super) const SLICE: usize = 500;

/// A script over what all scripts about people have in common.
macro_rules! people_script {
    ($name:literal) => {
        LazyLock::new(|| Script::new(concat!(include_str!("scripts/people.lua"), include_str!($name))))
    };
}
pub(super) use people_script;

static ARRIVE: LazyLock<Script> = people_script!("scripts/arrive.lua");
static DEPART: LazyLock<Script> = people_script!("scripts/depart.lua");
static IDLE: LazyLock<Script> = people_script!("scripts/idle.lua");
static WISH: LazyLock<Script> = people_script!("scripts/wish.lua");
static RENEW: LazyLock<Script> = people_script!("scripts/renew.lua");
static NEW_SESSION: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/new_session.lua")));
static SESSIONS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/sessions.lua")));

/// What is kept of a user: score among those online, wish, seen, left, gone and idle.
pub(super) type Kept = (Option<f64>, Option<String>, Option<i64>, Option<i64>, Option<i64>, Option<String>);

impl RedisEngine {
    /// A script with the keys and arguments that all of them begin with.
    pub(super) fn about_people(&self, script: &'static Script, now: Timestamp) -> Round {
        let (mut call, names) = (Round::new(Some(script)), self.keys);
        call.call(&[names.online(), names.due(), names.gateways(), names.janitor()]);
        // Clocks of processes differ; a look planned by one of them is carried out by another.
        call.arg(self.is_by_callers_clock().then_some(now.0).map_or(String::new(), |now_ms| now_ms.to_string()));
        call.arg(names.socket_prefix()).arg(names.presence_prefix()).arg(names.gateway_prefix());
        for time_to_live in [keys::SOCKET_TTL, PRESENCE_KEPT, keys::GATEWAY_TTL] {
            call.arg(time_to_live.as_millis() as u64);
        }
        call.arg(LOOK_AGAIN_AFTER.as_millis() as u64);
        call
    }

    /// A script about one device.
    fn moving(&self, script: &'static Script, lease: &DeviceLease, now: Timestamp) -> Round {
        let mut call = self.about_people(script, now);
        call.arg(lease.user.to_string()).arg(lease.device.as_str());
        call.arg(lease.session.to_string()).arg(lease.gateway.to_string());
        call
    }

    pub(crate) async fn new_session(&self, _now: Timestamp) -> Result<SessionId, RealtimeError> {
        let mut round = Round::new(Some(&NEW_SESSION));
        self.answer(round.call(&[self.keys.session_number()])).await.map(SessionId::numbered)
    }

    pub(crate) async fn arrive(&self, lease: &DeviceLease, now: Timestamp) -> Result<Option<SessionId>, RealtimeError> {
        let other: Option<String> = self.answer(&self.moving(&ARRIVE, lease, now)).await?;
        Ok(other.and_then(|text| Uuid::try_parse(&text).ok()).map(SessionId))
    }

    pub(crate) async fn depart(&self, lease: &DeviceLease, now: Timestamp, grace_ms: i64) -> Result<(), RealtimeError> {
        let mut round = self.moving(&DEPART, lease, now);
        round.arg(grace_ms);
        self.answer(&round).await
    }

    pub(crate) async fn set_idle(
        &self,
        devices: &[DeviceLease],
        is_idle: bool,
        now: Timestamp,
    ) -> Result<(), RealtimeError> {
        for slice in devices.chunks(SLICE) {
            let mut round = self.about_people(&IDLE, now);
            for lease in slice {
                round.arg(lease.user.to_string()).arg(lease.device.as_str());
                round.arg(format!("{}@{}", lease.session, lease.gateway)).arg(u8::from(is_idle));
            }
            self.answer::<()>(&round).await?;
        }
        Ok(())
    }

    pub(crate) async fn sessions_of(&self, user: UserId) -> Result<Vec<DeviceLease>, RealtimeError> {
        let mut round = Round::new(Some(&SESSIONS));
        round.call(&[self.keys.socket(user)]).arg(self.keys.gateway_prefix());
        let held: Vec<(String, String)> = self.answer(&round).await?;
        Ok(held.iter().filter_map(|(device, holder)| read_lease(user, device, holder)).collect())
    }

    pub(crate) async fn set_wishes(
        &self,
        wishes: &[Wish],
        only_new: bool,
        now: Timestamp,
    ) -> Result<(), RealtimeError> {
        for slice in wishes.chunks(SLICE) {
            let mut round = self.about_people(&WISH, now);
            round.arg(u8::from(only_new));
            for wish in slice {
                round.arg(wish.user.to_string()).arg(wish.status.as_str());
            }
            self.answer::<()>(&round).await?;
        }
        Ok(())
    }

    pub(crate) async fn presence(&self, users: &[UserId], now: Timestamp) -> Result<Vec<Presence>, RealtimeError> {
        let mut found = Vec::with_capacity(users.len());
        for slice in users.chunks(SLICE) {
            let (mut round, online) = (Round::new(None), self.keys.online());
            for user in slice {
                let presence = self.keys.presence(*user);
                round.command(&online, "ZSCORE").arg(&online).arg(user.to_string());
                round.command(&presence, "HMGET").arg(&presence).arg(&["status", "seen", "left", "gone", "idle"]);
            }
            round.command(&online, "TIME");
            let mut answers = self.send(&round).await?;
            let (seconds, micros): (i64, i64) = read(answers.pop().unwrap_or(redis::Value::Nil))?;
            let now = if self.is_by_callers_clock() { now } else { Timestamp(seconds * 1000 + micros / 1000) };
            for (user, pair) in slice.iter().zip(answers.chunks_exact(2)) {
                let mut kept = vec![pair[0].clone()];
                kept.extend(pair[1].clone().into_sequence().unwrap_or_default());
                found.push(read_presence(*user, read(redis::Value::Array(kept))?, now));
            }
        }
        Ok(found)
    }

    pub(crate) async fn renew_gateway(
        &self,
        gateway: Uuid,
        users: &[UserId],
        now: Timestamp,
    ) -> Result<(), RealtimeError> {
        // Without users the lease is renewed all the same.
        let slices = users.chunks(SLICE).chain(users.is_empty().then_some(&[][..]));
        for slice in slices {
            let mut round = self.about_people(&RENEW, now);
            round.arg(gateway.to_string()).arg(LIST_DOUBTED_FOR.as_millis() as u64);
            for user in slice {
                round.arg(user.to_string());
            }
            self.answer::<()>(&round).await?;
        }
        Ok(())
    }
}

fn read_lease(user: UserId, device: &str, holder: &str) -> Option<DeviceLease> {
    let (session, gateway) = holder.split_once('@')?;
    Some(DeviceLease {
        user,
        device: DeviceId::parse(device).ok()?,
        session: SessionId(Uuid::try_parse(session).ok()?),
        gateway: Uuid::try_parse(gateway).ok()?,
    })
}

pub(super) fn read_presence(user: UserId, kept: Kept, now: Timestamp) -> Presence {
    let (score, status, seen, left, gone, idle) = kept;
    Presence {
        user,
        is_there: score.is_some() || gone.is_some_and(|gone_ms| gone_ms > now.0),
        is_idle: idle.is_some(),
        wish: status.as_deref().and_then(Status::parse),
        seen: seen.map(Timestamp),
        left: left.map(Timestamp),
    }
}
