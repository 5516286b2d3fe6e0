//! How many deliveries a second go through the port in slices of 64, published and received by one
//! process: `cargo run --release -p realtime --example publish_speed`. It starts a Redis of its own.

#![allow(clippy::print_stdout, reason = "a measurement is there to be read")]

use std::time::{Duration, Instant};

use domain::{Rev, RoomId};
use protocol::Channel;
use realtime::{Arrival, Outbound, Realtime, RealtimeError, RealtimeSettings};
use runtime::{Shutdown, Tasks};
use testkit::services::RedisServer;

const SLICES: usize = 3000;
const SLICE: usize = 64;
const ROOMS: usize = 100;
const PAYLOAD_BYTES: usize = 300;

#[tokio::main]
async fn main() -> Result<(), RealtimeError> {
    let server = RedisServer::start().await;
    measure("Redis", RealtimeSettings::Redis { url: server.url() }).await?;
    measure("Embedded", RealtimeSettings::Embedded).await
}

async fn measure(name: &str, settings: RealtimeSettings) -> Result<(), RealtimeError> {
    let tasks = Tasks::new(Shutdown::new());
    let realtime = Realtime::open(settings, &tasks).await?;
    let rooms: Vec<Channel> = (0..ROOMS).map(|_| Channel::Room(RoomId::generate())).collect();
    let mut inbox = realtime.inbox();
    realtime.subscribe(&inbox.id(), &rooms).await?;
    let outbound = |number: usize| Outbound {
        channel: rooms[number % ROOMS],
        rev: Some(Rev((number / ROOMS) as i64 + 1)),
        payload: vec![b'x'; PAYLOAD_BYTES].into(),
    };
    let started = Instant::now();
    let publishing = async {
        for slice in 0..SLICES {
            let deliveries: Vec<Outbound> = (slice * SLICE..(slice + 1) * SLICE).map(outbound).collect();
            realtime.publish(&deliveries).await?;
            // Publishing in this process never waits, so the reader is given its turn.
            tokio::task::yield_now().await;
        }
        Ok(started.elapsed())
    };
    let receiving = async {
        let mut received = 0;
        while received < SLICES * SLICE {
            match inbox.recv().await {
                Some(Arrival::Delivery { .. }) => received += 1,
                Some(Arrival::Reconnected) | None => println!("{name}: deliveries were lost"),
            }
        }
        Ok::<Duration, RealtimeError>(started.elapsed())
    };
    let (published, received) = tokio::try_join!(publishing, receiving)?;
    let rate = |elapsed: Duration| (SLICES * SLICE) as f64 / elapsed.as_secs_f64();
    println!("{name}: {:.0} published/s, {:.0} received/s", rate(published), rate(received));
    Ok(())
}
