//! Several signed events as one body, so that the broker stores them at the cost of one.
//!
//! Knows no broker. The invariant: an event comes out of a bundle as it went in, with its own id and its own
//! signature; and what is no bundle of ours comes out as nothing, however strange it is, at no more memory than
//! its bytes deserve.

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, decode_key};

use crate::envelope::{SignedEnvelope, UnverifiedEnvelope};
use crate::wire::{Bundle, BundledEvent};

/// The broker's `type` of a bundle.
pub const TYPE: &str = "bundle";
/// Events in one, at most; one with more is not read.
pub const MOST: usize = 64;
/// The only field of a bundle.
const EVENTS: u32 = 1;

/// Puts events together.
pub fn pack(envelopes: impl IntoIterator<Item = SignedEnvelope>) -> Bytes {
    let event = |it: SignedEnvelope| BundledEvent {
        job_id: it.job_id.as_bytes().to_vec(),
        r#type: it.kind.as_str().to_owned(),
        correlation_id: it.correlation_id,
        timestamp_s: it.timestamp_s,
        key_id: it.key_id,
        signature: hex::decode(&it.signature).unwrap_or_default(),
        traceparent: it.traceparent,
        body: it.body.into(),
    };
    Bundle { events: envelopes.into_iter().map(event).collect() }.encode_to_vec().into()
}

/// The events of a bundle, in their order; `None`: it is none.
pub fn unpack(body: &Bytes) -> Option<Vec<UnverifiedEnvelope>> {
    let envelope = |it: BundledEvent| {
        Some(UnverifiedEnvelope {
            job_id: uuid::Uuid::from_slice(&it.job_id).ok()?.to_string(),
            kind: it.r#type,
            correlation_id: it.correlation_id,
            timestamp_s: it.timestamp_s,
            key_id: it.key_id,
            signature: hex::encode(it.signature),
            traceparent: it.traceparent,
            body: it.body.into(),
        })
    };
    // One by one, so that two bytes per event do not become hundreds before they are counted.
    let (mut rest, mut events) = (body.clone(), Vec::new());
    while !rest.is_empty() {
        let is_event = decode_key(&mut rest).ok()? == (EVENTS, WireType::LengthDelimited);
        if !is_event || events.len() == MOST {
            return None;
        }
        events.push(envelope(BundledEvent::decode_length_delimited(&mut rest).ok()?)?);
    }
    (!events.is_empty()).then_some(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::NewEvent;
    use crate::keyring::tests::keyring;
    use crate::wire::{MessageSend, event::Change};
    use domain::{JobId, RoomId, Timestamp, UserId};
    use uuid::Uuid;

    fn sealed(number: u128) -> SignedEnvelope {
        let send = MessageSend { content: format!("text {number}"), ..Default::default() };
        let event = NewEvent {
            job_id: JobId(Uuid::from_u128(number)),
            room_id: RoomId(Uuid::from_u128(7)),
            actor: UserId(Uuid::from_u128(5)),
            device_id: "phone".into(),
            accepted_at: Timestamp(1_700_000_000_123),
            correlation_id: number.is_multiple_of(2).then(|| format!("m{number}")),
            traceparent: number.is_multiple_of(3).then(|| "00-a-b-01".to_owned()),
            change: Change::MessageSend(send),
        };
        SignedEnvelope::seal(event, &keyring(&["a"]))
    }

    #[test]
    fn events_come_out_as_they_went_in_and_are_believed() {
        let events: Vec<SignedEnvelope> = (1..=MOST as u128).map(sealed).collect();
        let out = unpack(&pack(events.clone())).expect("a bundle");
        assert_eq!(out.len(), MOST);
        for (one, other) in events.iter().zip(&out) {
            assert_eq!(format!("{:?}", one.to_unverified()), format!("{other:?}"));
            assert_eq!(other.verify(&keyring(&["a"])).expect("genuine").job_id, one.job_id);
        }
    }

    #[test]
    fn what_is_no_bundle_is_none() {
        assert!(unpack(&Bytes::new()).is_none(), "without events");
        assert!(unpack(&pack((0..=MOST as u128).map(sealed))).is_none(), "too many");
        assert!(unpack(&Bytes::from_static(b"{}")).is_none());
        let nameless = Bundle { events: vec![BundledEvent::default()] };
        assert!(unpack(&nameless.encode_to_vec().into()).is_none());
        let whole = pack((1..=2).map(sealed));
        assert!(unpack(&whole.slice(..whole.len() - 1)).is_none(), "cut off");
        assert!(unpack(&[&whole[..], &[0x12, 0]].concat().into()).is_none(), "more than events");
        assert!(unpack(&Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0f")).is_none(), "a length that is none");
    }

    #[test]
    fn very_many_empty_events_are_not_even_read() {
        let hostile = Bytes::from([10, 18, 10, 16].into_iter().chain([7; 16]).collect::<Vec<u8>>().repeat(1_000_000));
        let began = std::time::Instant::now();
        assert!(unpack(&hostile).is_none());
        assert!(began.elapsed() < std::time::Duration::from_millis(200), "{:?}", began.elapsed());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = unpack(&body.into());
        }
    }
}
