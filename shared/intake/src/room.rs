//! Changes of rooms and their members on their way in.

use domain::permission::Action;
use domain::room::{Role, RoomKind, check_title};
use domain::{JobId, RoomId, UserId, limits};
use protocol::{Change, Refusal, wire};

use crate::{Accepted, Actor, Intake, Standing, permit, queued};

impl Intake {
    /// The standing of `user` in `room`, from the store.
    pub async fn standing(&self, room: RoomId, user: UserId) -> Result<Standing, Refusal> {
        let standing = self.store().standing(room, user).await.map_err(|error| error.refusal())?;
        Ok(standing.map(|standing| (standing.kind, standing.role)))
    }

    /// Accepts that people become members. Only the owner makes admins.
    pub async fn add_members(
        &self,
        actor: &Actor,
        room: RoomId,
        user_ids: Vec<String>,
        role: Option<String>,
    ) -> Result<Accepted, Refusal> {
        if user_ids.is_empty() || user_ids.len() > limits::MEMBERS_PER_REQUEST {
            return Err(Refusal::invalid("userIds", format!("must name 1 to {} users", limits::MEMBERS_PER_REQUEST)));
        }
        let users: Vec<UserId> = user_ids.iter().map(|id| UserId::parse("userIds", id)).collect::<Result<_, _>>()?;
        let role = match role.as_deref() {
            None | Some("member") => Role::Member,
            Some("admin") => Role::Admin,
            Some(_) => return Err(Refusal::invalid("role", "must be member or admin")),
        };
        let standing = self.standing(room, actor.user).await?;
        permit(standing, Action::AddMembers)?;
        if role == Role::Admin && standing != Some((RoomKind::Group, Role::Owner)) {
            return Err(Refusal::forbidden());
        }
        let known = self.store().users(&users).await.map_err(|error| error.refusal())?;
        if let Some(unknown) = users.iter().find(|id| known.iter().all(|user| user.id != **id)) {
            return Err(Refusal::invalid("userIds", format!("names the unknown user {unknown}")));
        }
        let change = wire::MemberAdd { user_ids, role: role.as_str().to_owned() };
        let job = JobId::generate();
        self.submit(actor, job, room, Change::MemberAdd(change), queued(None, job))
    }

    /// Accepts that somebody stops being a member: oneself, or another by right.
    pub async fn remove_member(&self, actor: &Actor, room: RoomId, user: UserId) -> Result<Accepted, Refusal> {
        let standing = self.standing(room, actor.user).await?;
        permit(standing, Action::Read)?;
        if user == actor.user {
            permit(standing, Action::Leave)?;
        } else {
            match self.standing(room, user).await? {
                Some((_, role)) => permit(standing, Action::Remove(role))?,
                None => return Err(Refusal::not_found("member")),
            }
        }
        let change = wire::MemberRemove { user_id: user.to_string() };
        let job = JobId::generate();
        self.submit(actor, job, room, Change::MemberRemove(change), queued(None, job))
    }

    /// Accepts a new title.
    pub async fn update_room(&self, actor: &Actor, room: RoomId, title: String) -> Result<Accepted, Refusal> {
        check_title(&title)?;
        permit(self.standing(room, actor.user).await?, Action::UpdateRoom)?;
        let job = JobId::generate();
        let change = wire::RoomUpdate { title: Some(title) };
        self.submit(actor, job, room, Change::RoomUpdate(change), queued(None, job))
    }
}
