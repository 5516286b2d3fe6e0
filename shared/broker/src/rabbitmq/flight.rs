//! Events that were published and are not confirmed yet.
//!
//! Knows the library's confirms, but no connection's life. The invariant: an event leaves the
//! flight with exactly one answer, and only an ack of an event that was not returned is a yes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, poll};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::Instant;

use crate::CONFIRM_LIMIT;
use crate::publish::{OUTSTANDING_LIMIT, Ticket};

/// Confirms handled between two looks at everything else.
const LANDING_LIMIT: usize = 1_024;

/// An event with all that publishing it takes.
pub(super) struct Parcel {
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
    pub(super) body: bytes::Bytes,
}

/// Publishes; resolves with the broker's answer. The first poll hands it over, so the order of first
/// polls is the broker's order.
pub(super) async fn publish(channel: Channel, parcel: Parcel) -> lapin::Result<Confirmation> {
    let Parcel { exchange, routing_key, properties, body } = parcel;
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    channel.basic_publish(exchange.into(), routing_key.into(), options, &body, properties).await?.await
}

/// True when the broker took the event and did not return it for want of a queue.
pub(super) fn is_safe(answer: &lapin::Result<Confirmation>) -> bool {
    matches!(answer, Ok(Confirmation::Ack(None)))
}

type Landing = (u64, lapin::Result<Confirmation>);

/// The events in flight on one channel.
pub(super) struct Flight {
    channel: Channel,
    unanswered: FuturesUnordered<BoxFuture<'static, Landing>>,
    /// By number, so by age.
    tickets: BTreeMap<u64, Ticket>,
    next: u64,
    last_sign: Instant,
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

impl Flight {
    pub(super) fn new(channel: Channel) -> Self {
        let (unanswered, tickets) = (FuturesUnordered::new(), BTreeMap::new());
        Self { channel, unanswered, tickets, next: 0, last_sign: Instant::now() }
    }

    /// True when nobody waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.is_empty()
    }

    /// True when no answer is to come, not even one that is too late.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// How many wait for an answer.
    pub(super) fn len(&self) -> usize {
        self.tickets.len()
    }

    /// Hands an event to the connection; never waits.
    pub(super) async fn launch(&mut self, parcel: Parcel, ticket: Ticket) -> Result<(), Lost> {
        if self.unanswered.is_empty() {
            self.last_sign = Instant::now();
        }
        let number = self.next;
        self.next += 1;
        self.tickets.insert(number, ticket);
        let mut publishing = publish(self.channel.clone(), parcel).map(move |answer| (number, answer)).boxed();
        match poll!(&mut publishing) {
            std::task::Poll::Ready(landing) => self.settle(vec![landing]),
            std::task::Poll::Pending => {
                self.unanswered.push(publishing);
                Ok(())
            }
        }
    }

    /// Waits for the next answer and handles it with all others that are there.
    pub(super) async fn land(&mut self) -> Result<(), Lost> {
        let mut landings: Vec<Landing> = self.unanswered.next().await.into_iter().collect();
        while landings.len() < LANDING_LIMIT
            && let Some(Some(landing)) = self.unanswered.next().now_or_never()
        {
            landings.push(landing);
        }
        self.settle(landings)
    }

    /// The library hands a returned message to whichever confirm it resolves next, so one return
    /// puts all answers of the moment in doubt; it also says that a queue is gone, which only a new
    /// declaration repairs. Hence: none of them is a yes, and the connection is given up.
    fn settle(&mut self, landings: Vec<Landing>) -> Result<(), Lost> {
        self.last_sign = Instant::now();
        let returned =
            |(_, answer): &Landing| matches!(answer, Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))));
        if landings.iter().any(returned) {
            return Err(Lost("an event was returned: no queue is bound to its routing key".to_owned()));
        }
        for (number, answer) in landings {
            // Without a ticket it was answered before: too late.
            let ticket = self.tickets.remove(&number);
            match answer {
                Ok(Confirmation::Ack(_)) => ticket.into_iter().for_each(Ticket::confirm),
                Ok(_) => tracing::warn!("the broker did not take an event"),
                Err(error) => return Err(Lost(error.to_string())),
            }
        }
        Ok(())
    }

    /// When the oldest unanswered event is too late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tickets.first_key_value().map(|(_, ticket)| ticket.deadline())
    }

    /// Answers those that are too late. An error when the broker gave no sign for as long, unless it
    /// said that it is `blocked`.
    pub(super) fn sweep(&mut self, blocked: bool) -> Result<(), Lost> {
        let now = Instant::now();
        let mut late = 0_u64;
        while let Some(oldest) = self.tickets.first_entry()
            && oldest.get().deadline() <= now
        {
            drop(oldest.remove());
            late += 1;
        }
        if late == 0 {
            return Ok(());
        }
        tracing::warn!(late, blocked, "events were not confirmed in time");
        let silent: Duration = now.duration_since(self.last_sign);
        if self.unanswered.len() >= OUTSTANDING_LIMIT || (silent >= CONFIRM_LIMIT && !blocked) {
            return Err(Lost(format!("no confirm for {} ms", silent.as_millis())));
        }
        Ok(())
    }
}
