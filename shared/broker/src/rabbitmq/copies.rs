//! Publishes what becomes of failed events: retries and dead letters.
//!
//! Knows nothing of consuming, which has a connection of its own: during a resource alarm the broker
//! reads nothing more from a connection that published, acks included. The invariant: a copy counts
//! as safe only by its own confirm, and nobody waits for a connection that the broker blocks.

use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::StreamExt as _;
use lapin::options::ConfirmSelectOptions;
use lapin::uri::AMQPUri;
use lapin::{Channel, Event};
use tokio::sync::Mutex;

use super::flight::{Parcel, is_safe, publish};
use super::link::{Link, asked, close_channel};
use super::topology::Topology;
use crate::{ASK_LIMIT, BrokerError, within};

/// The connection for copies, shared by all consumers; made when the first event fails.
pub(super) struct Copies {
    uri: AMQPUri,
    topology: Topology,
    name: String,
    link: Mutex<Option<Arc<Link>>>,
}

impl Copies {
    pub(super) fn new(uri: AMQPUri, topology: Topology, app_id: &str) -> Self {
        Self { uri, topology, name: format!("{app_id} retrying"), link: Mutex::default() }
    }

    /// The connection; made anew when it was lost.
    async fn link(&self) -> Result<Arc<Link>, BrokerError> {
        let mut held = self.link.lock().await;
        if let Some(link) = held.as_ref().filter(|link| link.is_alive()) {
            return Ok(Arc::clone(link));
        }
        *held = None;
        let link = Link::open(&self.uri, &self.name).await?;
        self.topology.declare(&link).await?;
        Ok(Arc::clone(held.insert(Arc::new(link))))
    }

    pub(super) async fn close(&self) {
        if let Some(link) = self.link.lock().await.take() {
            link.close().await;
        }
    }
}

/// One consumer's way to publish copies: a channel of its own, for a message that the broker returns
/// puts all confirms of its channel in doubt.
pub(super) struct CopyLine {
    copies: Arc<Copies>,
    open: Option<(Arc<Link>, Channel)>,
}

impl CopyLine {
    pub(super) fn new(copies: Arc<Copies>) -> Self {
        Self { copies, open: None }
    }

    /// Publishes them all and waits for their confirms, at most 5 s and not at all while the broker
    /// blocks publishing. After an error some may have been stored.
    pub(super) async fn publish(&mut self, parcels: Vec<Parcel>) -> Result<(), BrokerError> {
        if parcels.is_empty() {
            return Ok(());
        }
        let (link, channel) = self.open().await?;
        let mut events = link.connection().events_listener();
        let blocked = async {
            while !link.is_blocked() {
                match events.next().await {
                    Some(Event::ConnectionBlocked(_)) => break,
                    Some(_) => {}
                    // The publishing itself will say that the connection ended.
                    None => std::future::pending().await,
                }
            }
            BrokerError::Unavailable("it blocks publishing (a resource alarm)".to_owned())
        };
        let publishing = async {
            let answers = join_all(parcels.into_iter().map(|parcel| publish(channel.clone(), parcel))).await;
            if answers.iter().all(is_safe) {
                return Ok(());
            }
            Err(BrokerError::Unavailable("a retry or dead letter was not confirmed".to_owned()))
        };
        let outcome = tokio::select! {
            biased;
            reason = blocked => return Err(reason),
            outcome = within(ASK_LIMIT, publishing) => outcome,
        };
        if outcome.is_err() {
            // Late answers would be taken for those of others, and a queue may be gone, which a new
            // connection declares again.
            self.open = None;
            link.cut();
        }
        outcome
    }

    async fn open(&mut self) -> Result<(Arc<Link>, Channel), BrokerError> {
        if let Some((link, channel)) = self.open.as_ref().filter(|(link, _)| link.is_alive()) {
            return Ok((Arc::clone(link), channel.clone()));
        }
        let link = self.copies.link().await?;
        if link.is_blocked() {
            return Err(BrokerError::Unavailable("it blocks publishing (a resource alarm)".to_owned()));
        }
        let channel = link.channel().await?;
        asked(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        self.open = Some((Arc::clone(&link), channel.clone()));
        Ok((link, channel))
    }

    /// Ends its channel, if the broker listens.
    pub(super) async fn close(self) {
        if let Some((link, channel)) = self.open
            && link.is_alive()
            && !link.is_blocked()
        {
            close_channel(&channel).await;
        }
    }
}
