//! One engine, alone in its world, and short words for what the tests say often.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use broker::{
    Broker, BrokerError, BrokerSettings, Consumer, DeadLetter, DeadLetterNote, Failure, Incoming, LetterQuery,
    Settlement,
};
use bytes::Bytes;
use domain::{Cause, EventKind, JobId, Timestamp};
use protocol::SignedEnvelope;
use runtime::{Shutdown, Tasks};
use testkit::PATIENCE;
use testkit::folder::Folder;
use testkit::management::Management;
use testkit::services::{fresh_rabbitmq, management_url};
use uuid::Uuid;

/// The engine under test.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    RabbitMq,
    Embedded,
}

/// An engine on data of its own.
pub(crate) struct World {
    pub(crate) broker: Broker,
    settings: BrokerSettings,
    pub(crate) tasks: Tasks,
    folder: Folder,
}

impl World {
    pub(crate) async fn new(kind: Kind) -> Self {
        let folder = Folder::new();
        let settings = match kind {
            Kind::RabbitMq => rabbitmq(fresh_rabbitmq().await, 1),
            Kind::Embedded => BrokerSettings::Embedded { path: folder.path().join("broker.sqlite"), sync_full: true },
        };
        Self::open(settings, folder).await
    }

    /// RabbitMQ at `url`.
    pub(crate) async fn rabbitmq_at(url: String, shards: u16) -> Self {
        Self::open(rabbitmq(url, shards), Folder::new()).await
    }

    async fn open(settings: BrokerSettings, folder: Folder) -> Self {
        let tasks = Tasks::new(Shutdown::new());
        let broker = open(&settings, &tasks).await;
        Self { broker, settings, tasks, folder }
    }

    /// Another handle on the same data.
    pub(crate) async fn another(&self) -> Broker {
        open(&self.settings, &self.tasks).await
    }

    /// A handle for operators, as another process has one.
    pub(crate) async fn visit(&self) -> Broker {
        Broker::visit(self.settings.clone(), &self.tasks).await.expect("the engine can be visited")
    }

    /// The same on another file of the embedded engine.
    pub(crate) async fn visit_at(&self, path: &std::path::Path) -> Broker {
        let settings = BrokerSettings::Embedded { path: path.to_owned(), sync_full: true };
        Broker::visit(settings, &self.tasks).await.expect("the engine can be visited")
    }

    /// Closes the broker and opens it again on the same data.
    pub(crate) async fn reopen(&mut self) {
        self.broker.close().await;
        self.broker = self.another().await;
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("broker.sqlite")
    }

    /// The URL of the engine's virtual host.
    pub(crate) fn url(&self) -> &str {
        match &self.settings {
            BrokerSettings::RabbitMq { url, .. } => url,
            BrokerSettings::Embedded { .. } => panic!("this test is about RabbitMQ"),
        }
    }

    /// What an operator sees of it.
    pub(crate) async fn management(&self) -> Management {
        let (_, vhost) = self.url().rsplit_once('/').expect("a URL with a virtual host");
        Management::new(&management_url().await, vhost)
    }

    pub(crate) async fn consume(&self) -> Consumer {
        self.broker.consume(0).await.expect("the shard is free")
    }

    /// Publishes events named `names`, each when the one before is confirmed: so each is a message.
    pub(crate) async fn publish(&self, kind: EventKind, names: impl IntoIterator<Item = u32>) {
        for name in names {
            self.broker.publish(event(kind, name)).await.expect("confirmed");
        }
    }

    /// Publishes many events, pipelined, of which two hundred at most are outstanding.
    pub(crate) async fn publish_many(&self, kind: EventKind, names: impl IntoIterator<Item = u32>) {
        let mut outstanding = VecDeque::new();
        for name in names {
            outstanding.push_back(self.broker.publish(event(kind, name)));
            if outstanding.len() == 200 {
                outstanding.pop_front().expect("two hundred").await.expect("confirmed");
            }
        }
        for confirm in outstanding {
            confirm.await.expect("confirmed");
        }
    }
}

/// Opens an engine as a service does that starts: again, if RabbitMQ is too busy to answer in time.
async fn open(settings: &BrokerSettings, tasks: &Tasks) -> Broker {
    let end = Instant::now() + PATIENCE;
    loop {
        match Broker::open(settings.clone(), tasks).await {
            Err(BrokerError::Unavailable(_)) if Instant::now() < end => {}
            opened => return opened.expect("the engine opens"),
        }
    }
}

fn rabbitmq(url: String, shards: u16) -> BrokerSettings {
    BrokerSettings::RabbitMq { url, shards, app_id: "contract".to_owned() }
}

/// An event with a name of its own.
pub(crate) fn event(kind: EventKind, name: u32) -> SignedEnvelope {
    SignedEnvelope {
        job_id: JobId(Uuid::from_u128(name.into())),
        kind,
        shard_key: Uuid::from_u128(7),
        correlation_id: Some(name.to_string()),
        timestamp_s: 1_700_000_000,
        key_id: "key".to_owned(),
        signature: "ab".repeat(32),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        body: Bytes::from(vec![name as u8; 200]),
    }
}

/// The name of an event.
pub(crate) fn name(incoming: &Incoming) -> u32 {
    let name = incoming.envelope.correlation_id.as_ref().expect("our events have one");
    name.parse().expect("a number")
}

pub(crate) fn names(batch: &[Incoming]) -> Vec<u32> {
    batch.iter().map(name).collect()
}

/// The next batch, which must come.
pub(crate) async fn next(consumer: &mut Consumer, max: usize) -> Vec<Incoming> {
    tokio::time::timeout(PATIENCE, consumer.next_batch(max)).await.expect("events arrive").expect("connected")
}

/// The names of the next `count` events, settled in batches of `max`.
pub(crate) async fn drain(consumer: &mut Consumer, count: usize, max: usize) -> Vec<u32> {
    let mut received = Vec::new();
    while received.len() < count {
        let batch = next(consumer, max).await;
        received.extend(names(&batch));
        settle(consumer, batch).await;
    }
    received
}

/// The next `count` events, not settled; no more than a consumer may hold.
pub(crate) async fn receive(consumer: &mut Consumer, count: usize) -> Vec<Incoming> {
    let mut received = Vec::new();
    while received.len() < count {
        received.extend(next(consumer, count - received.len()).await);
    }
    received
}

pub(crate) async fn settle(consumer: &mut Consumer, batch: Vec<Incoming>) {
    let batch = batch.into_iter().map(|incoming| (incoming, Settlement::Done)).collect();
    consumer.settle(batch).await.expect("settled");
}

/// Fails a batch, all of it in the same way.
pub(crate) async fn fail(consumer: &mut Consumer, batch: Vec<Incoming>, retry: bool) {
    let batch = batch.into_iter().map(|incoming| (incoming, Settlement::Failed(failure(retry)))).collect();
    consumer.settle(batch).await.expect("settled");
}

/// The oldest dead letters.
pub(crate) async fn dead_letters(broker: &Broker, limit: usize) -> Vec<DeadLetter> {
    broker.dead_letters(&LetterQuery::first(limit)).await.expect("an answer").letters
}

pub(crate) const FAILED_AT: Timestamp = Timestamp(1_700_000_000_123);

pub(crate) fn failure(retry: bool) -> Failure {
    let note = DeadLetterNote {
        sender: Some("alice".to_owned()),
        room: Some("lounge".to_owned()),
        rendering: r#"{"content":"hi"}"#.to_owned(),
    };
    let cause = if retry { Cause::StoreRejected } else { Cause::Undecodable };
    Failure { cause, error: "it was no good".to_owned(), at: FAILED_AT, counts: true, note }
}

/// Nothing arrives in a while.
pub(crate) async fn nothing(consumer: &mut Consumer) {
    let arrived = tokio::time::timeout(Duration::from_millis(300), consumer.next_batch(10)).await;
    assert!(arrived.is_err(), "nothing may arrive, but: {arrived:?}");
}
