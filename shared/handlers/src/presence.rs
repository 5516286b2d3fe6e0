//! Presence and typing: who may ask, what is wished, what is shown. Kept only in the realtime port, but
//! for the wishes, which outlive it in the store.
//!
//! Tells nobody of a change: `teller` does. The invariant: what is shown to one who asks is what was
//! told to the others.

use std::collections::{HashMap, HashSet};

use domain::presence::Status;
use domain::{Timestamp, UserId, limits};
use protocol::{Channel, EventData, OpenedDelivery, Refusal, VerifiedEnvelope, wire};
use realtime::{Shown, Wish};

use crate::apply::unavailable;
use crate::fanout::Planned;
use crate::{Handlers, Unavailable};

pub(crate) fn typing(event: &VerifiedEnvelope, typing: &wire::SetTyping) -> Planned {
    let told = wire::Typing {
        room_id: event.room_id.to_string(),
        user_id: event.actor.to_string(),
        is_typing: typing.is_typing,
    };
    let delivery = OpenedDelivery { except: Some(event.actor), ..OpenedDelivery::passing(EventData::Typing(told)) };
    Planned { channel: Channel::Room(event.room_id), delivery }
}

pub(crate) fn changed(user: UserId, shown: Shown) -> wire::PresenceChanged {
    wire::PresenceChanged {
        user_id: user.to_string(),
        status: shown.status.as_str().to_owned(),
        last_seen_at: shown.last_seen.map(Timestamp::to_rfc3339),
    }
}

impl Handlers {
    /// Carries out wishes. Both places are tried: hiding is worth more than agreement.
    pub(crate) async fn apply_wishes(&self, wishes: &[Wish]) {
        let kept: Vec<_> = wishes.iter().map(|wish| (wish.user, wish.status)).collect();
        let (kept, set) = futures_util::future::join(
            Box::pin(self.store().set_wishes(&kept)),
            Box::pin(self.realtime().set_wishes(wishes, self.parts.clock.now())),
        )
        .await;
        if let Err(error) = kept {
            tracing::warn!(%error, "wishes of presence were not stored");
        }
        if let Err(error) = set {
            tracing::warn!(%error, "wishes of presence were dropped");
        }
    }

    /// What these users wish, whose wish the realtime port does not know (any more).
    pub(crate) async fn stored_wishes(&self, users: &[UserId]) -> Result<HashMap<UserId, Wish>, Unavailable> {
        let stored = self.store().wishes(users).await.map_err(|error| unavailable(&error))?;
        let stored = stored.into_iter().map(|(user, status)| (user, Wish { user, status }));
        let mut wishes: HashMap<UserId, Wish> = users.iter().map(|user| (*user, unspoken(*user))).collect();
        wishes.extend(stored);
        Ok(wishes)
    }

    /// The presence of people with whom `viewer` shares a room; everybody else looks offline.
    pub async fn presence_query(
        &self,
        viewer: UserId,
        query: wire::PresenceQuery,
    ) -> Result<wire::PresenceList, Refusal> {
        if query.user_ids.len() > limits::PRESENCE_USERS {
            let most = format!("must name at most {} users", limits::PRESENCE_USERS);
            return Err(Refusal::invalid("userIds", most));
        }
        let asked: Vec<UserId> =
            query.user_ids.iter().map(|id| UserId::parse("userIds", id)).collect::<Result<_, _>>()?;
        let shared = self.store().sharing_room(viewer, &asked).await.map_err(|error| error.refusal())?;
        let mut visible: HashSet<UserId> = shared.into_iter().collect();
        visible.insert(viewer);
        let looked_up: Vec<UserId> = asked.iter().copied().filter(|user| visible.contains(user)).collect();
        let shown = self.shown(&looked_up).await.map_err(|_| Refusal::unavailable())?;
        let nobody = Shown { status: Status::Offline, last_seen: None };
        let show = |user: &UserId| changed(*user, shown.get(user).copied().unwrap_or(nobody));
        Ok(wire::PresenceList { users: asked.iter().map(show).collect() })
    }

    /// What others are shown of these users at the moment.
    async fn shown(&self, users: &[UserId]) -> Result<HashMap<UserId, Shown>, Unavailable> {
        let known = self.realtime().presence(users, self.parts.clock.now()).await?;
        let unknown = known.iter().filter(|presence| presence.wish.is_none() && presence.is_there);
        let unknown: Vec<UserId> = unknown.map(|presence| presence.user).collect();
        let wishes = self.stored_wishes(&unknown).await?;
        let show = |presence: realtime::Presence| match wishes.get(&presence.user) {
            Some(wish) => presence.wishing(wish.status).shown(),
            None => presence.shown(),
        };
        Ok(known.into_iter().map(|presence| (presence.user, show(presence))).collect())
    }
}

/// Whoever never said anything wishes to be seen as online.
fn unspoken(user: UserId) -> Wish {
    Wish { user, status: Status::Online }
}
