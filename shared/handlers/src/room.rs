//! Rooms as they begin: stored directly, told to each member's own channel.

use domain::room::{Role, RoomKind, check_title};
use domain::{Rev, RoomId, UserId, limits};
use prost::Message as _;
use protocol::wire::{self, ServerEvent};
use protocol::{Channel, EventData, OpenedDelivery, Refusal};
use store::StoreError;
use store::room::{Created, NewRoom, Room};

use crate::Handlers;
use crate::fanout::Planned;

/// The rev of a room's creation.
const FIRST_REV: Rev = Rev(1);

/// A room that exists now.
#[derive(Debug, Clone)]
pub struct CreatedRoom {
    /// The room.
    pub room: Room,
    /// Its members and their roles, the owner first.
    pub members: Vec<(UserId, Role)>,
    /// True for a direct room that was there before.
    pub existed: bool,
}

impl Handlers {
    /// Makes a room of `creator` and `others`, or finds the direct room of the two.
    pub async fn create_room(
        &self,
        creator: UserId,
        kind: RoomKind,
        title: Option<String>,
        mut others: Vec<UserId>,
    ) -> Result<CreatedRoom, Refusal> {
        others.sort_unstable();
        others.dedup();
        check_members(creator, kind, &mut others)?;
        let title = title.filter(|_| kind == RoomKind::Group);
        if let Some(title) = &title {
            check_title(title)?;
        }
        let id = match (kind, others.first()) {
            (RoomKind::Direct, Some(other)) => RoomId::direct(creator, *other),
            _ => RoomId::generate(),
        };
        let mut members = vec![(creator, if kind == RoomKind::Group { Role::Owner } else { Role::Member })];
        members.extend(others.into_iter().map(|user| (user, Role::Member)));

        let at = self.parts.clock.now();
        let told = wire::RoomCreated {
            room_id: id.to_string(),
            rev: FIRST_REV.0,
            r#type: kind.as_str().to_owned(),
            title: title.clone(),
            members: members.iter().map(member).collect(),
            created_by: creator.to_string(),
            created_at: at.to_rfc3339(),
            last_seq: 0,
        };
        let event = EventData::RoomCreated(told);
        let payload = ServerEvent::from(event.clone()).encode_to_vec();
        let new = NewRoom { id, kind, title, creator, members: members.clone(), at, payload };
        match self.store().create_room(&new).await {
            Ok(Created::New(room)) => {
                Box::pin(self.tell_created(id, &members, &event)).await;
                Ok(CreatedRoom { room, members, existed: false })
            }
            Ok(Created::Existing(room)) => Box::pin(self.existing_room(room)).await.map_err(|error| error.refusal()),
            Err(StoreError::Conflict(_)) => Err(Refusal::invalid("memberIds", "names an unknown user")),
            Err(error) => Err(error.refusal()),
        }
    }

    /// A direct room that was there before. While nothing has happened in it, its creation may be what
    /// was never told (whoever made it may have died over that), so it is told again.
    async fn existing_room(&self, room: Room) -> Result<CreatedRoom, StoreError> {
        let members = self.store().members(room.id, None, limits::MEMBERS_PER_REQUEST).await?;
        if room.rev == FIRST_REV {
            for created in self.store().after_rev(room.id, Rev::ZERO, 1).await? {
                self.tell_created(room.id, &members, &created.event).await;
            }
        }
        Ok(CreatedRoom { room, members, existed: true })
    }

    /// The room exists whatever becomes of the telling; who misses it sees it at the next connect.
    async fn tell_created(&self, room: RoomId, members: &[(UserId, Role)], event: &EventData) {
        let planned: Vec<Planned> = members
            .iter()
            .map(|(user, _)| Planned {
                channel: Channel::User(*user),
                delivery: OpenedDelivery { rev: Some(FIRST_REV), epoch: FIRST_REV, except: None, event: event.clone() },
            })
            .collect();
        let users: Vec<UserId> = members.iter().map(|(user, _)| *user).collect();
        // Before it is told: nobody can have changed the members of what nobody knows of.
        self.cache_new_room(room, &users).await;
        if let Err(error) = self.publish(&planned).await {
            tracing::warn!(%error, "a new room was not announced");
        }
    }
}

fn check_members(creator: UserId, kind: RoomKind, others: &mut Vec<UserId>) -> Result<(), Refusal> {
    match kind {
        RoomKind::Direct if others.len() != 1 => Err(Refusal::invalid("memberIds", "must name one other user")),
        RoomKind::Direct if others[0] == creator => Err(Refusal::invalid("memberIds", "must name somebody else")),
        RoomKind::Group if others.len() > limits::MEMBERS_PER_REQUEST => {
            Err(Refusal::invalid("memberIds", format!("must name at most {} users", limits::MEMBERS_PER_REQUEST)))
        }
        _ => {
            others.retain(|user| *user != creator);
            Ok(())
        }
    }
}

fn member((user, role): &(UserId, Role)) -> wire::Member {
    wire::Member { user_id: user.to_string(), role: role.as_str().to_owned() }
}
