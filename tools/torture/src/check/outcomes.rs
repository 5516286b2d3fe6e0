//! (a) Each QUEUED event has exactly one outcome: stored, refused and its sender told, or a dead letter.

use std::collections::{HashMap, HashSet};

use domain::JobId;
use uuid::Uuid;

use super::{Evidence, Findings};
use crate::history::{Answer, Sender};

const PROMISE: &str = "a";

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let truth = evidence.truth;
    let messages: HashSet<Uuid> = truth.messages.iter().map(|row| row.id).collect();
    let jobs = truth.jobs();
    let mut dead: HashMap<Uuid, usize> = HashMap::new();
    for letter in truth.dead.iter().filter_map(|letter| letter.job.parse().ok()) {
        *dead.entry(letter).or_default() += 1;
    }
    for (user, sender) in evidence.senders.iter().enumerate() {
        for message in &sender.messages {
            let stored = |job: &Uuid| messages.contains(job);
            let about = id_of(&message.answer);
            outcome(evidence, findings, &dead, (sender, about), &message.answer, &message.name, stored);
            let certainly_refused = matches!(message.answer, Answer::Refused(_)) && message.tries.len() == 1;
            if certainly_refused
                && truth.messages.iter().any(|row| is(evidence, user, row.sender) && row.name == message.name)
            {
                findings.add(PROMISE, format!("user {user}: {} was refused at the edge and stored", message.name));
            }
        }
        for change in &sender.changes {
            let guest = evidence.world.rooms[change.room].guest.map(|guest| evidence.world.user_id(guest));
            // One job may add several people, each with a receipt of its own.
            let part = guest.and_then(|guest| guest.parse().ok()).unwrap_or_default();
            let stored = |job: &Uuid| jobs.contains(job) || jobs.contains(&JobId(*job).part(part).0);
            // The owner uses REST only: nobody tells him anything.
            let about = change.message.as_deref();
            outcome(evidence, findings, &dead, (sender, about), &change.answer, change.what, stored);
        }
    }
}

fn is(evidence: &Evidence<'_>, user: usize, id: Uuid) -> bool {
    evidence.world.user_id(user) == id.to_string()
}

fn outcome(
    evidence: &Evidence<'_>,
    findings: &mut Findings,
    dead: &HashMap<Uuid, usize>,
    (sender, about): (&Sender, Option<&str>),
    answer: &Answer,
    what: &str,
    is_stored: impl Fn(&Uuid) -> bool,
) {
    let Answer::Queued { at, job, .. } = answer else { return };
    let Ok(job) = job.parse::<Uuid>() else {
        return findings.add(PROMISE, format!("{what} was acked with the id {job:?}"));
    };
    let refused = evidence.truth.refused.get(&job);
    let letters = dead.get(&job).copied().unwrap_or_default();
    let outcomes = usize::from(is_stored(&job)) + usize::from(refused.is_some()) + letters;
    if outcomes != 1 {
        let stored = is_stored(&job);
        let text = format!(
            "{what} ({job}, about {about:?}, acked at {} ms): stored {stored}, refused {refused:?}, {letters} dead letters",
            at.0
        );
        findings.add(PROMISE, text);
    }
    if let (Some(code), Some(about)) = (refused.filter(|code| !code.is_empty()), about)
        && !sender.failed.contains(&(about.to_owned(), code.clone()))
    {
        findings.add(PROMISE, format!("{what} ({job}) was refused with {code} and its sender was not told"));
    }
}

fn id_of(answer: &Answer) -> Option<&str> {
    if let Answer::Queued { job, .. } = answer { Some(job) } else { None }
}
