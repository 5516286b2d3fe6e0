//! What a room may be: its kind, its title and the roles in it.

use crate::{Invalid, limits, message::check_text};

/// The kind of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoomKind {
    /// Two people; exists once for each pair.
    Direct,
    /// Any number of people, with roles.
    Group,
}

impl RoomKind {
    /// The kind as the protocol and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }

    /// Reads a kind from outside.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "direct" => Ok(Self::Direct),
            "group" => Ok(Self::Group),
            _ => Err(Invalid::new("type", "must be group or direct")),
        }
    }
}

/// What a member may do in a room, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// May read and write.
    Member,
    /// May also change the room and its members.
    Admin,
    /// May do everything; each group has one.
    Owner,
}

impl Role {
    /// The role as the protocol and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| role.as_str() == text)
    }
}

/// A group's title: up to 200 characters on one line.
pub fn check_title(title: &str) -> Result<(), Invalid> {
    if title.trim().is_empty() {
        return Err(Invalid::new("title", "must not be empty"));
    }
    if title.chars().count() > limits::TITLE_CHARS {
        return Err(Invalid::new("title", "must have at most 200 characters"));
    }
    check_text("title", title, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_by_power() {
        assert!(Role::Owner > Role::Admin && Role::Admin > Role::Member);
    }

    #[test]
    fn titles_are_one_short_line() {
        assert!(check_title("Weekend trip").is_ok());
        for bad in ["", "  ", "a\nb", &"x".repeat(201)] {
            assert!(check_title(bad).is_err(), "{bad:?}");
        }
    }
}
