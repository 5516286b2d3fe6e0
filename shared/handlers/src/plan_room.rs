//! Rooms in a batch: members come and go, titles change.

use domain::permission::Action;
use domain::room::Role;
use domain::{Rev, RoomId, UserId};
use protocol::{Code, EventData, wire};
use store::batch::Receipt;
use store::member::Standing;

use crate::apply::{Job, Outcome};
use crate::plan::Planner;

impl Planner {
    pub(crate) fn member_add(&mut self, job: &Job, add: &wire::MemberAdd) -> Outcome {
        let room = job.event.room_id;
        let users: Vec<UserId> = add.user_ids.iter().filter_map(|id| id.parse().ok()).collect();
        if self.tell_added_again(job, room, &users) {
            return Outcome::Duplicate;
        }
        if let Err(code) = self.permit(job, Action::AddMembers) {
            return self.refuse(job, code);
        }
        let role = Role::parse(&add.role).unwrap_or(Role::Member).min(Role::Admin);
        let mut joins = false;
        for user in users {
            if !self.loaded.standings.contains_key(&(room, user)) {
                self.join(job, room, user, role);
                joins = true;
            }
        }
        // Who is removed after this must not come back when this is received again.
        if joins { Outcome::Stored } else { self.idle(job) }
    }

    /// A job that added people has one receipt for each of them; with any of them it was applied.
    fn tell_added_again(&mut self, job: &Job, room: RoomId, users: &[UserId]) -> bool {
        let mut told = false;
        for user in users {
            let receipt = self.loaded.receipts.get(&job.event.job_id.part(user.0));
            if let Some(Receipt::Stored { entry, .. }) = receipt {
                let entry = entry.clone();
                self.tell_user(*user, Some(entry.rev), entry.epoch, entry.event.clone());
                self.tell_room(room, Some(entry.rev), entry.epoch, entry.event);
                told = true;
            }
        }
        told
    }

    fn join(&mut self, job: &Job, room: RoomId, user: UserId, role: Role) {
        let rev = self.next_membership_rev(room);
        let head = *self.head_mut(room);
        self.loaded.standings.insert((room, user), Standing { kind: head.kind, role, blocked: false });
        self.plan.writes.joined.push((room, user, role, head.last_seq));
        let told = EventData::RoomMemberJoined(wire::RoomMemberJoined {
            room_id: room.to_string(),
            rev: rev.0,
            user_id: user.to_string(),
            by: Some(job.event.actor.to_string()),
            role: Some(role.as_str().to_owned()),
        });
        // First the one who joins, so that nothing of the room can come before.
        self.tell_user(user, Some(rev), rev, told.clone());
        self.record(room, job.event.job_id.part(user.0), rev, rev, told);
        self.plan.stale_users.insert(user);
        self.plan.stale_rooms.insert(room);
    }

    pub(crate) fn member_remove(&mut self, job: &Job, remove: &wire::MemberRemove) -> Outcome {
        let room = job.event.room_id;
        let Ok(user) = remove.user_id.parse::<UserId>() else {
            return self.refuse(job, Code::NotFound);
        };
        let leaves = user == job.event.actor;
        if let Err(code) = self.permit(job, Action::Read) {
            return self.refuse(job, code);
        }
        let Some(target) = self.loaded.standings.get(&(room, user)).copied() else {
            return self.refuse(job, Code::NotFound);
        };
        let action = if leaves { Action::Leave } else { Action::Remove(target.role) };
        if let Err(code) = self.permit(job, action) {
            return self.refuse(job, code);
        }
        let rev = self.next_membership_rev(room);
        self.loaded.standings.remove(&(room, user));
        self.plan.writes.joined.retain(|joined| (joined.0, joined.1) != (room, user));
        self.plan.writes.left.push((room, user));
        let told = EventData::RoomMemberLeft(wire::RoomMemberLeft {
            room_id: room.to_string(),
            rev: rev.0,
            user_id: user.to_string(),
            by: Some(job.event.actor.to_string()),
            reason: Some(if leaves { "left" } else { "removed" }.to_owned()),
        });
        self.record(room, job.event.job_id, rev, rev, told);
        self.plan.stale_users.insert(user);
        self.plan.stale_rooms.insert(room);
        Outcome::Stored
    }

    /// Membership changes consume a rev and begin a new epoch.
    fn next_membership_rev(&mut self, room: RoomId) -> Rev {
        let (rev, _) = self.next_rev(room);
        self.head_mut(room).epoch = rev;
        rev
    }

    pub(crate) fn room_update(&mut self, job: &Job, update: &wire::RoomUpdate) -> Outcome {
        if let Err(code) = self.permit(job, Action::UpdateRoom) {
            return self.refuse(job, code);
        }
        let room = job.event.room_id;
        if update.title.is_some() && job.was_overtaken(self.loaded.titled.get(&room).copied()) {
            return self.refuse(job, Code::Conflict);
        }
        let (rev, epoch) = self.next_rev(room);
        if let Some(title) = &update.title {
            self.plan.writes.titles.retain(|(other, ..)| *other != room);
            self.plan.writes.titles.push((room, title.clone(), self.now));
            self.loaded.titled.insert(room, self.now);
        }
        let told = wire::RoomUpdated {
            room_id: room.to_string(),
            rev: rev.0,
            title: update.title.clone(),
            by: job.event.actor.to_string(),
            updated_at: self.now.to_rfc3339(),
        };
        self.record(room, job.event.job_id, rev, epoch, EventData::RoomUpdated(told));
        Outcome::Stored
    }
}
