//! The signed envelope: an event as it travels through the broker.
//!
//! The signature covers the body and every property that decides what the event means: job id,
//! type, time, key id. Unverified and verified envelopes are different types; only the latter lets
//! anybody at the event.

use bytes::Bytes;
use domain::{Cause, Class, EventKind, JobId, RoomId, Timestamp, UserId};
use prost::Message as _;
use uuid::Uuid;

use crate::wire::{Event, event::Change};
use crate::{Keyring, bundle};

/// The media type of bodies.
pub const CONTENT_TYPE: &str = "application/x-protobuf";
const PURPOSE: &[u8] = b"chat.v1.event";

/// An event, signed and ready to be published.
#[derive(Debug, Clone)]
pub struct SignedEnvelope {
    /// The event's id: the broker's `message_id`.
    pub job_id: JobId,
    /// The event's kind: the broker's `type`.
    pub kind: EventKind,
    /// What decides the shard: the room, or the user for a user's own events.
    pub shard_key: Uuid,
    /// What the client called its request: the broker's `correlation_id`.
    pub correlation_id: Option<String>,
    /// Whole seconds since 1970: the broker's `timestamp`.
    pub timestamp_s: u64,
    /// The id of the key that signed: header `x-key-id`.
    pub key_id: String,
    /// Hexadecimal HMAC-SHA256: header `x-signature`.
    pub signature: String,
    /// W3C trace context: header `traceparent`.
    pub traceparent: Option<String>,
    /// The event as protobuf.
    pub body: Bytes,
}

/// An envelope as it came from the broker; nothing in it may be believed.
#[derive(Debug, Clone, Default)]
pub struct UnverifiedEnvelope {
    /// The broker's `message_id`.
    pub job_id: String,
    /// The broker's `type`.
    pub kind: String,
    /// The broker's `correlation_id`.
    pub correlation_id: Option<String>,
    /// The broker's `timestamp`.
    pub timestamp_s: u64,
    /// Header `x-key-id`.
    pub key_id: String,
    /// Header `x-signature`.
    pub signature: String,
    /// Header `traceparent`.
    pub traceparent: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// An event that one of our keys signed.
#[derive(Debug, Clone)]
pub struct VerifiedEnvelope {
    /// The event's id.
    pub job_id: JobId,
    /// The event's kind.
    pub kind: EventKind,
    /// The room (for a user's own events: nil).
    pub room_id: RoomId,
    /// Who asked.
    pub actor: UserId,
    /// The device that asked; empty by REST.
    pub device_id: String,
    /// When the edge accepted it, by the edge's clock.
    pub accepted_at: Timestamp,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What is to change.
    pub change: Change,
}

/// Why an envelope was not believed. None of these is ever retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadEnvelope {
    /// Signed with a key we do not have.
    #[error("unknown key id")]
    UnknownKey,
    /// Body or properties are not what was signed.
    #[error("bad signature")]
    BadSignature,
    /// Signed by us, but not an event this version can read.
    #[error("undecodable body")]
    Undecodable,
    /// Signed by us, but accepted so long ago that nobody can tell any more whether it was applied.
    #[error("accepted longer ago than receipts are kept")]
    TooOld,
}

impl BadEnvelope {
    /// Why its event is a dead letter.
    pub const fn cause(self) -> Cause {
        match self {
            Self::UnknownKey => Cause::UnknownKey,
            Self::BadSignature => Cause::BadSignature,
            Self::Undecodable => Cause::Undecodable,
            Self::TooOld => Cause::TooOld,
        }
    }
}

/// What an accepted event is made of.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event's id, a function of what was asked where that can be.
    pub job_id: JobId,
    /// The room, nil for a user's own events.
    pub room_id: RoomId,
    /// Who asks.
    pub actor: UserId,
    /// The device that asks; empty by REST.
    pub device_id: String,
    /// The edge's clock.
    pub accepted_at: Timestamp,
    /// What the client called its request.
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What is to change.
    pub change: Change,
}

/// The kind of a change.
pub const fn kind_of(change: &Change) -> EventKind {
    match change {
        Change::MessageSend(_) => EventKind::MessageSend,
        Change::MessageEdit(_) => EventKind::MessageEdit,
        Change::MessageDelete(_) => EventKind::MessageDelete,
        Change::MessageReact(_) => EventKind::MessageReact,
        Change::MemberAdd(_) => EventKind::MemberAdd,
        Change::MemberRemove(_) => EventKind::MemberRemove,
        Change::RoomUpdate(_) => EventKind::RoomUpdate,
        Change::Typing(_) => EventKind::Typing,
        Change::PresenceSet(_) => EventKind::PresenceSet,
    }
}

/// What decides on an event's shard: its room, or, for a user's own events (no room), who sent it.
pub fn shard_key(room_id: RoomId, actor: UserId) -> Uuid {
    if room_id.0.is_nil() { actor.0 } else { room_id.0 }
}

impl SignedEnvelope {
    /// Encodes and signs an event.
    pub fn seal(event: NewEvent, keys: &Keyring) -> Self {
        let kind = kind_of(&event.change);
        let shard_key = shard_key(event.room_id, event.actor);
        let body: Bytes = Event {
            job_id: event.job_id.as_bytes().to_vec(),
            room_id: event.room_id.as_bytes().to_vec(),
            actor_id: event.actor.as_bytes().to_vec(),
            accepted_at_ms: event.accepted_at.0,
            device_id: event.device_id,
            change: Some(event.change),
        }
        .encode_to_vec()
        .into();
        let timestamp_s = u64::try_from(event.accepted_at.0 / 1000).unwrap_or(0);
        let key_id = keys.signing_id().to_owned();
        let job_text = event.job_id.to_string();
        let signature = keys.sign(&signed_parts(&job_text, kind.as_str(), &timestamp_s.to_be_bytes(), &key_id, &body));
        Self {
            job_id: event.job_id,
            kind,
            shard_key,
            correlation_id: event.correlation_id,
            timestamp_s,
            key_id,
            signature: hex::encode(signature),
            traceparent: event.traceparent,
            body,
        }
    }

    /// The class of queue it goes to.
    pub const fn class(&self) -> Class {
        self.kind.class()
    }

    /// What a consumer of it would receive; for engines that keep it themselves and for tests.
    pub fn to_unverified(&self) -> UnverifiedEnvelope {
        UnverifiedEnvelope {
            job_id: self.job_id.to_string(),
            kind: self.kind.as_str().to_owned(),
            correlation_id: self.correlation_id.clone(),
            timestamp_s: self.timestamp_s,
            key_id: self.key_id.clone(),
            signature: self.signature.clone(),
            traceparent: self.traceparent.clone(),
            body: self.body.clone(),
        }
    }
}

fn signed_parts<'a>(
    job_id: &'a str,
    kind: &'a str,
    timestamp_s: &'a [u8; 8],
    key_id: &'a str,
    body: &'a [u8],
) -> [&'a [u8]; 6] {
    [PURPOSE, key_id.as_bytes(), job_id.as_bytes(), kind.as_bytes(), timestamp_s, body]
}

impl UnverifiedEnvelope {
    /// Checks the signature, then reads the event. Nothing of the body is looked at before.
    pub fn verify(&self, keys: &Keyring) -> Result<VerifiedEnvelope, BadEnvelope> {
        if self.kind == bundle::TYPE {
            // A bundle that is none; those that are have been taken apart.
            return Err(BadEnvelope::Undecodable);
        }
        let time = self.timestamp_s.to_be_bytes();
        let parts = signed_parts(&self.job_id, &self.kind, &time, &self.key_id, &self.body);
        let signature = hex::decode(&self.signature).unwrap_or_default();
        match keys.verify(&self.key_id, &parts, &signature) {
            None => return Err(BadEnvelope::UnknownKey),
            Some(false) => return Err(BadEnvelope::BadSignature),
            Some(true) => {}
        }
        let event = Event::decode(self.body.clone()).map_err(|_| BadEnvelope::Undecodable)?;
        let change = event.change.ok_or(BadEnvelope::Undecodable)?;
        let job_id = JobId::from_slice(&event.job_id).ok_or(BadEnvelope::Undecodable)?;
        let kind = kind_of(&change);
        if self.job_id != job_id.to_string() || self.kind != kind.as_str() {
            return Err(BadEnvelope::Undecodable);
        }
        Ok(VerifiedEnvelope {
            job_id,
            kind,
            room_id: RoomId::from_slice(&event.room_id).ok_or(BadEnvelope::Undecodable)?,
            actor: UserId::from_slice(&event.actor_id).ok_or(BadEnvelope::Undecodable)?,
            device_id: event.device_id,
            accepted_at: Timestamp(event.accepted_at_ms),
            traceparent: self.traceparent.clone(),
            change,
        })
    }

    /// The event without any check, only to show it to an operator.
    pub fn peek(&self) -> Option<Event> {
        Event::decode(self.body.clone()).ok()
    }
}

impl VerifiedEnvelope {
    /// What decides the shard.
    pub fn shard_key(&self) -> Uuid {
        shard_key(self.room_id, self.actor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::tests::keyring;
    use crate::wire::MessageSend;

    fn sealed(keys: &Keyring) -> UnverifiedEnvelope {
        let send = MessageSend { content: "hi".into(), client_msg_id: "m1".into(), ..Default::default() };
        let event = NewEvent {
            job_id: JobId(Uuid::from_u128(9)),
            room_id: RoomId(Uuid::from_u128(7)),
            actor: UserId(Uuid::from_u128(5)),
            device_id: "phone".into(),
            accepted_at: Timestamp(1_700_000_000_123),
            correlation_id: Some("m1".into()),
            traceparent: None,
            change: Change::MessageSend(send),
        };
        SignedEnvelope::seal(event, keys).to_unverified()
    }

    #[test]
    fn what_was_sealed_is_verified() {
        let keys = keyring(&["a"]);
        let event = sealed(&keys).verify(&keys).expect("genuine");
        assert_eq!(event.accepted_at, Timestamp(1_700_000_000_123));
        assert!(matches!(event.change, Change::MessageSend(send) if send.content == "hi"));
    }

    #[test]
    fn any_change_is_noticed() {
        let keys = keyring(&["a"]);
        let genuine = sealed(&keys);
        let mut body = genuine.body.to_vec();
        body[20] ^= 1;
        let tampered = [
            UnverifiedEnvelope { body: body.into(), ..genuine.clone() },
            UnverifiedEnvelope { kind: "message.edit".into(), ..genuine.clone() },
            UnverifiedEnvelope { job_id: Uuid::nil().to_string(), ..genuine.clone() },
            UnverifiedEnvelope { timestamp_s: 1, ..genuine.clone() },
            UnverifiedEnvelope { signature: String::new(), ..genuine.clone() },
            UnverifiedEnvelope { signature: "zz".repeat(32), ..genuine.clone() },
        ];
        for envelope in tampered {
            assert_eq!(envelope.verify(&keys).err(), Some(BadEnvelope::BadSignature));
        }
        assert_eq!(genuine.verify(&keyring(&["b"])).err(), Some(BadEnvelope::UnknownKey));
    }

    #[test]
    fn a_bundle_is_no_event() {
        let keys = keyring(&["a"]);
        let bundle = UnverifiedEnvelope { kind: bundle::TYPE.to_owned(), ..sealed(&keys) };
        assert_eq!(bundle.verify(&keys).err(), Some(BadEnvelope::Undecodable));
    }

    #[test]
    fn another_key_under_the_same_id_is_noticed() {
        let keys = keyring(&["a"]);
        let other = Keyring::parse(&format!("a:{}", "QUJD".repeat(11))).expect("33 bytes");
        assert_eq!(sealed(&keys).verify(&other).err(), Some(BadEnvelope::BadSignature));
    }

    proptest::proptest! {
        #[test]
        fn no_envelope_makes_verification_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..200), signature in ".{0,80}") {
            let envelope = UnverifiedEnvelope { key_id: "a".into(), signature, body: body.into(), ..Default::default() };
            proptest::prop_assert!(envelope.verify(&keyring(&["a"])).is_err());
        }
    }
}
