//! What is wrong in the end: of each message that was QUEUED, each recipient got one, in its sender's order.
//!
//! Pure. The invariant: what was refused, or never answered, is owed to nobody.

use std::collections::HashMap;

use serde::Serialize;

use crate::book::Fate;
use crate::cast::Cast;
use crate::seen::Seen;

/// The verdict over a whole run.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    /// Messages that were QUEUED.
    pub(crate) queued: u64,
    /// Deliveries they were to become.
    pub(crate) owed: u64,
    /// Of these, deliveries that did not come.
    pub(crate) lost: u64,
    /// Deliveries that came more than once.
    pub(crate) doubled: u64,
    /// Deliveries that came after a later one of the same sender in the same room.
    pub(crate) overtaken: u64,
    /// Messages that were never answered: they may have been stored, or not.
    pub(crate) unanswered: u64,
}

impl Verdict {
    /// True if every promise was kept.
    pub(crate) fn is_good(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.overtaken == 0 && self.unanswered == 0
    }
}

/// Judges by what each stream's messages became and what each client saw.
pub(crate) fn judge(
    cast: &Cast,
    fates: &HashMap<u32, Vec<Fate>>,
    clients: &HashMap<u32, HashMap<u32, Seen>>,
) -> Verdict {
    let mut verdict = Verdict::default();
    let all = || fates.values().flatten();
    verdict.queued = all().filter(|fate| **fate == Fate::Queued).count() as u64;
    verdict.unanswered = all().filter(|fate| **fate == Fate::Waiting).count() as u64;
    let rooms = streams_by_room(cast);
    for (client, seen) in clients {
        verdict.doubled += seen.values().map(|seen| u64::from(seen.doubled)).sum::<u64>();
        verdict.overtaken += seen.values().map(|seen| u64::from(seen.overtaken)).sum::<u64>();
        for stream in cast.rooms_of(*client).flat_map(|room| &rooms[&room]) {
            let Some(fates) = fates.get(stream) else { continue };
            verdict.owed += fates.iter().filter(|fate| **fate == Fate::Queued).count() as u64;
            let nothing = Seen::default();
            let missing = seen.get(stream).unwrap_or(&nothing).missing(fates.len() as u32);
            verdict.lost += missing.filter(|number| fates[*number as usize - 1] == Fate::Queued).count() as u64;
        }
    }
    verdict
}

fn streams_by_room(cast: &Cast) -> HashMap<u32, Vec<u32>> {
    let mut rooms: HashMap<u32, Vec<u32>> = HashMap::new();
    for client in 0..cast.connections {
        for (index, room) in cast.rooms_of(client).enumerate() {
            rooms.entry(room).or_default().push(client * cast.rooms_per_user() + index as u32);
        }
    }
    rooms
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast::Naming;

    fn cast() -> Cast {
        let naming = Naming::Seeded { prefix: "user".to_owned() };
        Cast { naming, users: 4, rooms: 2, members: 2, first: 0, connections: 4, secret: String::new() }
    }

    fn seen(numbers: &[u32]) -> Seen {
        let mut seen = Seen::default();
        for number in numbers {
            seen.note(*number);
        }
        seen
    }

    #[test]
    fn a_run_in_which_all_is_well_is_good() {
        let fates = HashMap::from([(0, vec![Fate::Queued, Fate::Refused, Fate::Queued])]);
        let clients = (0..4).map(|client| (client, HashMap::new()));
        let mut clients: HashMap<_, HashMap<u32, Seen>> = clients.collect();
        for client in [0, 1] {
            clients.insert(client, HashMap::from([(0, seen(&[1, 3]))]));
        }
        let verdict = judge(&cast(), &fates, &clients);
        assert_eq!(verdict, Verdict { queued: 2, owed: 4, ..Verdict::default() });
        assert!(verdict.is_good());
    }

    #[test]
    fn what_is_lost_doubled_overtaken_or_unanswered_is_seen() {
        let fates = HashMap::from([(0, vec![Fate::Queued; 4]), (2, vec![Fate::Waiting])]);
        let clients = HashMap::from([
            (0, HashMap::from([(0, seen(&[1, 2, 2, 4, 3]))])),
            (1, HashMap::new()),
            (2, HashMap::new()),
        ]);
        let verdict = judge(&cast(), &fates, &clients);
        assert_eq!(verdict, Verdict { queued: 4, owed: 8, lost: 4, doubled: 1, overtaken: 1, unanswered: 1 });
        assert!(!verdict.is_good());
    }
}
