//! Room sets as a cache.
//!
//! Authorises nothing. The invariant: a set is replaced as a whole, never half.

use domain::{RoomId, UserId};
use std::time::Duration;
use uuid::Uuid;

use super::{RedisEngine, keys};
use crate::{MEMBERS_CACHED, ROOMS_CACHED, RealtimeError};

/// Ids in one SADD, keys in one DEL.
const SLICE: usize = 1000;

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
        if keys.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for slice in keys.chunks(SLICE) {
            pipe.del(slice).ignore();
        }
        self.pipeline(&pipe).await
    }

    /// Redis has no empty sets, so a set without elements is not known.
    async fn cached(&self, key: String) -> Result<Option<Vec<Uuid>>, RealtimeError> {
        let (texts,): (Vec<String>,) = self.pipeline(redis::pipe().smembers(key)).await?;
        let ids: Vec<Uuid> = texts.iter().filter_map(|text| Uuid::try_parse(text).ok()).collect();
        Ok((!ids.is_empty()).then_some(ids))
    }

    async fn cache(&self, key: String, ids: impl Iterator<Item = Uuid>, keep: Duration) -> Result<(), RealtimeError> {
        let texts: Vec<String> = ids.map(|id| id.to_string()).collect();
        let mut pipe = redis::pipe();
        pipe.atomic().del(&key).ignore();
        for slice in texts.chunks(SLICE) {
            pipe.sadd(&key, slice).ignore();
        }
        pipe.expire(&key, keep.as_secs() as i64).ignore();
        self.pipeline(&pipe).await
    }
}
