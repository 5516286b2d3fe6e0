//! Messages that were published and are not confirmed yet, each with one event or a bundle of them.
//!
//! Knows the library's confirms, but no connection's life. The invariant: an event leaves the
//! flight with exactly one answer, and only an ack of a message that was not returned is a yes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _, poll};
use lapin::options::BasicPublishOptions;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::time::Instant;

use super::lanes::Lane;
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
    let confirm = channel.basic_publish(exchange.into(), routing_key.into(), options, &body, properties).await?;
    drop(body);
    confirm.await
}

/// True when the broker took the event and did not return it for want of a queue.
pub(super) fn is_safe(answer: &lapin::Result<Confirmation>) -> bool {
    matches!(answer, Ok(Confirmation::Ack(None)))
}

/// The number of a message, how many events it holds, and the answer.
type Landing = (u64, usize, lapin::Result<Confirmation>);

/// One message on its way.
struct Aloft {
    lane: Lane,
    /// Of its events, the first first.
    tickets: Vec<Ticket>,
}

impl Aloft {
    fn deadline(&self) -> Option<Instant> {
        self.tickets.first().map(Ticket::deadline)
    }
}

/// The messages in flight on one channel.
pub(super) struct Flight {
    channel: Channel,
    unanswered: FuturesUnordered<BoxFuture<'static, Landing>>,
    /// Events of those, given up or not.
    unanswered_events: usize,
    /// By number, so by age, but for what waited for a bundle.
    aloft: BTreeMap<u64, Aloft>,
    /// Their events.
    events: usize,
    /// Lanes of messages that are on their way no longer, until somebody asks.
    landed: Vec<Lane>,
    next: u64,
    last_sign: Instant,
}

/// Why a connection is of no more use.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

impl Flight {
    pub(super) fn new(channel: Channel) -> Self {
        let (unanswered, aloft) = (FuturesUnordered::new(), BTreeMap::new());
        let (landed, last_sign) = (Vec::new(), Instant::now());
        Self { channel, unanswered, unanswered_events: 0, aloft, events: 0, landed, next: 0, last_sign }
    }

    /// True when nobody waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.aloft.is_empty()
    }

    /// The lanes of the messages that were answered, or given up, since this was asked last.
    pub(super) fn landed(&mut self) -> Vec<Lane> {
        std::mem::take(&mut self.landed)
    }

    /// True when no answer is to come, not even one that is too late.
    pub(super) fn is_idle(&self) -> bool {
        self.unanswered.is_empty()
    }

    /// How many events wait for an answer.
    pub(super) fn len(&self) -> usize {
        self.events
    }

    /// Hands a message to the connection; never waits.
    pub(super) async fn launch(&mut self, lane: Lane, parcel: Parcel, tickets: Vec<Ticket>) -> Result<(), Lost> {
        if self.unanswered.is_empty() {
            self.last_sign = Instant::now();
        }
        let (number, events) = (self.next, tickets.len());
        self.next += 1;
        self.events += events;
        self.aloft.insert(number, Aloft { lane, tickets });
        let mut publishing = publish(self.channel.clone(), parcel).map(move |answer| (number, events, answer)).boxed();
        match poll!(&mut publishing) {
            std::task::Poll::Ready(landing) => self.settle(vec![landing]),
            std::task::Poll::Pending => {
                self.unanswered_events += events;
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
        self.unanswered_events -= landings.iter().map(|(_, events, _)| events).sum::<usize>();
        self.settle(landings)
    }

    /// The library hands a returned message to whichever confirm it resolves next, so one return
    /// puts all answers of the moment in doubt; it also says that a queue is gone, which only a new
    /// declaration repairs. Hence: none of them is a yes, and the connection is given up.
    fn settle(&mut self, landings: Vec<Landing>) -> Result<(), Lost> {
        self.last_sign = Instant::now();
        let returned =
            |(_, _, answer): &Landing| matches!(answer, Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))));
        if landings.iter().any(returned) {
            return Err(Lost("an event was returned: no queue is bound to its routing key".to_owned()));
        }
        for (number, _, answer) in landings {
            // Without tickets it was answered before: too late.
            let tickets = self.take(number);
            match answer {
                Ok(Confirmation::Ack(_)) => tickets.into_iter().for_each(Ticket::confirm),
                Ok(_) => tracing::warn!("the broker did not take a message"),
                Err(error) => return Err(Lost(error.to_string())),
            }
        }
        Ok(())
    }

    /// A message's tickets, if nobody has had them yet.
    fn take(&mut self, number: u64) -> Vec<Ticket> {
        let Some(Aloft { lane, tickets }) = self.aloft.remove(&number) else { return Vec::new() };
        self.events -= tickets.len();
        self.landed.push(lane);
        tickets
    }

    /// When the oldest unanswered event is too late.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.aloft.first_key_value().and_then(|(_, aloft)| aloft.deadline())
    }

    /// Answers those that are too late. An error when the broker gave no sign for as long, unless it
    /// said that it is `blocked`.
    pub(super) fn sweep(&mut self, blocked: bool) -> Result<(), Lost> {
        let now = Instant::now();
        let mut late = 0;
        while let Some((number, oldest)) = self.aloft.first_key_value()
            && oldest.deadline().is_none_or(|deadline| deadline <= now)
        {
            let number = *number;
            late += self.take(number).len();
        }
        if late == 0 {
            return Ok(());
        }
        tracing::warn!(late, blocked, "events were not confirmed in time");
        let silent: Duration = now.duration_since(self.last_sign);
        if self.unanswered_events >= OUTSTANDING_LIMIT || (silent >= CONFIRM_LIMIT && !blocked) {
            return Err(Lost(format!("no confirm for {} ms", silent.as_millis())));
        }
        Ok(())
    }
}
