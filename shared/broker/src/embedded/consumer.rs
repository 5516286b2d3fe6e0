//! Receives events from memory and settles them through the writer.
//!
//! The invariant: what was received and not settled goes back in front of everything newer when the
//! consumer ends, however it ends; of what it waits for then, once it is known that it was not settled.

use std::collections::BTreeMap;
use std::sync::Arc;

use runtime::Clock;
use tokio::sync::{mpsc, oneshot};

use super::doubt::Pending;
use super::file::{Dead, Delayed};
use super::lanes::{Event, Lane};
use super::writer::Order;
use super::{LOOK_EVERY, Shared};
use crate::consumer::Origin;
use crate::turn::Turn;
use crate::{ASK_LIMIT, BrokerError, Failure, Incoming, Settlement, letter, settle, within};

/// Receives the events of the one shard of an embedded broker.
pub(crate) struct ShardConsumer {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    clock: Clock,
    held: BTreeMap<i64, Event>,
    pending: Option<Pending>,
    stopping: bool,
    _turn: Turn,
}

impl ShardConsumer {
    pub(super) fn new(shared: Arc<Shared>, orders: mpsc::Sender<Order>, turn: Turn) -> Self {
        let (held, clock) = (BTreeMap::new(), Clock::system());
        Self { shared, orders, clock, held, pending: None, stopping: false, _turn: turn }
    }

    pub(crate) async fn next_batch(&mut self, max_events: usize) -> Result<Vec<Incoming>, BrokerError> {
        loop {
            if self.shared.is_ended() {
                return Err(BrokerError::Unavailable("the embedded broker was closed".to_owned()));
            }
            if self.stopping {
                return Ok(Vec::new());
            }
            if self.shared.room.is_none() {
                // What is taken could not be stored, and what is half done would be in the way of the rest.
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            let (taken, wanted) = {
                let mut lanes = self.shared.lanes.lock();
                (lanes.take(max_events), lanes.wanted().is_some())
            };
            if wanted {
                self.shared.wanted.notify_one();
            }
            if !taken.is_empty() {
                return Ok(taken.into_iter().filter_map(|event| self.hold(event)).collect());
            }
            self.shared.arrived.notified().await;
        }
    }

    fn hold(&mut self, event: Event) -> Option<Incoming> {
        let incoming = Incoming {
            envelope: event.envelope.clone(),
            class: Lane::at(event.place)?.class(),
            failures: event.failures,
            first_failed_at: event.first_failed_at,
            redelivered: event.redelivered,
            origin: Origin::Embedded { position: event.place },
        };
        self.held.insert(event.place, event);
        Some(incoming)
    }

    pub(crate) async fn settle(&mut self, batch: Vec<(Incoming, Settlement)>) -> Result<(), BrokerError> {
        let mut order = Order::default();
        for (incoming, settlement) in batch {
            let Origin::Embedded { position } = incoming.origin else { continue };
            order.settled.push(position);
            if let Settlement::Failed(failure) = settlement {
                self.fail(incoming, &failure, position, &mut order);
            }
        }
        let settled = order.settled.clone();
        // A plain ack need not be on disk: after a crash the event is received again, no more.
        let must_wait = !(order.delayed.is_empty() && order.dead.is_empty());
        self.pending = must_wait.then(|| {
            let (done, written) = oneshot::channel();
            order.done = Some(done);
            Pending { places: settled.clone(), written }
        });
        let lost = || BrokerError::Unavailable("the embedded broker cannot write".to_owned());
        within(ASK_LIMIT, async {
            self.orders.send(order).await.map_err(|_| lost())?;
            match &mut self.pending {
                Some(pending) => (&mut pending.written).await.map_err(|_| lost()),
                None => Ok(()),
            }
        })
        .await?;
        self.pending = None;
        for event in settled.iter().filter_map(|position| self.held.remove(position)) {
            self.shared.room.settle(event.envelope.body.len() as u64);
        }
        Ok(())
    }

    /// Makes of an event that failed its next attempt, or a dead letter.
    fn fail(&self, incoming: Incoming, failure: &Failure, place: i64, order: &mut Order) {
        let Some(lane) = Lane::at(place) else { return };
        if let Some(step) = settle::next_step(&incoming, failure) {
            order.delayed.push(Delayed {
                ready_at: self.clock.now().plus(step.delay),
                lane,
                failures: settle::failures(&incoming, failure),
                first_failed_at: Some(letter::first_failed_at(&incoming, failure)),
                envelope: incoming.envelope,
            });
        } else {
            let key = lane.class().as_str();
            let headers = letter::dead_headers(&incoming, failure, &format!("chat.events.{key}"), key);
            let headers = serde_json::to_string(&headers).expect("a map of strings is JSON");
            order.dead.push(Dead { lane, headers, envelope: incoming.envelope });
        }
    }

    /// Nothing was delivered ahead of asking, so there is nothing to drain.
    pub(crate) fn begin_stop(&mut self) {
        self.stopping = true;
    }
}

impl Drop for ShardConsumer {
    fn drop(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        if let Some(pending) = self.pending.take() {
            for event in self.shared.doubt.give_up(pending, &mut held) {
                self.shared.room.settle(event.envelope.body.len() as u64);
            }
        }
        self.shared.lanes.lock().give_back(held.into_values().collect());
    }
}

#[cfg(test)]
mod tests {
    use domain::Class;
    use protocol::UnverifiedEnvelope;
    use runtime::disk::Space;
    use tokio::time::timeout;

    use super::*;
    use crate::turn::Turns;

    #[tokio::test]
    async fn while_there_is_no_room_to_store_anything_nothing_is_handed_out() {
        let (shared, (orders, _received)) = (Arc::<Shared>::default(), mpsc::channel(1));
        let turn = Turns::new(1).take(0, ASK_LIMIT).await.expect("free");
        let mut consumer = ShardConsumer::new(Arc::clone(&shared), orders, turn);
        let (place, envelope) = (Lane::of(Class::High, 8).place(1), UnverifiedEnvelope::default());
        let event = Event { place, envelope, failures: 0, first_failed_at: None, redelivered: false };
        shared.lanes.lock().append(event);
        let space = |free_bytes| Some(Space { free_bytes, log_bytes: 0 });
        shared.room.note(space(1024));
        assert!(timeout(3 * LOOK_EVERY, consumer.next_batch(10)).await.is_err());
        shared.room.note(space(8 * 1024 * 1024));
        let batch = timeout(testkit::PATIENCE, consumer.next_batch(10)).await.expect("in time").expect("open");
        assert_eq!(batch.len(), 1, "what was taken before is stored with the little there is");
    }
}
