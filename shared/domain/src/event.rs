//! The events that travel through the broker: their names, classes and priorities.

use std::fmt;

/// A class of queues. Each class is split by room into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Messages and the start of calls.
    High,
    /// Changes of what exists: edits, deletes, reactions, membership.
    Medium,
    /// What may be shed under load: presence and typing.
    Low,
}

impl Class {
    /// All classes, most urgent first.
    pub const ALL: [Self; 3] = [Self::High, Self::Medium, Self::Low];

    /// The class as it stands in queue names and metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }

    /// The class of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == text)
    }

    /// 0 for high, 1 for medium, 2 for low.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What kind of event an envelope holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A new message.
    MessageSend,
    /// New content for a message.
    MessageEdit,
    /// A message taken back.
    MessageDelete,
    /// A reaction given or taken back.
    MessageReact,
    /// Somebody becomes a member of a room.
    MemberAdd,
    /// Somebody stops being a member: leaves or is removed.
    MemberRemove,
    /// A room's title changes.
    RoomUpdate,
    /// A user's presence changes.
    PresenceSet,
    /// Somebody types.
    Typing,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 9] = [
        Self::MessageSend,
        Self::MessageEdit,
        Self::MessageDelete,
        Self::MessageReact,
        Self::MemberAdd,
        Self::MemberRemove,
        Self::RoomUpdate,
        Self::PresenceSet,
        Self::Typing,
    ];

    /// The event's public name; the broker's `type` property.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MessageSend => "message.send",
            Self::MessageEdit => "message.edit",
            Self::MessageDelete => "message.delete",
            Self::MessageReact => "message.react",
            Self::MemberAdd => "room.memberAdd",
            Self::MemberRemove => "room.memberRemove",
            Self::RoomUpdate => "room.update",
            Self::PresenceSet => "presence.set",
            Self::Typing => "typing",
        }
    }

    /// The kind of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// The class of queue the event travels in.
    pub const fn class(self) -> Class {
        match self {
            Self::MessageSend => Class::High,
            Self::MessageEdit
            | Self::MessageDelete
            | Self::MessageReact
            | Self::MemberAdd
            | Self::MemberRemove
            | Self::RoomUpdate => Class::Medium,
            Self::PresenceSet | Self::Typing => Class::Low,
        }
    }

    /// The priority inside its queue, 1 to 10.
    pub const fn priority(self) -> u8 {
        match self {
            Self::MessageSend => 8,
            Self::MessageEdit
            | Self::MessageDelete
            | Self::MessageReact
            | Self::MemberAdd
            | Self::MemberRemove
            | Self::RoomUpdate => 5,
            Self::PresenceSet => 3,
            Self::Typing => 1,
        }
    }

    /// True for events that leave no trace in the store and may be dropped under load.
    pub const fn is_ephemeral(self) -> bool {
        matches!(self, Self::PresenceSet | Self::Typing)
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(EventKind::parse("no.such"), None);
    }

    #[test]
    fn messages_overtake_edits_and_edits_overtake_typing() {
        assert!(EventKind::MessageSend.priority() > EventKind::MessageEdit.priority());
        assert!(EventKind::MessageEdit.priority() > EventKind::Typing.priority());
    }
}
