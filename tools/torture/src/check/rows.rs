//! (b) No message twice. (c) `seq` and `rev` of each room are 1 to n without gap.

use std::collections::{BTreeMap, HashSet};

use super::{Evidence, Findings};

pub(super) fn check(evidence: &Evidence<'_>, findings: &mut Findings) {
    let truth = evidence.truth;
    let (mut ids, mut names) = (HashSet::new(), HashSet::new());
    let (mut seqs, mut revs): (BTreeMap<usize, i64>, BTreeMap<usize, i64>) = Default::default();
    for row in &truth.messages {
        if !ids.insert(row.id) {
            findings.add("b", format!("{} is stored twice", row.id));
        }
        if !names.insert((row.sender, &row.name)) {
            findings.add("b", format!("{} of {} is stored twice", row.name, row.sender));
        }
        let last = seqs.entry(row.room).or_default();
        if row.seq != *last + 1 {
            findings.add("c", format!("room {}: seq {} follows {last}", row.room, row.seq));
        }
        *last = row.seq;
    }
    let mut jobs = HashSet::new();
    for event in &truth.events {
        let last = revs.entry(event.room).or_default();
        if event.rev != *last + 1 {
            findings.add("c", format!("room {}: rev {} follows {last}", event.room, event.rev));
        }
        *last = event.rev;
        if let Some(job) = event.job
            && !jobs.insert(job)
        {
            findings.add("b", format!("{job} was applied twice"));
        }
    }
    for (room, head) in &truth.heads {
        let stored = (seqs.get(room).copied().unwrap_or_default(), revs.get(room).copied().unwrap_or_default());
        if stored != *head {
            findings.add("c", format!("room {room}: counted {head:?}, stored {stored:?} (seq, rev)"));
        }
    }
}
