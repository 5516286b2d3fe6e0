//! Who is there and what the others are shown of it: the values of presence, shared by both engines.
//!
//! Knows neither engine. The invariants: a session only ever removes what it put there itself, and
//! nobody is shown whose wish is not known.

use std::time::Duration;

use domain::id::DeviceId;
use domain::presence::Status;
use domain::{SessionId, Timestamp, UserId};
use uuid::Uuid;

/// For how long after a departure an old list that still names the user is not believed.
pub(crate) const LIST_DOUBTED_FOR: Duration = Duration::from_mins(1);
/// Between two looks at a user, and so between two words about a user, at least.
pub(crate) const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

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

/// What a user wishes to be seen as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Whose wish.
    pub user: UserId,
    /// Anything but offline.
    pub status: Status,
}

/// How a user stands, as far as is known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Who.
    pub user: UserId,
    /// A device is connected, or the last one left less than the grace ago.
    pub is_there: bool,
    /// None of the connected devices is in use.
    pub is_idle: bool,
    /// What the user wishes to be seen as; `None`: not known here (any more), so ask the store and
    /// tell with [`Presence::wishing`].
    pub wish: Option<Status>,
    /// When the user was last seen to be there. Hiding ends it: what an invisible user does moves it
    /// no more.
    pub(crate) seen: Option<Timestamp>,
    /// When the last device left.
    pub(crate) left: Option<Timestamp>,
}

/// What others are shown of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// Online, away, busy or offline; never invisible.
    pub status: Status,
    /// Only of who is offline.
    pub last_seen: Option<Timestamp>,
}

/// A user who has to be looked at, held by whoever took it for [`crate::LOOK_WITHIN`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// How the user stands.
    pub presence: Presence,
    /// What the others were last told; `None`: nothing, which is to them as if offline.
    pub told: Option<Shown>,
    /// Changes since the last look.
    pub changes: u64,
    /// Whoever looked last did not say that it was done: perhaps the others know more than `told`, and
    /// perhaps this user is the reason.
    pub is_unsure: bool,
    /// Until when the look is held; says which one it is.
    pub(crate) held_until: Timestamp,
    /// When the grace ends, if it runs.
    pub(crate) grace_ends: Option<Timestamp>,
}

/// Users taken to be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Due {
    /// Those of this slice.
    pub looks: Vec<Look>,
    /// All who wait to be looked at, these and those in their grace included.
    pub waiting: u64,
    /// A gateway died: the janitor is due, out of turn.
    pub gateway_died: bool,
}

/// What one run of the janitor did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Users no longer counted as connected: without a sign of life for long, or on gateways that died.
    pub gone: u64,
    /// Users whose sessions were extended because their gateway lives.
    pub extended: u64,
}

impl Presence {
    /// The same user, with the wish that was not known here; a wish that is known stays.
    #[must_use]
    pub fn wishing(mut self, status: Status) -> Self {
        if self.wish.is_none() {
            self.wish = Some(status);
            // Who left before the wish was known was seen to leave, unless hidden.
            if status != Status::Invisible {
                self.seen = self.seen.or(self.left);
            }
        }
        self
    }

    /// What others are shown. Whoever hides, or whose wish is not known, looks offline.
    pub fn shown(&self) -> Shown {
        let status = match self.wish {
            None | Some(Status::Invisible | Status::Offline) => Status::Offline,
            Some(_) if !self.is_there => Status::Offline,
            Some(Status::Online) if self.is_idle => Status::Away,
            Some(wish) => wish,
        };
        Shown { status, last_seen: self.seen.filter(|_| status == Status::Offline) }
    }
}

impl Shown {
    /// As it is kept: `online`, or `offline 1800000000000`.
    pub(crate) fn to_text(self) -> String {
        match self.last_seen {
            Some(at) => format!("{} {}", self.status.as_str(), at.0),
            None => self.status.as_str().to_owned(),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (status, at) = text.split_once(' ').unwrap_or((text, ""));
        Some(Self { status: Status::parse(status)?, last_seen: at.parse().ok().map(Timestamp) })
    }
}

impl Look {
    /// What the others are to be told, if it is anything new to them.
    pub fn news(&self) -> Option<Shown> {
        let shown = self.presence.shown();
        let is_new = match self.told {
            // Told twice is better than not at all; but of who hides only what differs.
            told if self.is_unsure => {
                let nobody = Shown { status: Status::Offline, last_seen: None };
                self.presence.wish != Some(Status::Invisible) || told.unwrap_or(nobody) != shown
            }
            None | Some(Shown { status: Status::Offline, last_seen: None }) => shown.status != Status::Offline,
            Some(told) => told != shown,
        };
        is_new.then_some(shown)
    }

    /// The same look, with the wish that was not known here.
    #[must_use]
    pub fn wishing(mut self, status: Status) -> Self {
        if self.presence.wish.is_none() && status == Status::Invisible {
            // What was assumed to have been told was told by nobody: the user hid.
            self.told = None;
        }
        self.presence = self.presence.wishing(status);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Timestamp = Timestamp(1_800_000_000_000);

    fn presence(is_there: bool, is_idle: bool, wish: Option<Status>) -> Presence {
        Presence { user: UserId(Uuid::nil()), is_there, is_idle, wish, seen: Some(SEEN), left: None }
    }

    #[test]
    fn the_hidden_and_those_whose_wish_is_not_known_look_offline() {
        for wish in [None, Some(Status::Invisible)] {
            for (is_there, is_idle) in [(true, false), (true, true), (false, false)] {
                let shown = presence(is_there, is_idle, wish).shown();
                assert_eq!(shown, Shown { status: Status::Offline, last_seen: Some(SEEN) });
            }
        }
    }

    #[test]
    fn only_who_wishes_to_be_online_is_away_by_idleness() {
        for (wish, expected) in [
            (Status::Online, Status::Away),
            (Status::Busy, Status::Busy),
            (Status::Away, Status::Away),
            (Status::Invisible, Status::Offline),
        ] {
            assert_eq!(presence(true, true, Some(wish)).shown().status, expected);
        }
        assert_eq!(presence(true, false, Some(Status::Online)).shown().status, Status::Online);
        assert_eq!(presence(false, true, Some(Status::Online)).shown().status, Status::Offline);
    }

    #[test]
    fn what_was_told_is_read_as_it_was_written() {
        for shown in [
            Shown { status: Status::Busy, last_seen: None },
            Shown { status: Status::Offline, last_seen: None },
            Shown { status: Status::Offline, last_seen: Some(SEEN) },
        ] {
            assert_eq!(Shown::parse(&shown.to_text()), Some(shown));
        }
        assert_eq!(Shown::parse("nonsense"), None);
    }

    #[test]
    fn a_wish_that_is_learnt_late_tells_when_its_user_left_unless_it_hides() {
        let left = Presence { seen: None, left: Some(SEEN), ..presence(false, false, None) };
        assert_eq!(left.wishing(Status::Online).shown().last_seen, Some(SEEN));
        assert_eq!(left.wishing(Status::Invisible).shown().last_seen, None);
        let known = presence(true, false, Some(Status::Busy));
        assert_eq!(known.wishing(Status::Online), known);
    }
}
