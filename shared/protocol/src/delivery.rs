//! Signed deliveries: what processors tell gateways through pub/sub.
//!
//! Layout: one byte key id length, key id, 32 bytes HMAC-SHA256, protobuf `Delivery`. The signature
//! also covers the channel, so that a delivery cannot be replayed to another room.

use bytes::Bytes;
use domain::{Rev, RoomId, UserId};
use prost::Message as _;

use crate::wire::Delivery;
use crate::{EventData, Keyring};

const PURPOSE: &[u8] = b"chat.v1.delivery";
const MAC_BYTES: usize = 32;

/// Where a delivery goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// To every member of a room.
    Room(RoomId),
    /// To every device of a user.
    User(UserId),
}

impl Channel {
    fn tag(&self) -> (u8, &[u8; 16]) {
        match self {
            Self::Room(room) => (b'r', room.as_bytes()),
            Self::User(user) => (b'u', user.as_bytes()),
        }
    }
}

/// A delivery that one of our keys signed for this channel.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenedDelivery {
    /// The room's rev after the change; `None` for what leaves no trace.
    pub rev: Option<Rev>,
    /// The rev of the room's last membership change when this was made; zero for what leaves no trace,
    /// which is for whoever is there when it comes.
    pub epoch: Rev,
    /// Whoever must not get it.
    pub except: Option<UserId>,
    /// What to tell.
    pub event: EventData,
}

impl OpenedDelivery {
    /// Something that leaves no trace, for everybody.
    pub fn passing(event: EventData) -> Self {
        Self { rev: None, epoch: Rev::ZERO, except: None, event }
    }
}

/// Encodes and signs a delivery for `channel`.
pub fn seal(channel: Channel, delivery: &OpenedDelivery, keys: &Keyring) -> Bytes {
    let body = Delivery {
        room_id: match channel {
            Channel::Room(room) => room.as_bytes().to_vec(),
            Channel::User(_) => Vec::new(),
        },
        user_id: match channel {
            Channel::User(user) => user.as_bytes().to_vec(),
            Channel::Room(_) => Vec::new(),
        },
        rev: delivery.rev.unwrap_or_default().0,
        epoch: delivery.epoch.0,
        event: Some(delivery.event.clone().into()),
        except_user_id: delivery.except.map(|user| user.as_bytes().to_vec()).unwrap_or_default(),
    }
    .encode_to_vec();
    let key_id = keys.signing_id().as_bytes();
    let (tag, id) = channel.tag();
    let mac = keys.sign(&[PURPOSE, key_id, &[tag], id, &body]);
    let mut sealed = Vec::with_capacity(1 + key_id.len() + MAC_BYTES + body.len());
    sealed.push(key_id.len() as u8);
    sealed.extend_from_slice(key_id);
    sealed.extend_from_slice(&mac);
    sealed.extend_from_slice(&body);
    sealed.into()
}

/// Checks and reads a delivery that came on `channel`; `None` when it is not genuine.
pub fn open(channel: Channel, sealed: &[u8], keys: &Keyring) -> Option<OpenedDelivery> {
    let (&key_len, rest) = sealed.split_first()?;
    let (key_id, rest) = rest.split_at_checked(usize::from(key_len))?;
    let (mac, body) = rest.split_at_checked(MAC_BYTES)?;
    let (tag, id) = channel.tag();
    let genuine = keys.verify(std::str::from_utf8(key_id).ok()?, &[PURPOSE, key_id, &[tag], id, body], mac)?;
    if !genuine {
        return None;
    }
    let delivery = Delivery::decode(body).ok()?;
    Some(OpenedDelivery {
        rev: (delivery.rev > 0).then_some(Rev(delivery.rev)),
        epoch: Rev(delivery.epoch),
        except: UserId::from_slice(&delivery.except_user_id),
        event: delivery.event?.kind?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::tests::keyring;
    use crate::wire::Typing;
    use uuid::Uuid;

    const ROOM: Channel = Channel::Room(RoomId(Uuid::from_u128(7)));

    fn typing() -> OpenedDelivery {
        let typing = Typing { room_id: "r".into(), user_id: "u".into(), is_typing: true };
        OpenedDelivery { rev: None, epoch: Rev(3), except: None, event: EventData::Typing(typing) }
    }

    #[test]
    fn a_delivery_is_for_one_channel_and_one_key() {
        let keys = keyring(&["a"]);
        let sealed = seal(ROOM, &typing(), &keys);
        assert_eq!(open(ROOM, &sealed, &keys), Some(typing()));
        assert_eq!(open(Channel::Room(RoomId(Uuid::from_u128(8))), &sealed, &keys), None);
        assert_eq!(open(Channel::User(UserId(Uuid::from_u128(7))), &sealed, &keys), None);
        assert_eq!(open(ROOM, &sealed, &keyring(&["b"])), None);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let keys = keyring(&["a"]);
        let sealed = seal(ROOM, &typing(), &keys);
        for end in 0..sealed.len() {
            assert_eq!(open(ROOM, &sealed[..end], &keys), None);
        }
    }
}
