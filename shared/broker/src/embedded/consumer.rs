//! Receives events from memory and settles them through the writer.
//!
//! The invariant: what was received and not settled goes back in front of everything newer when the
//! consumer ends, however it ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use runtime::Clock;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::file::{Dead, Delayed};
use super::lanes::{Event, Lane};
use super::writer::Order;
use crate::consumer::Origin;
use crate::turn::Turn;
use crate::{ASK_LIMIT, BrokerError, Failure, Incoming, Settlement, letter, settle, within};

/// Receives the events of the one shard of an embedded broker.
pub(crate) struct ShardConsumer {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    clock: Clock,
    held: BTreeMap<i64, Event>,
    stopping: bool,
    _turn: Turn,
}

impl ShardConsumer {
    pub(super) fn new(shared: Arc<Shared>, orders: mpsc::Sender<Order>, turn: Turn) -> Self {
        let (held, clock) = (BTreeMap::new(), Clock::system());
        Self { shared, orders, clock, held, stopping: false, _turn: turn }
    }

    pub(crate) async fn next_batch(&mut self, max_events: usize) -> Result<Vec<Incoming>, BrokerError> {
        loop {
            if self.shared.is_ended() {
                return Err(BrokerError::Unavailable("the embedded broker was closed".to_owned()));
            }
            if self.stopping {
                return Ok(Vec::new());
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
        let written = must_wait.then(|| {
            let (done, written) = oneshot::channel();
            order.done = Some(done);
            written
        });
        let lost = || BrokerError::Unavailable("the embedded broker cannot write".to_owned());
        within(ASK_LIMIT, async {
            self.orders.send(order).await.map_err(|_| lost())?;
            match written {
                Some(written) => written.await.map_err(|_| lost()),
                None => Ok(()),
            }
        })
        .await?;
        for position in settled {
            self.held.remove(&position);
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
                failures: incoming.failures.saturating_add(1),
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
        let held = std::mem::take(&mut self.held);
        self.shared.lanes.lock().give_back(held.into_values().collect());
    }
}
