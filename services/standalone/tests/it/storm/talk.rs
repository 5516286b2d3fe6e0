//! The part of a client that says something from time to time and does not give up.
//!
//! One message at a time: the next one only after the ack of the one before. The invariant: a message
//! goes out under one name until it is acked `QUEUED`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::Connection;
use tokio::time::Instant;

use super::book::Book;
use crate::scene::Sent;

/// How long an ack may take before the message is sent again.
const ACK_LIMIT: Duration = Duration::from_secs(10);

/// Somebody who talks.
pub(crate) struct Talk {
    number: usize,
    room: String,
    every: Duration,
    said: usize,
    /// When to send next: the message in hand again, or a new one.
    due: Instant,
    in_hand: Option<InHand>,
}

struct InHand {
    name: String,
    /// The id under which it was sent on this connection.
    frame: Option<i64>,
}

impl Talk {
    /// Client `number` talks in `room`, not all at the same moment.
    pub(crate) fn new(number: usize, room: &str, every: Duration) -> Self {
        let due = Instant::now() + every.mul_f64(number as f64 * 0.618 % 1.0);
        Self { number, room: room.to_owned(), every, said: 0, due, in_hand: None }
    }

    /// When it wants to send next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// A new connection: what was not acked is sent again.
    pub(crate) fn connected(&mut self) {
        if let Some(in_hand) = &mut self.in_hand {
            in_hand.frame = None;
            self.due = Instant::now();
        }
    }

    /// Sends what is due.
    pub(crate) async fn speak(&mut self, connection: &mut Connection, book: &Book) {
        if Instant::now() < self.due {
            return;
        }
        if self.in_hand.is_none() && !book.is_talking.load(Ordering::SeqCst) {
            self.due = Instant::now() + self.every;
            return;
        }
        let (number, said) = (self.number, &mut self.said);
        let in_hand = self.in_hand.get_or_insert_with(|| {
            *said += 1;
            book.in_hand.fetch_add(1, Ordering::SeqCst);
            InHand { name: format!("{number} {said}"), frame: None }
        });
        let content = format!("this is {}", in_hand.name);
        let data = json!({"roomId": self.room, "content": content, "clientMsgId": in_hand.name});
        in_hand.frame = Some(connection.send("message.send", &data).await);
        self.due = Instant::now() + ACK_LIMIT;
    }

    /// Looks at an ack; true when it was for a message of this one.
    pub(crate) fn acked(&mut self, id: i64, ack: &Value, book: &Book) -> bool {
        let Some(in_hand) = self.in_hand.take_if(|in_hand| in_hand.frame == Some(id)) else { return false };
        if ack["status"] == "QUEUED" {
            let message_id = ack["messageId"].as_str().unwrap_or_default().to_owned();
            book.in_hand.fetch_sub(1, Ordering::SeqCst);
            book.sent(&self.room, Sent { name: in_hand.name, message_id });
            self.due = Instant::now() + self.every;
            return true;
        }
        let code = ack["code"].as_str().unwrap_or_default();
        book.count(format!("message refused with {code}"));
        if !matches!(code, "UNAVAILABLE" | "OVERLOADED") {
            book.wrong(&format!("{} was refused: {ack}", in_hand.name));
        }
        self.in_hand = Some(InHand { frame: None, ..in_hand });
        self.due = Instant::now() + Duration::from_millis(ack["retryAfterMs"].as_u64().unwrap_or(1000));
        true
    }
}
