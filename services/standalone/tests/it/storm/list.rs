//! What a client has of one room, and the judgement over everything that is put into it.
//!
//! Does no I/O. The invariant: `messages` is the room's list without gap from its beginning on;
//! what cannot be put there yet waits in `early`, and what may not come at all is an error.

use std::collections::BTreeMap;

use serde_json::Value;

/// A message as the list needs it: its `seq` and id. `None`: a change that is no message.
type Entry = Option<(i64, String)>;

/// One room as one client has it.
#[derive(Debug)]
pub(crate) struct List {
    /// All changes up to this `rev` are in.
    rev: i64,
    /// Ids of the messages; `seq` is the place, from 1.
    pub(crate) messages: Vec<String>,
    /// What came live before the room was caught up with.
    early: BTreeMap<i64, Entry>,
    /// The only `rev` that may come live next on this connection.
    live_next: i64,
    /// Caught up with: live changes are put in as they come.
    is_whole: bool,
}

impl List {
    /// A room that holds nothing but its own creation, as one that was just loaded by REST.
    pub(crate) fn new() -> Self {
        Self { rev: 1, messages: Vec::new(), early: BTreeMap::new(), live_next: 2, is_whole: false }
    }

    /// How far the list reaches.
    pub(crate) fn rev(&self) -> i64 {
        self.rev
    }

    /// `seq` of the last message.
    pub(crate) fn last_seq(&self) -> i64 {
        self.messages.len() as i64
    }

    /// True when live changes are put in as they come.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A new connection: what is told live begins after `rev`.
    pub(crate) fn connected(&mut self, rev: i64) {
        self.early.clear();
        self.live_next = rev + 1;
        self.is_whole = self.rev == rev;
    }

    /// There is something up to `rev` in the room; true when it is missing here.
    pub(crate) fn doubt(&mut self, rev: i64) -> bool {
        let is_behind = self.is_whole && self.rev < rev;
        self.is_whole &= !is_behind;
        is_behind
    }

    /// A change that was told live. On one connection, recovered or not, none comes twice and none is
    /// left out.
    pub(crate) fn live(&mut self, name: &str, data: &Value) -> Result<(), String> {
        let Some(rev) = data["rev"].as_i64() else { return Ok(()) };
        let expected = self.live_next;
        self.live_next = self.live_next.max(rev + 1);
        if rev < expected {
            return Err(format!("rev {rev} came live though {expected} was next: doubled"));
        }
        if rev > expected {
            return Err(format!("rev {rev} came live though {expected} was next: left out"));
        }
        self.early.insert(rev, entry(name, data));
        self.settle()
    }

    /// A page of `sync` by `afterRev`.
    pub(crate) fn by_rev(&mut self, page: &Value) -> Result<(), String> {
        for item in items(page) {
            let rev = item["rev"].as_i64().ok_or("an item without rev")?;
            if rev != self.rev + 1 {
                return Err(format!("rev {rev} follows {} in a page of sync", self.rev));
            }
            self.put(rev, entry(item["event"].as_str().unwrap_or_default(), &item["data"]))?;
        }
        self.paged(page, self.rev)
    }

    /// A page of `sync` by `afterSeq`.
    pub(crate) fn by_seq(&mut self, page: &Value) -> Result<(), String> {
        for item in items(page) {
            self.add(&message(item).ok_or("an item without seq")?)?;
        }
        let rev = page["rev"].as_i64().ok_or("a page without rev")?;
        self.paged(page, rev)
    }

    fn paged(&mut self, page: &Value, rev: i64) -> Result<(), String> {
        if page["complete"] == true {
            self.rev = self.rev.max(rev);
            self.is_whole = true;
        }
        self.settle()
    }

    /// Puts in what waits, once the room was caught up with. What `sync` told already may come live
    /// after it.
    fn settle(&mut self) -> Result<(), String> {
        while self.is_whole
            && let Some((rev, entry)) = self.early.pop_first()
        {
            if rev > self.rev + 1 {
                return Err(format!("a hole between rev {} and {rev}", self.rev));
            }
            if rev == self.rev + 1 {
                self.put(rev, entry)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, rev: i64, entry: Entry) -> Result<(), String> {
        self.rev = rev;
        entry.map_or(Ok(()), |message| self.add(&message))
    }

    fn add(&mut self, (seq, id): &(i64, String)) -> Result<(), String> {
        if *seq != self.last_seq() + 1 {
            return Err(format!("seq {seq} follows {}", self.last_seq()));
        }
        self.messages.push(id.clone());
        Ok(())
    }
}

fn items(page: &Value) -> &[Value] {
    page["items"].as_array().map_or(&[], Vec::as_slice)
}

fn entry(name: &str, data: &Value) -> Entry {
    if name == "message.delivered" { message(data) } else { None }
}

fn message(data: &Value) -> Entry {
    Some((data["seq"].as_i64()?, data["messageId"].as_str()?.to_owned()))
}
