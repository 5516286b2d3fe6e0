//! What the others see of a user.

use crate::Invalid;

/// A user's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// No device is connected, or the user hides.
    Offline,
    /// Connected, hidden from everybody else.
    Invisible,
    /// Connected, not at the keyboard.
    Away,
    /// Connected, not to be disturbed.
    Busy,
    /// Connected.
    Online,
}

impl Status {
    /// The status as the protocol writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Invisible => "invisible",
            Self::Away => "away",
            Self::Busy => "busy",
            Self::Online => "online",
        }
    }

    /// The status of that name, as stored.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Offline, Self::Invisible, Self::Away, Self::Busy, Self::Online]
            .into_iter()
            .find(|status| status.as_str() == text)
    }

    /// Reads the status a client sets: everything but offline.
    pub fn parse_wish(text: &str) -> Result<Self, Invalid> {
        match Self::parse(text) {
            Some(Self::Offline) | None => Err(Invalid::new("status", "must be online, away, busy or invisible")),
            Some(status) => Ok(status),
        }
    }

    /// What others are shown: the hidden look offline.
    #[must_use]
    pub const fn as_seen_by_others(self) -> Self {
        match self {
            Self::Invisible => Self::Offline,
            seen => seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hidden_look_offline() {
        assert_eq!(Status::Invisible.as_seen_by_others(), Status::Offline);
        assert_eq!(Status::Busy.as_seen_by_others(), Status::Busy);
    }

    #[test]
    fn nobody_may_set_offline() {
        assert!(Status::parse_wish("offline").is_err());
        assert_eq!(Status::parse_wish("away"), Ok(Status::Away));
    }
}
