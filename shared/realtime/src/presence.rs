//! Who is there: the values of presence, shared by both engines.
//!
//! Knows neither engine. The invariant: a session only ever removes what it put there itself.

use std::time::Duration;

use domain::id::DeviceId;
use domain::presence::Status;
use domain::{SessionId, Timestamp, UserId};
use uuid::Uuid;

/// What a device's arrival changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// The user had no other device there.
    pub was_offline: bool,
    /// The live session that held the device until now.
    pub replaced: Option<SessionId>,
}

/// One device of a user, connected to one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeviceLease {
    /// Whose device.
    pub user: UserId,
    /// The device's name, unique among the user's.
    pub device: DeviceId,
    /// The connection that holds it now.
    pub session: SessionId,
    /// The gateway process that holds the connection.
    pub gateway: Uuid,
}

/// How a user stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// The true status, invisible included: the caller hides it.
    pub status: Status,
    /// When the user was last seen to be there. Hiding ends it: what an invisible user does moves it
    /// no more, so it may be shown along with "offline".
    pub last_seen: Option<Timestamp>,
    /// The user wishes not to be seen, there or not.
    pub hides: bool,
}

/// What one run of the janitor did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Users no longer counted as online: without a sign of life for long, or on gateways that died.
    pub gone: Vec<UserId>,
    /// Users whose sessions were extended because their gateway lives.
    pub extended: u64,
}

/// For how long after a departure an old list that still names the user is not believed.
pub(crate) const LIST_DOUBTED_FOR: Duration = Duration::from_mins(1);

/// How a user stands: not in the list of those online means offline, whatever the wish.
pub(crate) fn standing(
    user: UserId,
    online_at: Option<Timestamp>,
    wish: Option<Status>,
    seen: Option<Timestamp>,
) -> Presence {
    let status = match online_at {
        Some(_) => wish.unwrap_or(Status::Online),
        None => Status::Offline,
    };
    let visible_at = online_at.filter(|_| status != Status::Invisible);
    Presence { user, status, last_seen: visible_at.or(seen), hides: wish == Some(Status::Invisible) }
}
