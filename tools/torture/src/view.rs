//! What a device has of one room: all it was told, put together as `docs/PROTOCOL.md` says.
//!
//! Does no I/O. The invariant: what stands in it follows from all changes up to `rev`, each taken
//! once and in order; what may not come at all is an error.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use crate::history::{At, Seen};

/// A message as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its id.
    pub id: String,
    /// What it says; empty when it was taken back.
    pub content: String,
    /// It was taken back.
    pub deleted: bool,
}

/// A reaction: the message, who, which emoji.
pub type Reaction = (String, String, String);

type Item = (String, Value);

/// One room as one device has it.
#[derive(Debug)]
pub struct View {
    /// The user whose device it is.
    user: String,
    /// All changes up to this one are in.
    rev: i64,
    /// What came live before the room was caught up with.
    early: BTreeMap<i64, Item>,
    /// The only number that may come live next on this connection; `None`: any.
    live_next: Option<i64>,
    /// Caught up with.
    is_whole: bool,
    /// As far as was told, the user is a member.
    is_member: bool,
    /// Where the room was when it was switched off on this connection; `None`: it is on.
    off_since: Option<i64>,
    /// `sync` says that there is no such room: what was told before the removal may still come live.
    is_barred: bool,
    /// How often the user became a member.
    joins: u64,
    /// How often what came live began anew on a connection.
    beginnings: u64,
    /// By `seq`.
    pub messages: BTreeMap<i64, Shown>,
    places: HashMap<String, i64>,
    /// Those that stand.
    pub reactions: BTreeSet<Reaction>,
    /// How far everybody has read.
    pub reads: BTreeMap<String, i64>,
    /// The title, once it was changed.
    pub title: Option<String>,
}

impl View {
    /// A room that holds nothing but its own creation.
    pub fn new(user: &str) -> Self {
        Self {
            user: user.to_owned(),
            rev: 1,
            early: BTreeMap::new(),
            live_next: Some(2),
            is_whole: false,
            is_member: true,
            off_since: None,
            is_barred: false,
            joins: 0,
            beginnings: 0,
            messages: BTreeMap::new(),
            places: HashMap::new(),
            reactions: BTreeSet::new(),
            reads: BTreeMap::new(),
            title: None,
        }
    }

    /// How far it reaches.
    pub fn rev(&self) -> i64 {
        self.rev
    }

    /// `seq` of the last message.
    pub fn last_seq(&self) -> i64 {
        self.messages.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    /// True when nothing has to be asked for.
    pub fn is_settled(&self) -> bool {
        self.is_whole || !self.is_member() || self.is_off()
    }

    /// True when the user was told to have left and not to have come back.
    pub fn has_left(&self) -> bool {
        !self.is_member
    }

    /// True while the room is switched off on this connection.
    pub fn is_off(&self) -> bool {
        self.off_since.is_some()
    }

    /// Nothing of the room may come from now on, which is at `rev`.
    pub fn switched_off(&mut self, rev: i64) {
        self.off_since = Some(rev);
    }

    /// What comes from now on, begins after `rev`. It may be the first that is known of having been added again.
    pub fn switched_on(&mut self, rev: i64) {
        if self.off_since.take().is_none() && self.is_member {
            return;
        }
        self.joins += u64::from(!self.is_member);
        (self.is_member, self.is_barred) = (true, false);
        self.begin();
        self.live_next = Some(rev + 1);
    }

    /// What came live so far does not lead up to what comes now.
    fn begin(&mut self) {
        self.early.clear();
        self.is_whole = false;
        self.beginnings += 1;
    }

    /// True while the user is a member.
    pub fn is_member(&self) -> bool {
        self.is_member && !self.is_barred
    }

    /// How often the user became a member, and how often what came live began anew.
    pub fn turns(&self) -> (u64, u64) {
        (self.joins, self.beginnings)
    }

    /// A new connection: what is told live begins after `rev`; `None`: the user is no member.
    pub fn connected(&mut self, rev: Option<i64>) {
        self.early.clear();
        self.live_next = rev.map(|rev| rev + 1);
        (self.is_member, self.is_barred, self.off_since) = (rev.is_some(), false, None);
        // Asked for even where nothing seems to be missing: read marks have no number.
        self.is_whole = false;
    }

    /// `sync` says that there is no such room, asked after that many joins.
    pub fn not_found(&mut self, joins: u64) {
        self.is_barred |= self.joins == joins;
    }

    /// The connection was recovered: everything of before is on.
    pub fn recovered(&mut self) {
        if self.off_since.take().is_some() {
            (self.live_next, self.is_whole) = (None, false);
        }
    }

    /// There is something up to `rev` in the room; true when it is missing here.
    pub fn doubt(&mut self, rev: i64) -> bool {
        let is_behind = self.is_whole && !self.is_off() && self.rev < rev;
        self.is_whole &= !is_behind;
        is_behind
    }

    /// A change that was told live. On one connection, recovered or not, none comes twice and none is
    /// left out.
    pub fn live(&mut self, name: &str, data: &Value, at: At, seen: &mut Vec<Seen>) -> Result<(), String> {
        let Some(rev) = data["rev"].as_i64() else { return Ok(()) };
        let is_me = data["userId"] == self.user.as_str();
        let (joins, leaves) = (name == "room.memberJoined" && is_me, name == "room.memberLeft" && is_me);
        if let Some(off) = self.off_since {
            // Another membership is on from its beginning.
            match rev > off {
                true if joins => (self.off_since, self.live_next, self.is_member) = (None, None, false),
                true if leaves => {
                    self.is_member = false;
                    return Ok(());
                }
                _ => return Err(format!("rev {rev} ({name}) came live, of a room that was switched off at {off}")),
            }
        }
        if !self.is_member && !joins {
            return Err(format!("rev {rev} ({name}) came live, of a room that was left"));
        }
        if let Some(next) = self.live_next
            && (rev < next || (rev > next && self.is_member))
        {
            let what = if rev < next { "doubled" } else { "left out" };
            return Err(format!("rev {rev} ({name}) came live though {next} was next: {what}"));
        }
        seen.push(Seen { rev, at, live: true });
        self.live_next = Some(rev + 1);
        if joins {
            (self.is_member, self.is_barred, self.joins) = (true, false, self.joins + 1);
            self.begin();
        }
        self.early.insert(rev, (name.to_owned(), data.clone()));
        self.settle()?;
        if leaves {
            self.is_member = false;
        }
        Ok(())
    }

    /// A page of `sync` by `afterRev`, asked for after so many beginnings. What was asked for before the last one
    /// does not reach up to what comes now, however complete it was.
    pub fn page(&mut self, page: &Value, beginnings: u64, at: At, seen: &mut Vec<Seen>) -> Result<(), String> {
        for item in page["items"].as_array().map_or(&[][..], Vec::as_slice) {
            let rev = item["rev"].as_i64().ok_or("an item without rev")?;
            if rev != self.rev + 1 {
                return Err(format!("rev {rev} follows {} in a page of sync", self.rev));
            }
            seen.push(Seen { rev, at, live: false });
            self.put(rev, item["event"].as_str().unwrap_or_default(), &item["data"])?;
        }
        for read in page["reads"].as_array().map_or(&[][..], Vec::as_slice) {
            self.read(read);
        }
        if page["complete"] == true {
            if page["rev"].as_i64() != Some(self.rev) && page["rev"].as_i64() > Some(self.rev) {
                return Err(format!("a complete page ends at {} though the room is at {}", self.rev, page["rev"]));
            }
            self.is_whole = self.beginnings == beginnings;
        }
        self.settle()
    }

    /// Puts in what waits, once the room was caught up with. What `sync` told already may come live
    /// after it.
    fn settle(&mut self) -> Result<(), String> {
        while self.is_whole
            && let Some((rev, (name, data))) = self.early.pop_first()
        {
            if rev > self.rev + 1 {
                return Err(format!("a hole between rev {} and {rev}", self.rev));
            }
            if rev == self.rev + 1 {
                self.put(rev, &name, &data)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, rev: i64, name: &str, data: &Value) -> Result<(), String> {
        self.rev = rev;
        let text = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
        let id = text("messageId");
        match name {
            "message.delivered" => return self.message(id, data),
            "message.edited" => {
                let message = self.known(&id)?;
                if !message.deleted {
                    message.content = text("content");
                }
            }
            "message.deleted" => {
                let message = self.known(&id)?;
                (message.content, message.deleted) = (String::new(), true);
                self.reactions.retain(|reaction| reaction.0 != id);
            }
            "message.reaction" => {
                let deleted = self.known(&id)?.deleted;
                let reaction = (id, text("userId"), text("emoji"));
                if data["removed"] == true || deleted {
                    self.reactions.remove(&reaction);
                } else {
                    self.reactions.insert(reaction);
                }
            }
            "room.updated" => self.title = data["title"].as_str().map(str::to_owned).or(self.title.take()),
            "room.memberLeft" => drop(self.reads.remove(&text("userId"))),
            "room.memberJoined" | "room.created" => {}
            other => return Err(format!("{other} has rev {rev}")),
        }
        Ok(())
    }

    fn known(&mut self, id: &str) -> Result<&mut Shown, String> {
        let seq = self.places.get(id).copied();
        seq.and_then(|seq| self.messages.get_mut(&seq)).ok_or_else(|| format!("a change of {id}, which did not come"))
    }

    fn message(&mut self, id: String, data: &Value) -> Result<(), String> {
        let seq = data["seq"].as_i64().ok_or("a message without seq")?;
        if seq != self.last_seq() + 1 {
            return Err(format!("seq {seq} follows {}", self.last_seq()));
        }
        if self.places.insert(id.clone(), seq).is_some() {
            return Err(format!("{id} came twice"));
        }
        let deleted = data["deletedAt"].is_string();
        let content = data["content"].as_str().unwrap_or_default().to_owned();
        let name = data["clientMsgId"].as_str().unwrap_or_default();
        if !deleted && !content.starts_with(&format!("{name} ")) {
            return Err(format!("{id}, which its sender calls {name}, says {content:?}"));
        }
        self.messages.insert(seq, Shown { id, content, deleted });
        Ok(())
    }

    /// A read mark, live or from a page: it only moves forward.
    pub fn read(&mut self, data: &Value) {
        if let (Some(user), Some(seq)) = (data["userId"].as_str(), data["seq"].as_i64()) {
            let mark = self.reads.entry(user.to_owned()).or_default();
            *mark = seq.max(*mark);
        }
    }

    /// The id of one of the last messages that stand.
    pub fn recent(&self, back: usize) -> Option<&Shown> {
        self.messages.values().rev().filter(|message| !message.deleted).nth(back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn delivered(rev: i64, seq: i64) -> Value {
        let name = format!("n{seq}");
        let content = format!("{name} says");
        json!({"messageId": format!("m{seq}"), "rev": rev, "seq": seq, "clientMsgId": name, "content": content})
    }

    fn live(view: &mut View, rev: i64, seq: i64) -> Result<(), String> {
        view.live("message.delivered", &delivered(rev, seq), At(0), &mut Vec::new())
    }

    fn page(first: i64, last: i64) -> Value {
        let item = |rev: i64| json!({"event": "message.delivered", "rev": rev, "data": delivered(rev, rev - 1)});
        json!({"items": (first..=last).map(item).collect::<Vec<_>>(), "rev": last, "complete": true})
    }

    #[test]
    fn live_changes_wait_for_what_is_missing() {
        let mut view = View::new("me");
        view.connected(Some(4));
        live(&mut view, 5, 4).expect("next");
        assert_eq!((view.rev(), view.is_settled()), (1, false));
        view.page(&page(2, 4), 0, At(0), &mut Vec::new()).expect("fits");
        assert_eq!((view.rev(), view.last_seq(), view.is_settled()), (5, 4, true));
    }

    #[test]
    fn what_is_doubled_or_left_out_is_told() {
        let mut view = View::new("me");
        view.connected(Some(1));
        live(&mut view, 2, 1).expect("next");
        assert!(live(&mut view, 2, 1).expect_err("twice").contains("doubled"));
        assert!(live(&mut view, 4, 2).expect_err("a hole").contains("left out"));
        assert!(view.page(&page(4, 4), 0, At(0), &mut Vec::new()).expect_err("a hole").contains("follows"));
    }

    #[test]
    fn nothing_of_a_room_comes_while_it_is_off_but_of_another_membership() {
        let (mut view, mut seen) = (View::new("me"), Vec::new());
        view.connected(Some(1));
        live(&mut view, 2, 1).expect("next");
        view.switched_off(4);
        assert!(view.is_settled() && !view.doubt(9));
        assert!(live(&mut view, 5, 4).expect_err("off").contains("switched off"));
        let me = |rev: i64| json!({"rev": rev, "userId": "me"});
        assert!(
            view.live("room.memberJoined", &me(4), At(0), &mut seen).expect_err("of before").contains("switched off")
        );
        view.live("room.memberLeft", &me(6), At(0), &mut seen).expect("news");
        view.live("room.memberJoined", &me(8), At(0), &mut seen).expect("joins");
        assert!(view.is_member() && !view.is_off() && !view.is_settled());
    }

    #[test]
    fn what_comes_after_switching_on_begins_there() {
        let mut view = View::new("me");
        view.connected(Some(1));
        view.switched_off(3);
        view.switched_on(7);
        assert!(!view.is_settled(), "something may have come meanwhile");
        assert!(live(&mut view, 7, 6).expect_err("told by the ack").contains("doubled"));
        live(&mut view, 8, 7).expect("next");
        view.switched_on(99);
        live(&mut view, 9, 8).expect("it was on");
        let joined = json!({"rev": 5, "userId": "me"});
        view.live("room.memberLeft", &json!({"rev": 10, "userId": "me"}), At(0), &mut Vec::new()).expect("next");
        view.switched_on(12);
        assert!(view.is_member() && view.turns().0 == 1);
        assert!(view.live("room.memberJoined", &joined, At(0), &mut Vec::new()).is_err(), "that was before");
    }

    #[test]
    fn nothing_of_a_room_comes_between_leaving_and_joining() {
        let (mut view, mut seen) = (View::new("me"), Vec::new());
        view.connected(Some(1));
        view.live("room.memberLeft", &json!({"rev": 2, "userId": "me"}), At(0), &mut seen).expect("next");
        assert!(live(&mut view, 3, 1).expect_err("no member").contains("left"));
        view.live("room.memberJoined", &json!({"rev": 5, "userId": "me"}), At(0), &mut seen).expect("joins");
        assert!(view.is_member() && !view.is_settled());
        view.page(&page(2, 3), 0, At(0), &mut seen).expect("fits");
        assert!(!view.is_settled(), "it was asked for before the joining");
        let page = json!({"items": [{"event": "message.delivered", "rev": 4, "data": delivered(4, 3)}], "rev": 4, "complete": true});
        view.page(&page, 1, At(0), &mut seen).expect("fits");
        assert_eq!((view.rev(), view.is_settled()), (5, true));
    }
}
