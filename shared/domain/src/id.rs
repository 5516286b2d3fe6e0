//! Identities and positions as types, so that a room cannot be passed where a user is meant.
//!
//! Ids from outside may be any RFC 9562 version; ours are UUIDv7 (sortable by time), except ids
//! that are a function of what was asked: those are UUIDv8 from a hash, so that the same request
//! has the same id in every process and duplicates need no lookup.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::Invalid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new UUIDv7 for something that begins to exist now.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Parses an id from outside; `field` names it in the refusal.
            pub fn parse(field: &'static str, text: &str) -> Result<Self, Invalid> {
                if text.is_empty() {
                    return Err(Invalid::new(field, "is required"));
                }
                // Only the hyphenated form: every other spelling would be a second name for one thing.
                if text.len() != 36 {
                    return Err(Invalid::new(field, "must be a UUID"));
                }
                Uuid::try_parse(text).map(Self).map_err(|_| Invalid::new(field, "must be a UUID"))
            }

            /// The sixteen bytes, as they travel inside envelopes.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Reads the sixteen bytes of an envelope field; `None` for any other length.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text).map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    };
}

uuid_id!(
    /// An account.
    UserId
);
uuid_id!(
    /// A conversation, group or direct.
    RoomId
);
uuid_id!(
    /// A message: UUIDv8 from its sender and the sender's `clientMsgId`.
    MessageId
);
uuid_id!(
    /// One event on its way through the broker; for `message.send` the same value as its message id.
    JobId
);
uuid_id!(
    /// One connection of one device.
    SessionId
);
impl SessionId {
    /// The id of the session of that number: the larger the number, the larger the id. Numbers are
    /// microseconds since 1970, or a little more.
    pub fn numbered(number: u64) -> Self {
        let part_of_ms = ((number % 1000) * 4096 / 1000) as u16;
        let mut rest = [0; 10];
        rest[..2].copy_from_slice(&part_of_ms.to_be_bytes());
        rest[2..].copy_from_slice(&Uuid::new_v4().as_bytes()[8..]);
        Self(uuid::Builder::from_unix_timestamp_millis(number / 1000, &rest).into_uuid())
    }
}

uuid_id!(
    /// A call: UUIDv8 from its caller and the caller's `clientCallId`.
    CallId
);

/// A UUIDv8 (RFC 9562 section 5.8) whose 122 free bits are a SHA-256 over a label and two parts.
fn hashed_id(label: &str, owner: Uuid, name: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(label.as_bytes());
    hash.update([0]);
    hash.update(owner.as_bytes());
    hash.update(name.as_bytes());
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

impl MessageId {
    /// The one id of the message that `sender` calls `client_msg_id`, whoever computes it.
    pub fn of(sender: UserId, client_msg_id: &str) -> Self {
        Self(hashed_id("message", sender.0, client_msg_id))
    }
}

impl CallId {
    /// The one id of the call that `caller` calls `client_call_id`.
    pub fn of(caller: UserId, client_call_id: &str) -> Self {
        Self(hashed_id("call", caller.0, client_call_id))
    }
}

impl RoomId {
    /// The one id of the direct conversation of two people, in whatever order they are named.
    pub fn direct(one: UserId, other: UserId) -> Self {
        let (low, high) = if one <= other { (one, other) } else { (other, one) };
        Self(hashed_id("direct", low.0, &high.to_string()))
    }

    /// A room's id made from a seed's arguments, so that the same arguments name the same room.
    pub fn seeded(prefix: &str, number: u64) -> Self {
        Self(hashed_id("seed-room", Uuid::nil(), &format!("{prefix}/{number}")))
    }
}

impl UserId {
    /// A user's id made from a seed's arguments, so that the same arguments name the same user.
    pub fn seeded(prefix: &str, number: u64) -> Self {
        Self(hashed_id("seed-user", Uuid::nil(), &format!("{prefix}/{number}")))
    }
}

impl JobId {
    /// The id of one part of a job that changes several things, such as one of many new members.
    #[must_use]
    pub fn part(self, part: Uuid) -> Self {
        Self(hashed_id("part", self.0, &part.to_string()))
    }
}

impl From<MessageId> for JobId {
    fn from(id: MessageId) -> Self {
        Self(id.0)
    }
}

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// The position before the first one.
            pub const ZERO: Self = Self(0);

            /// The position that follows. Panics after the last one: whatever follows it would lie before all
            /// others.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("no room has 2^63 of them, unless somebody damaged its counter"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

position!(
    /// The number of a message in its room: 1, 2, 3, …
    Seq
);
position!(
    /// The number of a durable change in its room: 1, 2, 3, …
    Rev
);
position!(
    /// How often a user's set of rooms, or a role there, has changed.
    Membership
);

/// The name of a device, chosen by the client or made for it; at most 64 printable characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

impl DeviceId {
    /// Parses the name a client gave its device.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let fits = (1..=crate::limits::DEVICE_ID_CHARS).contains(&text.len());
        if fits && text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(Invalid::new("deviceId", "must be 1 to 64 printable ASCII characters without spaces"))
        }
    }

    /// A name for a device that did not bring one.
    pub fn generate() -> Self {
        Self(Uuid::now_v7().to_string().into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: UserId = UserId(Uuid::from_u128(1));
    const BOB: UserId = UserId(Uuid::from_u128(2));

    #[test]
    fn a_message_id_is_a_function_of_sender_and_client_msg_id() {
        assert_eq!(MessageId::of(ALICE, "m1"), MessageId::of(ALICE, "m1"));
        assert_ne!(MessageId::of(ALICE, "m1"), MessageId::of(ALICE, "m2"));
        assert_ne!(MessageId::of(ALICE, "m1"), MessageId::of(BOB, "m1"));
        assert_eq!(MessageId::of(ALICE, "m1").0.get_version_num(), 8);
    }

    #[test]
    fn ids_of_one_hash_never_change_between_versions() {
        assert_eq!(MessageId::of(ALICE, "m1").to_string(), "17757157-02c4-85f5-8235-d879d09f3241");
    }

    #[test]
    fn a_direct_room_has_one_id_from_either_side() {
        assert_eq!(RoomId::direct(ALICE, BOB), RoomId::direct(BOB, ALICE));
    }

    #[test]
    fn only_hyphenated_uuids_are_ids() {
        assert!(RoomId::parse("roomId", "00000000-0000-0000-0000-000000000001").is_ok());
        for bad in ["", "x", "00000000000000000000000000000001", "{00000000-0000-0000-0000-00000000000}"] {
            assert!(RoomId::parse("roomId", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn device_names_are_short_and_printable() {
        assert!(DeviceId::parse("phone-1").is_ok());
        for bad in ["", "with space", "new\nline", &"x".repeat(65)] {
            assert!(DeviceId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
