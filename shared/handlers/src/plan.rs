//! The batch worked out in memory: given what the transaction loaded, what is to be written and told.
//!
//! Pure: no I/O, no clock. The invariant: heads, rows and standings are kept as they will be after
//! the commit, so each event sees those before it in the same batch.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::permission::{Action, Verdict, judge};
use domain::{JobId, MessageId, Rev, RoomId, Timestamp, UserId};
use prost::Message as _;
use protocol::wire::{self, ServerEvent};
use protocol::{Change, Channel, Code, EventData, OpenedDelivery};
use store::RevEntry;
use store::batch::{Edit, Head, Loaded, NewRoomEvent, Reaction, Receipt, Refused, Writes};

use crate::apply::{Job, Outcome};
use crate::fanout::Planned;

/// A batch, worked out.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) writes: Writes,
    pub(crate) deliveries: Vec<Planned>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) stale_users: BTreeSet<UserId>,
    pub(crate) stale_rooms: BTreeSet<RoomId>,
}

/// What a change points at besides its room and actor.
#[derive(Default)]
pub(crate) struct Targets {
    pub(crate) message: Option<MessageId>,
    pub(crate) users: Vec<UserId>,
}

pub(crate) struct Planner {
    pub(crate) loaded: Loaded,
    pub(crate) now: Timestamp,
    pub(crate) plan: Plan,
    pub(crate) edits: BTreeMap<MessageId, Edit>,
    pub(crate) reactions: HashMap<(MessageId, UserId, String), Reaction>,
    touched: BTreeSet<RoomId>,
}

impl Planner {
    pub(crate) fn new(loaded: Loaded, now: Timestamp) -> Self {
        Self {
            loaded,
            now,
            plan: Plan::default(),
            edits: BTreeMap::new(),
            reactions: HashMap::new(),
            touched: BTreeSet::new(),
        }
    }

    pub(crate) fn targets(change: &Change) -> Targets {
        let message = |id: &str| id.parse().ok();
        match change {
            Change::MessageEdit(edit) => Targets { message: message(&edit.message_id), ..Targets::default() },
            Change::MessageDelete(delete) => Targets { message: message(&delete.message_id), ..Targets::default() },
            Change::MessageReact(react) => Targets { message: message(&react.message_id), ..Targets::default() },
            Change::MemberAdd(add) => {
                Targets { users: add.user_ids.iter().filter_map(|id| id.parse().ok()).collect(), ..Targets::default() }
            }
            Change::MemberRemove(remove) => {
                Targets { users: remove.user_id.parse().into_iter().collect(), ..Targets::default() }
            }
            _ => Targets::default(),
        }
    }

    /// Works out the next event of the batch.
    pub(crate) fn add(&mut self, job: &Job) {
        let outcome = match self.earlier_outcome(job) {
            Some(outcome) => outcome,
            None => self.apply(job),
        };
        self.plan.outcomes.push(outcome);
    }

    fn apply(&mut self, job: &Job) -> Outcome {
        let event = &job.event;
        if !self.loaded.rooms.contains_key(&event.room_id) {
            return self.refuse(job, Code::NotFound);
        }
        match &event.change {
            Change::MessageSend(send) => self.message_send(job, send),
            Change::MessageEdit(edit) => self.message_edit(job, edit),
            Change::MessageDelete(delete) => self.message_delete(job, delete),
            Change::MessageReact(react) => self.message_react(job, react),
            Change::MemberAdd(add) => self.member_add(job, add),
            Change::MemberRemove(remove) => self.member_remove(job, remove),
            Change::RoomUpdate(update) => self.room_update(job, update),
            Change::Typing(_) | Change::PresenceSet(_) => Outcome::Ephemeral,
        }
    }

    /// The outcome this job has already; told again, because the telling may be what was lost.
    fn earlier_outcome(&mut self, job: &Job) -> Option<Outcome> {
        match self.loaded.receipts.get(&job.event.job_id)? {
            Receipt::Idle => Some(Outcome::Duplicate),
            Receipt::Refused(code) => {
                let failure = Self::failure(job, *code);
                self.tell_user(job.event.actor, None, Rev::ZERO, EventData::MessageFailed(failure));
                Some(Outcome::Duplicate)
            }
            Receipt::Stored { room, .. } if *room != job.event.room_id => Some(self.used_elsewhere(job)),
            Receipt::Stored { room, entry } => {
                let (room, entry) = (*room, entry.clone());
                self.tell_room(room, Some(entry.rev), entry.epoch, entry.event);
                Some(Outcome::Duplicate)
            }
        }
    }

    /// Whether the actor may do this now, judged again inside the storing transaction.
    pub(crate) fn permit(&self, job: &Job, action: Action) -> Result<(), Code> {
        let standing = self.loaded.standings.get(&(job.event.room_id, job.event.actor));
        match standing {
            None => Err(Code::NotFound),
            Some(standing) if standing.blocked => Err(Code::Forbidden),
            Some(standing) => match judge(standing.kind, Some(standing.role), action) {
                Verdict::Allowed => Ok(()),
                Verdict::Forbidden => Err(Code::Forbidden),
                Verdict::Unknown => Err(Code::NotFound),
            },
        }
    }

    /// Refuses for good: recorded in the transaction, told to the sender.
    pub(crate) fn refuse(&mut self, job: &Job, code: Code) -> Outcome {
        let event = &job.event;
        let (job_id, room, actor, at) = (event.job_id, event.room_id, event.actor, self.now);
        let failure = Self::failure(job, code);
        self.plan.writes.refused.push(Refused { job: job_id, room, actor, code, at, failure: failure.clone() });
        self.loaded.receipts.insert(job_id, Receipt::Refused(code));
        self.tell_user(actor, None, Rev::ZERO, EventData::MessageFailed(failure));
        Outcome::Refused(code)
    }

    /// The sender has used the message's name in another room. The receipt says what became of it
    /// there, so this is told with every repeat and recorded nowhere.
    pub(crate) fn used_elsewhere(&mut self, job: &Job) -> Outcome {
        let failure = Self::failure(job, Code::Conflict);
        self.tell_user(job.event.actor, None, Rev::ZERO, EventData::MessageFailed(failure));
        Outcome::Refused(Code::Conflict)
    }

    /// What the sender of a job that is refused for good is told.
    fn failure(job: &Job, code: Code) -> wire::MessageFailed {
        let message_id = match (&job.event.change, Self::targets(&job.event.change).message) {
            (Change::MessageSend(_), _) | (_, None) => job.event.job_id.to_string(),
            (_, Some(target)) => target.to_string(),
        };
        let client_msg_id = match &job.event.change {
            Change::MessageSend(send) => Some(send.client_msg_id.clone()),
            _ => None,
        };
        wire::MessageFailed {
            room_id: job.event.room_id.to_string(),
            client_msg_id,
            message_id,
            code: code.as_str().to_owned(),
            job_id: Some(job.event.job_id.to_string()),
        }
    }

    /// The room's head, to be changed; it will be written at the end.
    pub(crate) fn head_mut(&mut self, room: RoomId) -> &mut Head {
        self.touched.insert(room);
        self.loaded.rooms.get_mut(&room).expect("`apply` refuses events of rooms that were not loaded")
    }

    /// The next rev of the room and its membership epoch.
    pub(crate) fn next_rev(&mut self, room: RoomId) -> (Rev, Rev) {
        let head = self.head_mut(room);
        head.rev = head.rev.next();
        (head.rev, head.epoch)
    }

    /// Nothing to change. That is recorded too: applied again later, there might be something.
    pub(crate) fn idle(&mut self, job: &Job) -> Outcome {
        self.plan.writes.idle.push((job.event.job_id, job.event.room_id, self.now));
        self.loaded.receipts.insert(job.event.job_id, Receipt::Idle);
        Outcome::Stored
    }

    /// Records a durable change with its payload as the receipt of `job`, and tells the room.
    pub(crate) fn record(&mut self, room: RoomId, job: JobId, rev: Rev, epoch: Rev, event: EventData) {
        let payload = ServerEvent::from(event.clone()).encode_to_vec();
        let at = self.now;
        self.plan.writes.events.push(NewRoomEvent { room, rev, epoch, job: Some(job), message: None, payload, at });
        let entry = RevEntry { rev, epoch, event: event.clone() };
        self.loaded.receipts.insert(job, Receipt::Stored { room, entry });
        self.tell_room(room, Some(rev), epoch, event);
    }

    pub(crate) fn tell_room(&mut self, room: RoomId, rev: Option<Rev>, epoch: Rev, event: EventData) {
        let delivery = OpenedDelivery { rev, epoch, except: None, event };
        self.plan.deliveries.push(Planned { channel: Channel::Room(room), delivery });
    }

    pub(crate) fn tell_user(&mut self, user: UserId, rev: Option<Rev>, epoch: Rev, event: EventData) {
        let delivery = OpenedDelivery { rev, epoch, except: None, event };
        self.plan.deliveries.push(Planned { channel: Channel::User(user), delivery });
    }

    /// The finished plan: one final state for everything that changed more than once.
    pub(crate) fn finish(mut self) -> Plan {
        let heads = &self.loaded.rooms;
        self.plan.writes.heads =
            self.touched.iter().filter_map(|room| heads.get(room).map(|head| (*room, *head))).collect();
        self.plan.writes.edits = self.edits.into_values().collect();
        self.plan.writes.reactions = self.reactions.into_values().collect();
        self.plan
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
