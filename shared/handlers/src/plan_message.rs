//! Messages in a batch: sent, edited, taken back, reacted to.

use domain::permission::Action;
use domain::{Cause, MessageId, Seq, limits};
use protocol::{Code, EventData, wire};
use store::batch::{Delete, Edit, NewRoomEvent, Reaction};
use store::message::MessageRow;

use crate::apply::{Job, Outcome};
use crate::plan::Planner;

impl Planner {
    pub(crate) fn message_send(&mut self, job: &Job, send: &wire::MessageSend) -> Outcome {
        let (room, id) = (job.event.room_id, MessageId(job.event.job_id.0));
        if self.loaded.messages.get(&id).is_some_and(|row| row.room != room) {
            return self.used_elsewhere(job);
        }
        if let Some(row) = self.loaded.messages.get(&id) {
            let (room, rev, told) = (row.room, row.rev, row.to_event());
            let epoch = self.loaded.rooms.get(&room).map(|head| head.epoch).unwrap_or_default();
            self.tell_room(room, Some(rev), epoch, EventData::MessageDelivered(told));
            return Outcome::Duplicate;
        }
        if let Err(code) = self.permit(job, Action::Send) {
            return self.refuse(job, code);
        }
        let (rev, epoch) = self.next_rev(room);
        let head = self.head_mut(room);
        head.last_seq = head.last_seq.next();
        let seq = head.last_seq;
        let row = self.new_row(job, send, id, seq, rev);
        self.plan.writes.events.push(NewRoomEvent {
            room,
            rev,
            epoch,
            job: None,
            message: Some(id),
            payload: Vec::new(),
            at: self.now,
        });
        self.tell_room(room, Some(rev), epoch, EventData::MessageDelivered(row.to_event()));
        self.plan.writes.messages.push(row.clone());
        self.loaded.messages.insert(id, row);
        Outcome::Stored
    }

    fn new_row(&self, job: &Job, send: &wire::MessageSend, id: MessageId, seq: Seq, rev: domain::Rev) -> MessageRow {
        MessageRow {
            id,
            room: job.event.room_id,
            seq,
            rev,
            sender: job.event.actor,
            client_msg_id: send.client_msg_id.clone(),
            kind: send.r#type.clone().unwrap_or_else(|| "TEXT".to_owned()),
            content: send.content.clone(),
            reply_to: send.reply_to.as_deref().and_then(|id| id.parse().ok()),
            mentions: send.mentions.iter().filter_map(|id| id.parse().ok()).collect(),
            attachments: send.attachments.clone(),
            sent_at: job.event.accepted_at,
            stored_at: self.now,
            edited_at: None,
            deleted_at: None,
            reactions: Vec::new(),
        }
    }

    pub(crate) fn message_edit(&mut self, job: &Job, edit: &wire::MessageEdit) -> Outcome {
        let row = match self.target(job, &edit.message_id) {
            Ok(row) => row,
            Err(outcome) => return outcome,
        };
        if let Err(code) = self.permit(job, Action::ChangeOwn) {
            return self.refuse(job, code);
        }
        if row.sender != job.event.actor {
            return self.refuse(job, Code::Forbidden);
        }
        if row.deleted_at.is_some() {
            return self.refuse(job, Code::NotFound);
        }
        if job.was_overtaken(row.edited_at) {
            return self.refuse(job, Code::Conflict);
        }
        let (rev, epoch) = self.next_rev(row.room);
        let at = self.now;
        if let Some(row) = self.loaded.messages.get_mut(&row.id) {
            (row.content, row.edited_at) = (edit.content.clone(), Some(at));
        }
        self.edits.insert(row.id, Edit { message: row.id, content: edit.content.clone(), at });
        let told = wire::MessageEdited {
            room_id: row.room.to_string(),
            message_id: row.id.to_string(),
            rev: rev.0,
            content: edit.content.clone(),
            edited_at: at.to_rfc3339(),
        };
        self.record(row.room, job.event.job_id, rev, epoch, EventData::MessageEdited(told));
        Outcome::Stored
    }

    pub(crate) fn message_delete(&mut self, job: &Job, delete: &wire::MessageDelete) -> Outcome {
        let row = match self.target(job, &delete.message_id) {
            Ok(row) => row,
            Err(outcome) => return outcome,
        };
        let action = if row.sender == job.event.actor { Action::ChangeOwn } else { Action::DeleteOthers };
        if let Err(code) = self.permit(job, action) {
            return self.refuse(job, code);
        }
        if row.deleted_at.is_some() {
            return self.idle(job);
        }
        let (rev, epoch) = self.next_rev(row.room);
        let at = self.now;
        if let Some(row) = self.loaded.messages.get_mut(&row.id) {
            (row.content, row.deleted_at) = (String::new(), Some(at));
        }
        self.edits.remove(&row.id);
        self.plan.writes.deletes.push(Delete { message: row.id, at });
        let told = wire::MessageDeleted {
            room_id: row.room.to_string(),
            message_id: row.id.to_string(),
            rev: rev.0,
            deleted_at: at.to_rfc3339(),
        };
        self.record(row.room, job.event.job_id, rev, epoch, EventData::MessageDeleted(told));
        Outcome::Stored
    }

    pub(crate) fn message_react(&mut self, job: &Job, react: &wire::MessageReact) -> Outcome {
        let row = match self.target(job, &react.message_id) {
            Ok(row) => row,
            Err(outcome) => return outcome,
        };
        if let Err(code) = self.permit(job, Action::ChangeOwn) {
            return self.refuse(job, code);
        }
        if row.deleted_at.is_some() {
            return self.refuse(job, Code::NotFound);
        }
        let given = self.loaded.reactions.entry((row.id, job.event.actor)).or_default();
        if given.contains(&react.emoji) != react.remove {
            return self.idle(job);
        }
        if react.remove {
            given.remove(&react.emoji);
        } else if given.len() >= limits::REACTIONS_PER_USER {
            return self.refuse(job, Code::InvalidPayload);
        } else {
            given.insert(react.emoji.clone());
        }
        let (rev, epoch) = self.next_rev(row.room);
        let reaction = Reaction {
            message: row.id,
            user: job.event.actor,
            emoji: react.emoji.clone(),
            removed: react.remove,
            at: self.now,
        };
        self.reactions.insert((row.id, job.event.actor, react.emoji.clone()), reaction);
        let told = wire::MessageReaction {
            room_id: row.room.to_string(),
            message_id: row.id.to_string(),
            rev: rev.0,
            user_id: job.event.actor.to_string(),
            emoji: react.emoji.clone(),
            removed: react.remove,
        };
        self.record(row.room, job.event.job_id, rev, epoch, EventData::MessageReaction(told));
        Outcome::Stored
    }

    /// The message an event points at. One that is not there yet may still be on its way: the event
    /// waits on the retry ladder, and is refused at its end. One of another room is treated alike, so
    /// that time does not tell a stranger that it exists.
    fn target(&mut self, job: &Job, message_id: &str) -> Result<MessageRow, Outcome> {
        let row = message_id.parse().ok().and_then(|id: MessageId| self.loaded.messages.get(&id));
        match row {
            Some(row) if row.room == job.event.room_id => Ok(row.clone()),
            _ if job.last_attempt => Err(self.refuse(job, Code::NotFound)),
            _ => Err(Outcome::Failed {
                at: self.now,
                cause: Cause::TargetMissing,
                error: "the message it points at is not stored yet".to_owned(),
            }),
        }
    }
}
