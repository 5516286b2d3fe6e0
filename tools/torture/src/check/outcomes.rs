//! (a) Each QUEUED event has exactly one outcome: stored, refused and its sender told, or a dead letter;
//! and nothing is refused or given up without a reason.

use std::collections::{HashMap, HashSet};

use domain::JobId;
use uuid::Uuid;

use super::{Evidence, Findings};
use crate::history::{Answer, Change, Failure, Message, Sender, Wish};

const PROMISE: &str = "a";

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let facts = Facts::of(evidence);
    for letter in &evidence.truth.dead {
        // Nothing that is asked for here is impossible or harmful.
        findings.add(PROMISE, format!("{} is a dead letter: {}", letter.job, letter.cause));
    }
    for (user, sender) in evidence.senders.iter().enumerate() {
        for message in &sender.messages {
            facts.message(user, sender, message, findings);
        }
        for change in &sender.changes {
            facts.change(user, sender, change, findings);
        }
        facts.told(user, sender, findings);
    }
}

/// What is stored, in a form in which it is found.
struct Facts<'a> {
    evidence: &'a Evidence<'a>,
    messages: HashSet<Uuid>,
    deleted: HashSet<Uuid>,
    names: HashSet<(Uuid, &'a str)>,
    jobs: HashSet<Uuid>,
    dead: HashMap<Uuid, usize>,
}

impl<'a> Facts<'a> {
    fn of(evidence: &'a Evidence<'a>) -> Self {
        let truth = evidence.truth;
        let mut dead: HashMap<Uuid, usize> = HashMap::new();
        for letter in truth.dead.iter().filter_map(|letter| letter.job.parse().ok()) {
            *dead.entry(letter).or_default() += 1;
        }
        Self {
            evidence,
            messages: truth.messages.iter().map(|row| row.id).collect(),
            deleted: truth.messages.iter().filter(|row| row.deleted).map(|row| row.id).collect(),
            names: truth.messages.iter().map(|row| (row.sender, row.name.as_str())).collect(),
            jobs: truth.jobs(),
            dead,
        }
    }

    fn message(&self, user: usize, sender: &Sender, message: &Message, findings: &mut Findings) {
        let name = &message.name;
        if let Answer::Queued { job, .. } = &message.answer {
            let may_be_refused = |_: &str| self.evidence.world.is_guest(message.room, user);
            let stored = |job: &Uuid| self.messages.contains(job);
            self.outcome(findings, (sender, Some(job)), &message.answer, name, stored, may_be_refused);
        }
        let certainly_refused = matches!(message.answer, Answer::Refused(_)) && message.tries.len() == 1;
        let me = self.evidence.world.user_id(user).parse().unwrap_or_default();
        if certainly_refused && self.names.contains(&(me, name.as_str())) {
            findings.add(PROMISE, format!("user {user}: {name} was refused at the edge and stored"));
        }
    }

    fn change(&self, user: usize, sender: &Sender, change: &Change, findings: &mut Findings) {
        // The owner uses REST only: nobody tells him anything.
        let told = (sender, change.wish.message());
        let stored = |job: &Uuid| self.is_applied(change.room, *job);
        let what = format!("{:?}", change.wish);
        let may_be_refused = |code: &str| {
            self.evidence.world.is_guest(change.room, user) || self.is_reason(code, &change.wish, change.room)
        };
        if let Answer::Refused(code) = &change.answer
            && !(matches!(code.as_str(), "OVERLOADED" | "RATE_LIMITED") || may_be_refused(code))
        {
            findings.add(PROMISE, format!("user {user}: {what} was refused at the edge with {code} for no reason"));
        }
        self.outcome(findings, told, &change.answer, &what, stored, may_be_refused);
    }

    /// One job may add several people, each with a receipt of its own.
    fn is_applied(&self, room: usize, job: Uuid) -> bool {
        let part = self.evidence.guest(room).unwrap_or_default();
        self.jobs.contains(&job) || self.jobs.contains(&JobId(job).part(part).0)
    }

    /// True when somebody who may do what he asks for can be refused with that code; empty: there was
    /// nothing to change.
    fn is_reason(&self, code: &str, wish: &Wish, room: usize) -> bool {
        let is_deleted = |message: &str| message.parse().is_ok_and(|id| self.deleted.contains(&id));
        match (wish, code) {
            (Wish::Edit { message, .. } | Wish::React { message, .. }, "NOT_FOUND")
            | (Wish::Delete { message }, "" | "NOT_FOUND") => is_deleted(message),
            // An edit whose own processing failed, and another one that came meanwhile.
            (Wish::Edit { message, .. }, "CONFLICT") => self.events_about(room, "message.edited", message) > 0,
            (Wish::React { message, remove, .. }, "") => {
                *remove || is_deleted(message) || self.events_about(room, "message.reaction", message) > 0
            }
            // Asked again, because the answer to the first time did not come.
            (Wish::Remove, "NOT_FOUND" | "") | (Wish::Add, "") => true,
            _ => false,
        }
    }

    fn events_about(&self, room: usize, name: &str, message: &str) -> usize {
        let timeline = self.evidence.truth.timeline.get(&room).map_or(&[][..], Vec::as_slice);
        timeline.iter().filter(|(_, event, data)| event == name && data["messageId"] == message).count()
    }

    fn outcome(
        &self,
        findings: &mut Findings,
        (sender, about): (&Sender, Option<&str>),
        answer: &Answer,
        what: &str,
        is_stored: impl Fn(&Uuid) -> bool,
        may_be_refused: impl Fn(&str) -> bool,
    ) {
        let Answer::Queued { at, job, .. } = answer else { return };
        let Ok(job) = job.parse::<Uuid>() else {
            return findings.add(PROMISE, format!("{what} was acked with the id {job:?}"));
        };
        let refused = self.evidence.truth.refused.get(&job);
        let letters = self.dead.get(&job).copied().unwrap_or_default();
        let stored = is_stored(&job);
        if usize::from(stored) + usize::from(refused.is_some()) + letters != 1 {
            let text = format!(
                "{what} ({job}, about {about:?}, acked at {} ms): stored {stored}, refused {refused:?}, {letters} dead letters",
                at.0
            );
            findings.add(PROMISE, text);
        }
        let Some(code) = refused else { return };
        if !may_be_refused(code) {
            findings.add(PROMISE, format!("{what} ({job}) was refused with {code:?} for no reason"));
        }
        let told = |about: &str| Failure { job: job.to_string(), message: about.to_owned(), code: code.clone() };
        if let Some(about) = about.filter(|_| !code.is_empty())
            && !sender.failed.contains(&told(about))
        {
            findings.add(PROMISE, format!("{what} ({job}) was refused with {code} and its sender was not told"));
        }
    }

    /// Whoever is told of a failure was refused just that: the message itself, or a change of it.
    fn told(&self, user: usize, sender: &Sender, findings: &mut Findings) {
        for failure in &sender.failed {
            let Failure { job, message, code } = failure;
            let refused = job.parse().ok().and_then(|job: Uuid| self.evidence.truth.refused.get(&job));
            let of_message = |change: &Change| change.wish.message() == Some(message);
            let is_meant = job == message || sender.changes.iter().any(of_message);
            if refused != Some(code) || !is_meant {
                findings.add(PROMISE, format!("user {user} was told of {failure:?}, and nothing failed so"));
            }
        }
    }
}
