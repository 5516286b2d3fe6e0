//! Envelopes as AMQP properties and headers, and back.
//!
//! Knows no connection. The invariant: whatever the broker delivers becomes an `Incoming`, however
//! strange; and a copy carries only what is listed here, so that no foreign property (an expiry, a
//! user id) makes the broker refuse or drop it.

use std::collections::BTreeMap;

use bytes::Bytes;
use domain::{Class, Timestamp};
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use protocol::{SignedEnvelope, UnverifiedEnvelope, bundle};

use crate::consumer::Origin;
use crate::{Failure, Incoming, letter, settle};

const PERSISTENT: u8 = 2;
const SIGNATURE: &str = "x-signature";
const TRACEPARENT: &str = "traceparent";
/// How many events a bundle has; for operators.
const COUNT: &str = "x-count";
/// Bytes of an AMQP short string.
const SHORT_BYTES: usize = 255;
/// Bytes that a copied header may have; ours have at most 64.
const HEADER_BYTES: usize = 1024;

/// The properties of a new event.
pub fn of_new(envelope: &SignedEnvelope, app_id: &str) -> BasicProperties {
    let mut headers = signed_headers(&envelope.signature, &envelope.key_id, envelope.traceparent.as_deref());
    headers.insert(letter::ATTEMPT.into(), AMQPValue::LongInt(0));
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&envelope.job_id.to_string()))
        .with_type(short(envelope.kind.as_str()))
        .with_timestamp(envelope.timestamp_s)
        .with_priority(envelope.kind.priority())
        .with_content_type(short(protocol::envelope::CONTENT_TYPE))
        .with_app_id(short(app_id))
        .with_headers(headers);
    match &envelope.correlation_id {
        Some(id) => properties.with_correlation_id(short(id)),
        None => properties,
    }
}

/// The properties and the body of one message with these events: a bundle, unless it is one alone.
pub(super) fn of_message(mut envelopes: Vec<SignedEnvelope>, priority: u8, app_id: &str) -> (BasicProperties, Bytes) {
    if envelopes.len() == 1
        && let Some(only) = envelopes.pop()
    {
        return (of_new(&only, app_id), only.body);
    }
    let mut headers = FieldTable::default();
    headers.insert(letter::ATTEMPT.into(), AMQPValue::LongInt(0));
    headers.insert(COUNT.into(), AMQPValue::LongInt(i32::try_from(envelopes.len()).unwrap_or(i32::MAX)));
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_type(short(bundle::TYPE))
        .with_timestamp(envelopes.first().map_or(0, |first| first.timestamp_s))
        .with_priority(priority)
        .with_content_type(short(protocol::envelope::CONTENT_TYPE))
        .with_app_id(short(app_id))
        .with_headers(headers);
    (properties, bundle::pack(envelopes))
}

/// The events of a message as a processor receives them; one that calls itself a bundle and is none is a single
/// event that nobody can read.
pub(super) fn all_incoming(class: Class, delivery: Delivery) -> Vec<Incoming> {
    let whole = incoming(class, delivery);
    if whole.envelope.kind != bundle::TYPE {
        return vec![whole];
    }
    let Some(envelopes) = bundle::unpack(&whole.envelope.body) else { return vec![whole] };
    let Incoming { class, failures, first_failed_at, redelivered, origin, .. } = whole;
    let part = |envelope| Incoming { envelope, class, failures, first_failed_at, redelivered, origin: origin.clone() };
    envelopes.into_iter().map(part).collect()
}

/// A message as one event.
pub fn incoming(class: Class, delivery: Delivery) -> Incoming {
    let properties = delivery.properties;
    let headers = properties.headers().as_ref();
    let text = |name| headers.and_then(|table| table.inner().get(name)).and_then(as_text);
    let own = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
    let failures = headers.and_then(|table| table.inner().get(letter::ATTEMPT)).map_or(0, as_count);
    // Of a dead letter that was moved back, too, which counts no failures: it lost its place all the same.
    let first_failed_at = text(letter::FIRST_FAILED_AT);
    Incoming {
        envelope: UnverifiedEnvelope {
            job_id: own(properties.message_id()).unwrap_or_default(),
            kind: own(properties.kind()).unwrap_or_default(),
            correlation_id: own(properties.correlation_id()),
            timestamp_s: properties.timestamp().unwrap_or_default(),
            key_id: text(letter::KEY_ID).unwrap_or_default(),
            signature: text(SIGNATURE).unwrap_or_default(),
            traceparent: text(TRACEPARENT),
            body: delivery.data.into(),
        },
        class,
        failures,
        first_failed_at: first_failed_at.as_deref().and_then(Timestamp::parse_rfc3339),
        redelivered: delivery.redelivered,
        origin: Origin::RabbitMq {
            tag: delivery.delivery_tag,
            priority: *properties.priority(),
            content_type: properties.content_type().clone(),
            app_id: properties.app_id().clone(),
        },
    }
}

/// The properties of an event's next attempt.
pub(super) fn of_retry(incoming: &Incoming, failure: &Failure) -> BasicProperties {
    let attempt = i32::try_from(settle::failures(incoming, failure)).unwrap_or(i32::MAX);
    let mut headers = kept_headers(incoming);
    headers.insert(letter::ATTEMPT.into(), AMQPValue::LongInt(attempt));
    for (name, value) in letter::retry_headers(incoming, failure) {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    kept_properties(incoming).with_headers(headers)
}

/// The properties of a dead letter. No `x-attempt`: moved back, its attempts start anew.
pub(super) fn of_dead_letter(
    incoming: &Incoming,
    failure: &Failure,
    queue: &str,
    routing_key: &str,
) -> BasicProperties {
    let mut headers = kept_headers(incoming);
    for (name, value) in letter::dead_headers(incoming, failure, queue, routing_key) {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    kept_properties(incoming).with_headers(headers)
}

/// The properties of a dead letter's event that is to be processed again, as when it was new, but for when
/// it first failed.
pub(super) fn of_replay(incoming: &Incoming) -> BasicProperties {
    let mut headers = kept_headers(incoming);
    headers.insert(letter::ATTEMPT.into(), AMQPValue::LongInt(0));
    if let Some(at) = incoming.first_failed_at {
        headers.insert(letter::FIRST_FAILED_AT.into(), AMQPValue::LongString(at.to_rfc3339().into()));
    }
    kept_properties(incoming).with_headers(headers)
}

/// All headers that have a plain form.
pub(super) fn readable(properties: &BasicProperties) -> BTreeMap<String, String> {
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), as_text(value)?))).collect()
}

/// One header in its plain form.
pub(super) fn text(properties: &BasicProperties, name: &str) -> Option<String> {
    properties.headers().as_ref().and_then(|table| table.inner().get(name)).and_then(as_text)
}

/// A header as text for people; `None` for what has no plain form.
fn as_text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.as_str().to_owned()),
        AMQPValue::Boolean(value) => Some(value.to_string()),
        other => as_integer(other).map(|number| number.to_string()),
    }
}

fn as_integer(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::ShortShortInt(number) => Some((*number).into()),
        AMQPValue::ShortShortUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => Some((*number).into()),
        AMQPValue::ShortUInt(number) => Some((*number).into()),
        AMQPValue::LongInt(number) => Some((*number).into()),
        AMQPValue::LongUInt(number) => Some((*number).into()),
        AMQPValue::LongLongInt(number) => Some(*number),
        AMQPValue::Timestamp(number) => i64::try_from(*number).ok(),
        _ => None,
    }
}

/// More failures than any ladder has steps; a header may claim anything, since it is not signed.
const FAILURES_MOST: u32 = 1000;

/// A count of failures, from whatever type a tool gave it.
fn as_count(value: &AMQPValue) -> u32 {
    let number = as_integer(value).or_else(|| as_text(value)?.trim().parse().ok()).unwrap_or(0);
    u32::try_from(number.max(0)).unwrap_or(FAILURES_MOST).min(FAILURES_MOST)
}

fn kept_properties(incoming: &Incoming) -> BasicProperties {
    let envelope = &incoming.envelope;
    let mut properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short(&envelope.job_id))
        .with_type(short(&envelope.kind))
        .with_timestamp(envelope.timestamp_s);
    if let Some(id) = &envelope.correlation_id {
        properties = properties.with_correlation_id(short(id));
    }
    if let Origin::RabbitMq { priority, content_type, app_id, .. } = &incoming.origin {
        if let Some(priority) = priority {
            properties = properties.with_priority(*priority);
        }
        if let Some(content_type) = content_type {
            properties = properties.with_content_type(content_type.clone());
        }
        if let Some(app_id) = app_id {
            properties = properties.with_app_id(app_id.clone());
        }
    }
    properties
}

fn kept_headers(incoming: &Incoming) -> FieldTable {
    let envelope = &incoming.envelope;
    signed_headers(&envelope.signature, &envelope.key_id, envelope.traceparent.as_deref())
}

fn signed_headers(signature: &str, key_id: &str, traceparent: Option<&str>) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in [(SIGNATURE, Some(signature)), (letter::KEY_ID, Some(key_id)), (TRACEPARENT, traceparent)] {
        if let Some(value) = value {
            let value = letter::truncated(value, HEADER_BYTES);
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
    }
    headers
}

/// An AMQP short string; ours are far shorter than its limit.
fn short(text: &str) -> ShortString {
    ShortString::try_new(letter::truncated(text, SHORT_BYTES)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeadLetterNote;
    use crate::publish::tests::envelope;
    use domain::{Cause, EventKind};

    fn delivered(properties: BasicProperties) -> Incoming {
        let mut delivery = Delivery::mock(5, "chat.events".into(), "high".into(), false, b"body".to_vec());
        delivery.properties = properties;
        incoming(Class::High, delivery)
    }

    fn failure() -> Failure {
        let note = DeadLetterNote { rendering: "{}".into(), ..Default::default() };
        Failure { cause: Cause::StoreRejected, error: "no".into(), at: Timestamp(1_000), counts: true, note }
    }

    fn header(properties: &BasicProperties, name: &str) -> Option<String> {
        properties.headers().as_ref().and_then(|table| table.inner().get(name)).and_then(as_text)
    }

    #[test]
    fn an_event_comes_out_as_it_went_in() {
        let mut sent = envelope(EventKind::MessageSend, 9);
        sent.traceparent = Some("00-a-b-01".into());
        let properties = of_new(&sent, "gateway");
        assert_eq!(*properties.priority(), Some(8));
        assert_eq!(header(&properties, "x-attempt").as_deref(), Some("0"));
        let received = delivered(properties);
        assert_eq!(format!("{:?}", received.envelope), format!("{:?}", sent.to_unverified()));
        assert_eq!((received.failures, received.first_failed_at), (0, None));
    }

    #[test]
    fn a_bundle_comes_out_as_its_events_and_what_fails_of_them_is_a_message_of_its_own() {
        let events: Vec<SignedEnvelope> = (1..=3).map(|number| envelope(EventKind::MessageSend, number)).collect();
        let (properties, body) = of_message(events.clone(), 8, "gateway");
        assert_eq!(header(&properties, "x-count").as_deref(), Some("3"));
        assert_eq!(
            (*properties.priority(), properties.kind().as_ref().map(ShortString::as_str)),
            (Some(8), Some("bundle"))
        );
        let mut delivery = Delivery::mock(5, "chat.events".into(), "high".into(), true, body.to_vec());
        delivery.properties = properties;
        let received = all_incoming(Class::High, delivery);
        for (sent, received) in events.iter().zip(&received) {
            assert_eq!(format!("{:?}", received.envelope), format!("{:?}", sent.to_unverified()));
            assert!(received.redelivered);
        }
        assert_eq!(received.len(), 3);
        let retry = delivered(of_retry(&received[1], &failure()));
        assert_eq!((retry.failures, retry.envelope.job_id.as_str()), (1, received[1].envelope.job_id.as_str()));
        assert_eq!(retry.envelope.kind, "message.send");
    }

    #[test]
    fn one_event_alone_is_no_bundle_and_what_only_calls_itself_one_is_one_event() {
        let one = envelope(EventKind::MessageSend, 1);
        let (properties, _) = of_message(vec![one.clone()], 8, "gateway");
        assert_eq!(format!("{properties:?}"), format!("{:?}", of_new(&one, "gateway")));
        let mut delivery = Delivery::mock(5, "chat.events".into(), "high".into(), false, b"no bundle".to_vec());
        delivery.properties = BasicProperties::default().with_type("bundle".into());
        let received = all_incoming(Class::High, delivery);
        assert_eq!((received.len(), received[0].envelope.kind.as_str()), (1, "bundle"));
    }

    #[test]
    fn a_retry_counts_and_keeps_all_that_matters() {
        let first = delivered(of_new(&envelope(EventKind::MessageSend, 9), "gateway"));
        let second = delivered(of_retry(&first, &failure()));
        assert_eq!((second.failures, second.first_failed_at), (1, Some(Timestamp(1_000))));
        assert_eq!(format!("{:?}", second.envelope), format!("{:?}", first.envelope));
        let later = Failure { at: Timestamp(9_000), ..failure() };
        let copy = of_retry(&second, &later);
        assert_eq!(*copy.priority(), Some(8));
        assert_eq!(copy.app_id().as_ref().map(ShortString::as_str), Some("gateway"));
        assert_eq!(header(&copy, "x-attempt").as_deref(), Some("2"));
        assert_eq!(header(&copy, "x-first-failed-at").as_deref(), Some("1970-01-01T00:00:01.000Z"));
    }

    #[test]
    fn a_dead_letter_that_is_moved_back_counts_anew_and_still_says_when_it_lost_its_place() {
        let first = delivered(of_new(&envelope(EventKind::MessageSend, 9), "gateway"));
        let second = delivered(of_retry(&first, &failure()));
        let letter = of_dead_letter(&second, &failure(), "chat.events.high", "high");
        assert_eq!(header(&letter, "x-attempts-made").as_deref(), Some("2"));
        let moved_back = delivered(letter);
        assert_eq!((moved_back.failures, moved_back.first_failed_at), (0, Some(Timestamp(1_000))));
        let replayed = delivered(of_replay(&moved_back));
        assert_eq!((replayed.failures, replayed.first_failed_at), (0, Some(Timestamp(1_000))));
        assert_eq!(format!("{:?}", moved_back.envelope), format!("{:?}", first.envelope));
    }

    #[test]
    fn strange_messages_become_empty_envelopes_and_their_copies_drop_what_could_hurt() {
        let mut headers = FieldTable::default();
        headers.insert("x-attempt".into(), AMQPValue::LongString("not a number".into()));
        headers.insert("x-signature".into(), AMQPValue::Boolean(true));
        headers.insert("x-key-id".into(), AMQPValue::Void);
        headers.insert("x-first-failed-at".into(), AMQPValue::Double(1.0));
        headers.insert("CC".into(), AMQPValue::LongString("elsewhere".into()));
        let strange = BasicProperties::default()
            .with_headers(headers)
            .with_user_id("somebody".into())
            .with_expiration("1".into());
        let received = delivered(strange);
        assert_eq!((received.envelope.job_id.as_str(), received.envelope.kind.as_str()), ("", ""));
        assert_eq!((received.failures, received.envelope.signature.as_str()), (0, "true"));
        let copy = of_dead_letter(&received, &failure(), "q", "k");
        assert!(copy.user_id().is_none() && copy.expiration().is_none() && header(&copy, "CC").is_none());
        assert!(delivered(BasicProperties::default()).envelope.key_id.is_empty());
    }

    #[test]
    fn attempts_are_read_from_any_kind_of_number() {
        let counts = [
            (AMQPValue::LongLongInt(3), 3),
            (AMQPValue::ShortShortUInt(2), 2),
            (AMQPValue::LongString(" 2 ".into()), 2),
            (AMQPValue::LongInt(-1), 0),
            (AMQPValue::LongLongInt(i64::MAX), FAILURES_MOST),
            (AMQPValue::Void, 0),
        ];
        for (value, count) in counts {
            assert_eq!(as_count(&value), count, "{value:?}");
        }
    }

    #[test]
    fn over_long_names_are_cut_between_characters() {
        assert_eq!(short(&"ä".repeat(200)).as_str().len(), 254);
    }
}
