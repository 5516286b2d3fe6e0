//! Presence and typing: told to whom it may concern, kept only in the realtime port.

use std::collections::HashSet;

use domain::presence::Status;
use domain::{DeviceId, Rev, SessionId, Timestamp, UserId, limits};
use protocol::{Channel, EventData, OpenedDelivery, Refusal, VerifiedEnvelope, wire};
use realtime::Presence;

use crate::apply::unavailable;
use crate::fanout::Planned;
use crate::{Handlers, Unavailable};

/// How many people at most are told of one change of presence.
const AUDIENCE: usize = 1000;

pub(crate) fn typing(event: &VerifiedEnvelope, typing: &wire::SetTyping) -> Planned {
    let told = wire::Typing {
        room_id: event.room_id.to_string(),
        user_id: event.actor.to_string(),
        is_typing: typing.is_typing,
    };
    let delivery =
        OpenedDelivery { rev: None, epoch: Rev::ZERO, except: Some(event.actor), event: EventData::Typing(told) };
    Planned { channel: Channel::Room(event.room_id), delivery }
}

fn shown(presence: &Presence) -> wire::PresenceChanged {
    let status = presence.status.as_seen_by_others();
    wire::PresenceChanged {
        user_id: presence.user.to_string(),
        status: status.as_str().to_owned(),
        last_seen_at: presence.last_seen.filter(|_| status == Status::Offline).map(domain::Timestamp::to_rfc3339),
    }
}

impl Handlers {
    pub(crate) async fn apply_presence(&self, user: UserId, status: Status) -> Result<(), Unavailable> {
        self.realtime().set_status(user, status, self.parts.clock.now()).await?;
        self.tell_presence(user, |_| true).await
    }

    /// Tells the other gateways that another connection took the place of that session of a device.
    pub async fn announce_device(&self, user: UserId, device: &DeviceId, session: SessionId) {
        let taken = wire::DeviceTaken { device_id: device.to_string(), session_id: session.to_string() };
        let delivery =
            OpenedDelivery { rev: None, epoch: Rev::ZERO, except: None, event: EventData::DeviceTaken(taken) };
        if let Err(error) = self.publish(&[Planned { channel: Channel::User(user), delivery }]).await {
            tracing::warn!(%error, "a device's older connection was not told to go");
        }
    }

    /// Tells the gateways that the user's tokens issued before are void. A word that is lost does no
    /// harm: they look into the store all the time.
    pub async fn announce_revocation(&self, user: UserId, valid_after: Timestamp, blocked: bool) {
        let revoked = wire::SessionRevoked { valid_after_ms: valid_after.0, blocked };
        let delivery =
            OpenedDelivery { rev: None, epoch: Rev::ZERO, except: None, event: EventData::SessionRevoked(revoked) };
        if let Err(error) = self.publish(&[Planned { channel: Channel::User(user), delivery }]).await {
            tracing::warn!(%error, "the end of a user's sessions was not announced");
        }
    }

    /// Tells those who share a direct room with `user` that the user has come or gone; nothing of who
    /// hides. Presence is ephemeral: a failure is logged and not repeated.
    pub async fn announce_presence(&self, user: UserId) {
        if let Err(error) = self.tell_presence(user, |presence| !presence.hides).await {
            tracing::warn!(%error, "a change of presence was not announced");
        }
    }

    async fn tell_presence(&self, user: UserId, may_tell: impl FnOnce(&Presence) -> bool) -> Result<(), Unavailable> {
        let partners = self.store().direct_partners(user, AUDIENCE).await.map_err(|error| unavailable(&error))?;
        if partners.is_empty() {
            return Ok(());
        }
        let known = self.realtime().presence(&[user]).await?;
        let told = match known.first() {
            Some(presence) if may_tell(presence) => shown(presence),
            Some(_) | None => return Ok(()),
        };
        let planned: Vec<Planned> = partners
            .into_iter()
            .map(|partner| Planned {
                channel: Channel::User(partner),
                delivery: OpenedDelivery {
                    rev: None,
                    epoch: Rev::ZERO,
                    except: None,
                    event: EventData::PresenceChanged(told.clone()),
                },
            })
            .collect();
        self.publish(&planned).await
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
        let known = self.realtime().presence(&looked_up).await.map_err(|_| Refusal::unavailable())?;
        let users = asked
            .iter()
            .map(|user| match known.iter().find(|presence| presence.user == *user) {
                Some(presence) => shown(presence),
                None => wire::PresenceChanged {
                    user_id: user.to_string(),
                    status: Status::Offline.as_str().to_owned(),
                    last_seen_at: None,
                },
            })
            .collect();
        Ok(wire::PresenceList { users })
    }
}
