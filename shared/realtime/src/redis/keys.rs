//! Names of keys and channels, all under `chat:`, and how long each lives.
//!
//! Operators read these names, so they are part of the public contract. The invariant: every key has a
//! time to live but the mark and the last number, of which there is one, and the three sorted sets, which
//! are trimmed.

use std::time::Duration;

use domain::{Class, JobId, RoomId, UserId};
use protocol::Channel;
use uuid::Uuid;

use crate::{GATEWAY_LEASE, JANITOR_EVERY};

const DAY: Duration = Duration::from_hours(24);

/// A user's connected devices, sliding.
pub(super) const SOCKET_TTL: Duration = DAY;
/// A room's log, sliding.
pub(super) const LOG_TTL: Duration = crate::ROOM_LOG_KEPT;
/// A claimed job: repeats come within seconds, and later ones are the store's to find. An hour of
/// claims at 5,000 a second would be 2 GB.
pub(super) const CLAIM_TTL: Duration = Duration::from_mins(10);
/// A gateway's lease.
pub(super) const GATEWAY_TTL: Duration = GATEWAY_LEASE;
/// What shows that a server takes what is written.
pub(super) const PROBE_TTL: Duration = Duration::from_mins(1);
/// What was drained, sliding.
pub(super) const DRAINED_TTL: Duration = Duration::from_mins(10);
/// The stamp of the janitor's last run.
pub(super) const JANITOR_TTL: Duration = Duration::from_secs(20 * JANITOR_EVERY.as_secs());

/// What keys about people begin with on a cluster, where they all lie in one slot: scripts go from one
/// to another.
const CLUSTER_PEOPLE: &str = "chat:{presence}:";
const PEOPLE: &str = "chat:";

/// Hash: shard of a class (`high.0`) → events that processors have settled.
pub(super) const DRAINED: &str = "chat:drained";

const ROOM_CHANNEL: &str = "chat:room:";
const USER_CHANNEL: &str = "chat:user:";

/// The names, which differ where a cluster must be told by braces what has to lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    One,
    Cluster,
}

impl Keys {
    /// How many keys at most that have nothing to do with one another go into one call of a script.
    pub(super) fn together(self, most: usize) -> usize {
        if self == Self::One { most } else { 1 }
    }

    fn about_people(self, name: &str) -> String {
        format!("{}{name}", if self == Self::One { PEOPLE } else { CLUSTER_PEOPLE })
    }

    /// The id as names have it.
    fn tagged(self, id: Uuid) -> String {
        if self == Self::One { id.to_string() } else { format!("{{{id}}}") }
    }

    /// Sorted set of users by when they were last known to be there, milliseconds.
    pub(super) fn online(self) -> String {
        self.about_people("online:users")
    }

    /// Sorted set of users by when they have to be looked at, milliseconds.
    pub(super) fn due(self) -> String {
        self.about_people("presence:due")
    }

    /// Sorted set of gateways by when their leases end, milliseconds.
    pub(super) fn gateways(self) -> String {
        self.about_people("gateways")
    }

    /// When the janitor last ran; also its lock.
    pub(super) fn janitor(self) -> String {
        self.about_people("janitor")
    }

    /// Scripts append a gateway's id.
    pub(super) fn gateway_prefix(self) -> String {
        self.about_people("gateway:")
    }

    /// Scripts append a user's id.
    pub(super) fn socket_prefix(self) -> String {
        self.about_people("socket:")
    }

    /// Scripts append a user's id.
    pub(super) fn presence_prefix(self) -> String {
        self.about_people("presence:")
    }

    /// Hash: device → `session@gateway`.
    pub(super) fn socket(self, user: UserId) -> String {
        format!("{}{user}", self.socket_prefix())
    }

    /// Hash, times in milliseconds: the wish (`status`), `seen` by others, `left` with the last
    /// device, to be `gone` when the grace ends, `idle` and `idle:<device>` = session; what was `told` and
    /// when one `looked`, the look under way (`held` until, `again` after it), `changes` since the last.
    pub(super) fn presence(self, user: UserId) -> String {
        format!("{}{user}", self.presence_prefix())
    }

    /// The number of the last session.
    pub(super) fn session_number(self) -> String {
        self.about_people("session:number")
    }

    /// The number of the last delivery that entered a log. A cluster has none: its logs lie on many nodes.
    pub(super) fn number(self) -> Option<String> {
        (self == Self::One).then(|| "chat:log:number".to_owned())
    }

    /// Stream: entry `<rev>-0`, fields `n` = number, `p` = payload; empty where the log begins.
    pub(super) fn log(self, room: RoomId) -> String {
        format!("chat:log:{}", self.tagged(room.0))
    }

    /// The pub/sub channel, where a room's log is.
    pub(super) fn channel(self, channel: Channel) -> String {
        match channel {
            Channel::Room(room) => format!("{ROOM_CHANNEL}{}", self.tagged(room.0)),
            Channel::User(user) => format!("{USER_CHANNEL}{}", self.tagged(user.0)),
        }
    }

    /// Reads the name of a pub/sub channel.
    pub(super) fn parse_channel(self, name: &str) -> Option<Channel> {
        let id = |text: &str| {
            let bare = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            Uuid::try_parse(if self == Self::One { text } else { bare? }).ok()
        };
        match name.strip_prefix(ROOM_CHANNEL) {
            Some(room) => Some(Channel::Room(RoomId(id(room)?))),
            None => Some(Channel::User(UserId(id(name.strip_prefix(USER_CHANNEL)?)?))),
        }
    }
}

/// A random value that is gone when a server's data were wiped; of a cluster's nodes each has one, where
/// `tag` lies.
pub(super) fn mark(tag: Option<&str>) -> String {
    tag.map_or("chat:mark".to_owned(), |tag| format!("chat:mark:{{{tag}}}"))
}

/// Empty string, written to see whether that can be done; of a cluster's nodes each has one.
pub(super) fn probe(tag: Option<&str>) -> String {
    tag.map_or("chat:probe".to_owned(), |tag| format!("chat:probe:{{{tag}}}"))
}

/// Set of user ids.
pub(super) fn members(room: RoomId) -> String {
    format!("chat:room:members:{room}")
}

/// Set of room ids.
pub(super) fn groups(user: UserId) -> String {
    format!("chat:graph:groups:{user}")
}

/// What a connection that broke off is recognised by; see [`crate::Remembered`].
pub(super) fn recovery(pid: Uuid) -> String {
    format!("chat:recovery:{}", pid.simple())
}

/// The field of a class's shard in [`DRAINED`].
pub(super) fn drained_field(class: Class, shard: u16) -> String {
    format!("{class}.{shard}")
}

/// Empty string.
pub(super) fn claim(job: JobId) -> String {
    format!("chat:claim:{job}")
}

#[cfg(test)]
mod tests {
    use super::super::slots::Slot;
    use super::*;

    const TEXT: &str = "01980000-0000-7000-8000-000000000001";

    fn id() -> Uuid {
        TEXT.parse().expect("an id")
    }

    #[test]
    fn names_are_those_of_the_contract() {
        let keys = Keys::One;
        assert_eq!(keys.socket(UserId(id())), format!("chat:socket:{TEXT}"));
        assert_eq!(keys.presence(UserId(id())), format!("chat:presence:{TEXT}"));
        assert_eq!(keys.log(RoomId(id())), format!("chat:log:{TEXT}"));
        assert_eq!(keys.number().as_deref(), Some("chat:log:number"));
        assert_eq!(keys.session_number(), "chat:session:number");
        assert_eq!((mark(None), probe(None)), ("chat:mark".to_owned(), "chat:probe".to_owned()));
        assert_eq!(members(RoomId(id())), format!("chat:room:members:{TEXT}"));
        assert_eq!(groups(UserId(id())), format!("chat:graph:groups:{TEXT}"));
        assert_eq!((DRAINED, drained_field(Class::High, 3).as_str()), ("chat:drained", "high.3"));
        let sets = [keys.online(), keys.due(), keys.gateways(), keys.janitor()];
        assert_eq!(sets, ["chat:online:users", "chat:presence:due", "chat:gateways", "chat:janitor"]);
    }

    #[test]
    fn what_scripts_need_together_lies_together_on_a_cluster() {
        let keys = Keys::Cluster;
        let (room, user) = (RoomId(id()), UserId(id()));
        assert_eq!(keys.log(room), format!("chat:log:{{{TEXT}}}"));
        assert_eq!(Slot::of(&keys.log(room)), Slot::of(&keys.channel(Channel::Room(room))));
        assert_eq!(keys.online(), "chat:{presence}:online:users");
        let about_people = [keys.due(), keys.gateways(), keys.janitor(), keys.session_number(), keys.socket(user)];
        for name in about_people.into_iter().chain([keys.presence(user), keys.gateway_prefix()]) {
            assert_eq!(Slot::of(&name), Slot::of(&keys.online()), "{name}");
        }
        assert_eq!(keys.number(), None);
        assert_eq!(mark(Some("7")), "chat:mark:{7}");
    }

    #[test]
    fn channels_are_read_as_they_are_written() {
        let room = "chat:room:";
        for keys in [Keys::One, Keys::Cluster] {
            for one in [Channel::Room(RoomId(id())), Channel::User(UserId(id()))] {
                assert_eq!(keys.parse_channel(&keys.channel(one)), Some(one));
            }
            for bad in [room, "chat:room:x", "chat:users", "", "chat:room:{}", &format!("{room}members:{TEXT}")] {
                assert_eq!(keys.parse_channel(bad), None);
            }
        }
    }
}
