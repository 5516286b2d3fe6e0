//! What retries and dead letters carry beside the event: plain headers that people can read.
//!
//! The same on both engines. The invariant: every header is short enough that all of them together
//! fit into one AMQP frame (128 KiB), whatever the event held; a copy that the broker refuses would
//! come back for ever.

use std::collections::BTreeMap;

use domain::Timestamp;

use crate::{Failure, Incoming};

/// Bytes of a readable body; a message's content is at most 16 KiB, as JSON about twice that.
const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// Bytes of any other header.
const TEXT_LIMIT_BYTES: usize = 1024;

/// The key that signed the event.
pub(crate) const KEY_ID: &str = "x-key-id";
/// How often the event failed so far; 0 for one that did not.
pub(crate) const ATTEMPT: &str = "x-attempt";
/// Why it failed last.
pub(crate) const CAUSE: &str = "x-cause";
/// Where it was received from.
pub(crate) const ORIGINAL_ROUTING_KEY: &str = "x-original-routing-key";
/// When it first failed.
pub(crate) const FIRST_FAILED_AT: &str = "x-first-failed-at";

/// The headers of an event's next attempt.
pub(crate) fn retry_headers(incoming: &Incoming, failure: &Failure) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        (FIRST_FAILED_AT, first_failed_at(incoming, failure).to_rfc3339()),
        (CAUSE, failure.cause.as_str().to_owned()),
        ("x-error", truncated(&failure.error, TEXT_LIMIT_BYTES)),
    ])
}

/// The headers of a dead letter.
pub(crate) fn dead_headers(
    incoming: &Incoming,
    failure: &Failure,
    queue: &str,
    routing_key: &str,
) -> BTreeMap<&'static str, String> {
    let mut headers = retry_headers(incoming, failure);
    headers.extend([
        ("x-kind", failure.cause.kind().as_str().to_owned()),
        ("x-event", truncated(&incoming.envelope.kind, TEXT_LIMIT_BYTES)),
        ("x-body", truncated(&failure.note.rendering, BODY_LIMIT_BYTES)),
        ("x-last-failed-at", failure.at.to_rfc3339()),
        ("x-original-queue", queue.to_owned()),
        (ORIGINAL_ROUTING_KEY, routing_key.to_owned()),
        ("x-attempts-made", incoming.failures.saturating_add(1).to_string()),
    ]);
    headers.extend(failure.note.sender.as_deref().map(|sender| ("x-sender", truncated(sender, TEXT_LIMIT_BYTES))));
    headers.extend(failure.note.room.as_deref().map(|room| ("x-room", truncated(room, TEXT_LIMIT_BYTES))));
    headers
}

/// When the event first failed, this failure included.
pub(crate) fn first_failed_at(incoming: &Incoming, failure: &Failure) -> Timestamp {
    incoming.first_failed_at.unwrap_or(failure.at)
}

/// At most `limit` bytes of `text`, cut between characters.
pub(crate) fn truncated(text: &str, limit: usize) -> String {
    text[..text.floor_char_boundary(limit)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeadLetterNote;
    use crate::consumer::Origin;
    use domain::{Cause, Class};
    use protocol::UnverifiedEnvelope;

    #[test]
    fn a_dead_letter_says_who_what_where_and_why_within_its_limits() {
        let incoming = Incoming {
            envelope: UnverifiedEnvelope { kind: "message.send".into(), ..Default::default() },
            class: Class::High,
            failures: 3,
            first_failed_at: Some(Timestamp(0)),
            redelivered: false,
            origin: Origin::Embedded { position: 1 },
        };
        let note = DeadLetterNote { sender: Some("u".into()), room: None, rendering: "ä".repeat(40_000) };
        let failure =
            Failure { cause: Cause::StoreRejected, error: "e".repeat(9_999), at: Timestamp(1_000), counts: true, note };
        let headers = dead_headers(&incoming, &failure, "chat.events.high", "high");
        assert_eq!(headers["x-first-failed-at"], "1970-01-01T00:00:00.000Z");
        assert_eq!(headers["x-last-failed-at"], "1970-01-01T00:00:01.000Z");
        assert_eq!(headers["x-attempts-made"], "4");
        assert_eq!((&*headers["x-cause"], &*headers["x-kind"]), ("store_rejected", "retry"));
        assert_eq!(headers["x-sender"], "u");
        assert!(!headers.contains_key("x-room") && !headers.contains_key(ATTEMPT));
        assert!(headers.values().map(String::len).sum::<usize>() < 100_000);
    }
}
