//! Who is connected where, and how they wish to be seen.
//!
//! Every change is one script, so that devices of one user on several gateways cannot cross. The
//! invariant: a device whose gateway has no lease does not count.

use std::sync::LazyLock;

use domain::id::DeviceId;
use domain::presence::Status;
use domain::{SessionId, Timestamp, UserId};
use redis::{FromRedisValue, Script};
use uuid::Uuid;

use super::{RedisEngine, keys};
use crate::presence::{LIST_DOUBTED_FOR, standing};
use crate::{Arrived, DeviceLease, Presence, RealtimeError};

/// Users in one script or round.
const SLICE: usize = 500;

static ARRIVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/arrive.lua")));
static DEPART: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/depart.lua")));
static SESSIONS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/sessions.lua")));
static STATUS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/status.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));

/// What a pipelined look at one user answers: score in the list of those online; status and last seen.
type Seen = (Option<f64>, (Option<String>, Option<i64>));

impl RedisEngine {
    pub(crate) async fn arrive(&self, lease: &DeviceLease, now: Timestamp) -> Result<Arrived, RealtimeError> {
        let (was_offline, replaced): (bool, Option<String>) = self.move_device(&ARRIVE, lease, now).await?;
        let replaced = replaced.and_then(|text| Uuid::try_parse(&text).ok()).map(SessionId);
        Ok(Arrived { was_offline, replaced })
    }

    pub(crate) async fn depart(&self, lease: &DeviceLease, now: Timestamp) -> Result<bool, RealtimeError> {
        self.move_device(&DEPART, lease, now).await
    }

    async fn move_device<T: FromRedisValue>(
        &self,
        script: &Script,
        lease: &DeviceLease,
        now: Timestamp,
    ) -> Result<T, RealtimeError> {
        let mut script = script.prepare_invoke();
        script.key(keys::socket(lease.user)).key(keys::ONLINE).key(keys::presence(lease.user));
        script
            .arg(lease.user.to_string())
            .arg(lease.device.as_str())
            .arg(lease.session.to_string())
            .arg(lease.gateway.to_string())
            .arg(now.0)
            .arg(keys::GATEWAY_PREFIX)
            .arg(keys::SOCKET_TTL.as_millis() as u64)
            .arg(keys::PRESENCE_TTL.as_millis() as u64)
            .arg(keys::GATEWAY_TTL.as_millis() as u64);
        self.script(&script).await
    }

    pub(crate) async fn sessions_of(&self, user: UserId) -> Result<Vec<DeviceLease>, RealtimeError> {
        let mut script = SESSIONS.prepare_invoke();
        script.key(keys::socket(user)).arg(keys::GATEWAY_PREFIX);
        let held: Vec<(String, String)> = self.script(&script).await?;
        Ok(held.iter().filter_map(|(device, holder)| read_lease(user, device, holder)).collect())
    }

    pub(crate) async fn set_status(&self, user: UserId, status: Status, now: Timestamp) -> Result<(), RealtimeError> {
        let mut script = STATUS.prepare_invoke();
        script.key(keys::presence(user)).key(keys::ONLINE);
        script.arg(user.to_string()).arg(status.as_str()).arg(now.0).arg(keys::PRESENCE_TTL.as_millis() as u64);
        self.script::<()>(&script).await
    }

    pub(crate) async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, RealtimeError> {
        let mut found = Vec::with_capacity(users.len());
        for slice in users.chunks(SLICE) {
            let mut pipe = redis::pipe();
            for user in slice {
                pipe.zscore(keys::ONLINE, user.to_string());
                pipe.cmd("HMGET").arg(keys::presence(*user)).arg("status").arg("seen");
            }
            let answers: Vec<redis::Value> = self.pipeline(&pipe).await?;
            for (user, pair) in slice.iter().zip(answers.chunks_exact(2)) {
                found.push(read_presence(*user, pair)?);
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
            let mut script = RENEW.prepare_invoke();
            script.key(format!("{}{gateway}", keys::GATEWAY_PREFIX)).key(keys::ONLINE);
            script
                .arg(now.0)
                .arg(keys::GATEWAY_TTL.as_millis() as u64)
                .arg(keys::PRESENCE_PREFIX)
                .arg(LIST_DOUBTED_FOR.as_millis() as u64);
            for user in slice {
                script.arg(user.to_string());
            }
            self.script::<()>(&script).await?;
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

fn read_presence(user: UserId, pair: &[redis::Value]) -> Result<Presence, RealtimeError> {
    let (score, (status, seen)): Seen = redis::from_redis_value(redis::Value::Array(pair.to_vec()))
        .map_err(|error| super::unavailable("presence", &error))?;
    let online_at = score.map(|ms| Timestamp(ms as i64));
    let wish = status.as_deref().and_then(Status::parse);
    Ok(standing(user, online_at, wish, seen.map(Timestamp)))
}
