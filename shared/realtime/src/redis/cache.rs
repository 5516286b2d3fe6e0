//! Room sets as a cache.
//!
//! Authorises nothing. The invariant: a set is replaced as a whole, never half.

use std::sync::LazyLock;
use std::time::Duration;

use domain::{RoomId, UserId};
use uuid::Uuid;

use super::round::{Round, Script};
use super::{RedisEngine, keys};
use crate::{MEMBERS_CACHED, ROOMS_CACHED, RealtimeError};

/// Keys in one DEL.
const SLICE: usize = 1000;

static CACHE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/cache.lua")));

impl RedisEngine {
    pub(crate) async fn cached_rooms(&self, user: UserId) -> Result<Option<Vec<RoomId>>, RealtimeError> {
        Ok(self.cached(keys::groups(user)).await?.map(|ids| ids.into_iter().map(RoomId).collect()))
    }

    pub(crate) async fn cache_rooms(&self, user: UserId, rooms: &[RoomId]) -> Result<(), RealtimeError> {
        self.cache(keys::groups(user), rooms.iter().map(|room| room.0), ROOMS_CACHED).await
    }

    pub(crate) async fn forget_rooms(&self, users: &[UserId]) -> Result<(), RealtimeError> {
        self.forget(users.iter().map(|user| keys::groups(*user))).await
    }

    pub(crate) async fn cached_members(&self, room: RoomId) -> Result<Option<Vec<UserId>>, RealtimeError> {
        Ok(self.cached(keys::members(room)).await?.map(|ids| ids.into_iter().map(UserId).collect()))
    }

    pub(crate) async fn cache_members(&self, room: RoomId, members: &[UserId]) -> Result<(), RealtimeError> {
        self.cache(keys::members(room), members.iter().map(|user| user.0), MEMBERS_CACHED).await
    }

    pub(crate) async fn forget_members(&self, rooms: &[RoomId]) -> Result<(), RealtimeError> {
        self.forget(rooms.iter().map(|room| keys::members(*room))).await
    }

    async fn forget(&self, keys: impl Iterator<Item = String>) -> Result<(), RealtimeError> {
        let keys: Vec<String> = keys.collect();
        let mut round = Round::new(None);
        for together in keys.chunks(self.keys.together(SLICE)) {
            round.command(&together[0], "DEL").arg(together);
        }
        self.send(&round).await.map(drop)
    }

    /// Redis has no empty sets, so a set without elements is not known.
    async fn cached(&self, key: String) -> Result<Option<Vec<Uuid>>, RealtimeError> {
        let texts: Vec<String> = self.answer(Round::of(&key, "SMEMBERS").arg(&key)).await?;
        let ids: Vec<Uuid> = texts.iter().filter_map(|text| Uuid::try_parse(text).ok()).collect();
        Ok((!ids.is_empty()).then_some(ids))
    }

    async fn cache(&self, key: String, ids: impl Iterator<Item = Uuid>, keep: Duration) -> Result<(), RealtimeError> {
        let mut round = Round::new(Some(&CACHE));
        round.call(&[key]).arg(keep.as_secs());
        for id in ids {
            round.arg(id.to_string());
        }
        self.answer(&round).await
    }
}
