//! The caches of who is in which room, brought up to date after a change.
//!
//! Nothing relies on them. The invariant: what may be out of date is forgotten first; whether it can
//! be written anew does not matter.

use domain::{RoomId, UserId};

use crate::Handlers;
use crate::plan::Plan;

/// Members of a room that are cached at most; of a larger room none are.
const CACHED_MEMBERS: usize = 5000;

impl Handlers {
    /// After a batch: whose rooms changed is forgotten, rooms' members are read and cached anew.
    pub(crate) async fn renew_caches(&self, plan: &Plan) {
        let users: Vec<UserId> = plan.stale_users.iter().copied().collect();
        let rooms: Vec<RoomId> = plan.stale_rooms.iter().copied().collect();
        if let Err(error) = self.realtime().forget_rooms(&users).await {
            tracing::warn!(%error, "cached room lists could not be forgotten");
        }
        if let Err(error) = self.realtime().forget_members(&rooms).await {
            tracing::warn!(%error, "cached member lists could not be forgotten");
            return;
        }
        for room in rooms {
            let Ok(members) = self.store().members(room, None, CACHED_MEMBERS + 1).await else { return };
            let members: Vec<UserId> = members.into_iter().map(|(user, _)| user).collect();
            if members.len() <= CACHED_MEMBERS && self.realtime().cache_members(room, &members).await.is_err() {
                return;
            }
        }
    }

    /// After a room was made.
    pub(crate) async fn cache_new_room(&self, room: RoomId, members: &[UserId]) {
        if let Err(error) = self.realtime().forget_rooms(members).await {
            tracing::warn!(%error, "cached room lists could not be forgotten");
        } else if let Err(error) = self.realtime().cache_members(room, members).await {
            tracing::warn!(%error, "the members of a new room could not be cached");
        }
    }
}
