//! Names of keys and channels, all under `chat:`, and how long each lives.
//!
//! Operators read these names, so they are part of the public contract. The invariant: every key has a
//! time to live but the mark and the last number, of which there is one, and the three sorted sets, which
//! are trimmed.

use std::time::Duration;

use domain::{JobId, RoomId, UserId};
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
/// The stamp of the janitor's last run.
pub(super) const JANITOR_TTL: Duration = Duration::from_secs(20 * JANITOR_EVERY.as_secs());

/// Sorted set of users by when they were last known to be there, milliseconds.
pub(super) const ONLINE: &str = "chat:online:users";
/// Sorted set of users by when they have to be looked at, milliseconds.
pub(super) const DUE: &str = "chat:presence:due";
/// Sorted set of gateways by when their leases end, milliseconds.
pub(super) const GATEWAYS: &str = "chat:gateways";
/// When the janitor last ran; also its lock.
pub(super) const JANITOR: &str = "chat:janitor";
/// A random value that is gone when the server's data were wiped.
pub(super) const MARK: &str = "chat:mark";
/// Scripts append a gateway's id.
pub(super) const GATEWAY_PREFIX: &str = "chat:gateway:";
/// Scripts append a user's id.
pub(super) const SOCKET_PREFIX: &str = "chat:socket:";
/// Scripts append a user's id.
pub(super) const PRESENCE_PREFIX: &str = "chat:presence:";

const ROOM_CHANNEL: &str = "chat:room:";
const USER_CHANNEL: &str = "chat:user:";

/// Hash: device → `session@gateway`.
pub(super) fn socket(user: UserId) -> String {
    format!("{SOCKET_PREFIX}{user}")
}

/// Hash, times in milliseconds: the wish (`status`), `seen` by others, `left` with the last
/// device, to be `gone` when the grace ends, `idle` and `idle:<device>` = session; what was `told` and
/// when one `looked`, the look under way (`held` until, `again` after it), `changes` since the last.
pub(super) fn presence(user: UserId) -> String {
    format!("{PRESENCE_PREFIX}{user}")
}

/// Set of user ids.
pub(super) fn members(room: RoomId) -> String {
    format!("chat:room:members:{room}")
}

/// Set of room ids.
pub(super) fn groups(user: UserId) -> String {
    format!("chat:graph:groups:{user}")
}

/// The number of the last delivery that entered a log.
pub(super) const NUMBER: &str = "chat:log:number";

/// The number of the last session.
pub(super) const SESSION_NUMBER: &str = "chat:session:number";

/// What a connection that broke off is recognised by; see [`crate::Remembered`].
pub(super) fn recovery(pid: Uuid) -> String {
    format!("chat:recovery:{}", pid.simple())
}

/// Stream: entry `<rev>-0`, fields `n` = number, `p` = payload; empty where the log begins.
pub(super) fn log(room: RoomId) -> String {
    format!("chat:log:{room}")
}

/// Empty string.
pub(super) fn claim(job: JobId) -> String {
    format!("chat:claim:{job}")
}

/// The pub/sub channel.
pub(super) fn channel(channel: Channel) -> String {
    match channel {
        Channel::Room(room) => format!("{ROOM_CHANNEL}{room}"),
        Channel::User(user) => format!("{USER_CHANNEL}{user}"),
    }
}

/// Reads the name of a pub/sub channel.
pub(super) fn parse_channel(name: &str) -> Option<Channel> {
    if let Some(room) = name.strip_prefix(ROOM_CHANNEL) {
        return Uuid::try_parse(room).ok().map(|id| Channel::Room(RoomId(id)));
    }
    let user = name.strip_prefix(USER_CHANNEL)?;
    Uuid::try_parse(user).ok().map(|id| Channel::User(UserId(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let id = Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001);
        let text = "01980000-0000-7000-8000-000000000001";
        assert_eq!(socket(UserId(id)), format!("chat:socket:{text}"));
        assert_eq!(members(RoomId(id)), format!("chat:room:members:{text}"));
        assert_eq!(groups(UserId(id)), format!("chat:graph:groups:{text}"));
        assert_eq!(ONLINE, "chat:online:users");
    }

    #[test]
    fn channels_are_read_as_they_are_written() {
        let id = Uuid::from_u128(7);
        for one in [Channel::Room(RoomId(id)), Channel::User(UserId(id))] {
            assert_eq!(parse_channel(&channel(one)), Some(one));
        }
        for bad in
            ["chat:room:", "chat:room:x", "chat:users", "", "chat:room:members:00000000-0000-0000-0000-000000000007"]
        {
            assert_eq!(parse_channel(bad), None);
        }
    }
}
