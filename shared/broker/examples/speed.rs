//! A measurement: `cargo run --release -p broker --example speed [AMQP-URL]`; without a URL the
//! embedded engine. Publishes and settles at once, with one, 50 and 1,000 confirms outstanding.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use broker::{Broker, BrokerSettings, Settlement};
use domain::{EventKind, JobId};
use protocol::SignedEnvelope;
use runtime::{Shutdown, Tasks};
use testkit::folder::Folder;

#[tokio::main]
async fn main() {
    let folder = Folder::new();
    let settings = match std::env::args().nth(1) {
        Some(url) => BrokerSettings::RabbitMq { url, shards: 1, app_id: "speed".to_owned() },
        None => BrokerSettings::Embedded { path: folder.path().join("broker.sqlite"), sync_full: true },
    };
    let broker = Broker::open(settings, &Tasks::new(Shutdown::new())).await.expect("the engine opens");
    for (window, count) in [(1, 3_000), (50, 30_000), (1_000, 30_000)] {
        let started = Instant::now();
        let ((p50, p99), ()) = tokio::join!(publish(&broker, window, count), settle(&broker, count));
        let rate = f64::from(count) / started.elapsed().as_secs_f64();
        show(&format!("window {window}: {rate:.0}/s, confirm p50 {p50:?}, p99 {p99:?}"));
    }
    broker.close().await;
}

async fn publish(broker: &Broker, window: usize, count: u32) -> (Duration, Duration) {
    let mut outstanding = VecDeque::new();
    let mut latencies = Vec::new();
    for number in 0..count {
        outstanding.push_back((Instant::now(), broker.publish(event(number))));
        if outstanding.len() == window {
            let (since, confirm) = outstanding.pop_front().expect("a window");
            confirm.await.expect("confirmed");
            latencies.push(since.elapsed());
        }
    }
    for (_, confirm) in outstanding {
        confirm.await.expect("confirmed");
    }
    latencies.sort_unstable();
    (latencies[latencies.len() / 2], latencies[latencies.len() * 99 / 100])
}

async fn settle(broker: &Broker, count: u32) {
    let mut consumer = broker.consume(0).await.expect("the shard is free");
    let mut settled = 0;
    while settled < count {
        let batch = consumer.next_batch(200).await.expect("connected");
        settled += batch.len() as u32;
        let batch = batch.into_iter().map(|incoming| (incoming, Settlement::Done)).collect();
        consumer.settle(batch).await.expect("settled");
    }
    consumer.close().await;
}

fn event(number: u32) -> SignedEnvelope {
    SignedEnvelope {
        job_id: JobId(uuid::Uuid::from_u128(number.into())),
        kind: EventKind::MessageSend,
        shard_key: uuid::Uuid::nil(),
        correlation_id: Some(number.to_string()),
        timestamp_s: 1_700_000_000,
        key_id: "key".to_owned(),
        signature: "ab".repeat(32),
        traceparent: None,
        body: vec![b'x'; 200].into(),
    }
}

#[allow(clippy::print_stdout, reason = "a measurement is there to be read")]
fn show(line: &str) {
    println!("{line}");
}
