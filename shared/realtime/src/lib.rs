//! The realtime port: fan-out to gateways with a room log, the dedupe claim, presence, room sets.
//!
//! It knows neither the store nor the broker, and it cannot read the payloads that it carries. One
//! invariant for both engines: **everything here may be lost at any moment without a wrong result**
//! (caches answer "not known", the log "not that far back", a claim "never seen"); whoever needs
//! certainty asks the store.
//!
//! What the port promises
//! - *Fan-out.* A delivery published after `subscribe` returned reaches the inbox, unless
//!   [`Arrival::Reconnected`] comes in its place. Deliveries of one channel arrive in the order of
//!   the `publish` calls that carried them; a repeated publish arrives again.
//! - *Room log.* A room delivery with a rev is kept for a while and is in the log before any inbox
//!   has it. What [`Realtime::room_logs`] returns has neither gap nor repeat.
//! - *Numbers.* Every delivery that enters a log gets a number: larger than all before, whatever the
//!   room, and the order in which inboxes see them; a repeated one keeps its number or has none. Only on a
//!   Redis cluster none has one ([`Realtime::is_ordered`]).
//! - *Claim.* `false` is certain to have been asked before; `true` is only very likely new.
//! - *Presence.* A session removes only what it put there itself. What a gateway that died left
//!   behind counts as gone when its lease ends. Whoever changed is due to be looked at, at most once a
//!   second, in one pair of hands at a time, and is not lost when these die. Whose wish is not known
//!   (any more) is shown to nobody. Redis goes by its own clock, since those of processes differ.
//! - *Drained.* What was counted is in the totals from then on; they only grow, unless they were lost.
//!
//! What the port asks of its callers
//! - Take deliveries from the inbox quickly: it is bounded, and when it is full all of it is dropped
//!   and becomes one [`Arrival::Reconnected`].
//! - After [`Arrival::Reconnected`]: resync the rooms from the log or the store, and `arrive` again
//!   with every session, since presence may be gone too.
//! - Call [`Realtime::renew_gateway`] every [`RENEW_EVERY`], and [`Realtime::due_presence`] several times
//!   a second in at least one process.

mod embedded;
mod inbox;
mod port;
mod presence;
mod recovery;
mod redis;

use std::time::Duration;

use bytes::Bytes;
use domain::{Rev, RoomId};
use protocol::Channel;

pub use inbox::{Arrival, Inbox, InboxId};
pub use port::Realtime;
pub use presence::{DeviceLease, Due, Look, Presence, Shown, Trimmed, Wish};
pub use recovery::{LogNumber, Remembered, Since};

/// No round trip to the engine waits longer than this. Most calls are one; a call about very many
/// (publish, claim, presence, renewal) takes several, one after the other, and ends with the first
/// that fails. A subscription of many thousands may take longer.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(2);
/// How often a gateway renews its lease and its users.
pub const RENEW_EVERY: Duration = Duration::from_secs(20);
/// How long a gateway counts as living after its last renewal or arrival.
pub const GATEWAY_LEASE: Duration = Duration::from_mins(1);
/// How often the janitor is due; asked earlier, it does nothing.
pub const JANITOR_EVERY: Duration = Duration::from_secs(30);
/// How long a user counts as online after the last sign of life.
pub const ONLINE_FOR: Duration = Duration::from_mins(5);
/// How long a look at a user may take; after that another one may take it.
pub const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Entries that a room's log keeps at least while it is in use, if they fit into its memory.
pub const ROOM_LOG_ENTRIES: usize = 256;
/// How long a room's log is kept after its last entry.
pub const ROOM_LOG_KEPT: Duration = Duration::from_mins(10);
/// The janitor is due early, so that a call about every [`JANITOR_EVERY`] never comes just too soon.
pub(crate) const JANITOR_DUE_AFTER: Duration = Duration::from_secs(JANITOR_EVERY.as_secs() / 2);
/// How long it is known how somebody who is offline stands, and what the others were told of it.
pub(crate) const PRESENCE_KEPT: Duration = Duration::from_hours(7 * 24);
/// How long a room's members are cached.
pub(crate) const MEMBERS_CACHED: Duration = Duration::from_mins(30);
/// How long a user's rooms are cached.
pub(crate) const ROOMS_CACHED: Duration = Duration::from_hours(12);
/// How long a connection is remembered after it was begun, for its recovery.
pub const REMEMBERED_FOR: Duration = Duration::from_hours(24);

/// Which engine, and where it is.
#[derive(Clone)]
pub enum RealtimeSettings {
    /// A Redis server (6.2 or newer) or a Redis cluster (7.0 or newer), shared by all processes.
    Redis {
        /// `redis://[user:password@]host:port[/db]`, or `rediss://` for TLS; of a cluster
        /// `redis+cluster://[user:password@]host:port[,host:port…]`, or `rediss+cluster://`: some of its
        /// nodes, which know the others. Secret.
        url: String,
    },
    /// In this process, for a single process.
    Embedded,
}

impl std::fmt::Debug for RealtimeSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Redis { .. } => "Redis",
            Self::Embedded => "Embedded",
        })
    }
}

/// Why an operation did not happen, or may not have happened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RealtimeError {
    /// Not reachable, refused, or no answer in time. Every operation may be repeated.
    #[error("the realtime engine is unavailable: {0}")]
    Unavailable(String),
    /// What is there is not what the settings say; only [`Realtime::open`] finds that, and trying again
    /// does not help.
    #[error("{0}")]
    Misplaced(String),
}

/// What is wanted of one room's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogAsked {
    /// Whose log.
    pub room: RoomId,
    /// The deliveries after this rev.
    pub after: Rev,
    /// The first so many of them, at least 1.
    pub limit: usize,
}

/// One delivery on its way to the gateways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// To whom.
    pub channel: Channel,
    /// The room's rev if the delivery is durable: then it enters the room's log. Ignored for users.
    pub rev: Option<Rev>,
    /// The sealed delivery.
    pub payload: Bytes,
}
