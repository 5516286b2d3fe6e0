//! What a proxy does to connections in each weather, with real sockets.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::ErrorKind;
use std::time::Duration;

use testkit::proxy::{Proxy, Weather, Whom};
use testkit::{PATIENCE, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Longer than anything takes that is not held back.
const A_WHILE: Duration = Duration::from_millis(300);

const BOTH: Weather = Weather::HalfOpen { towards_server: true, towards_client: true };

/// A proxy and the server behind it, whose connections the test plays itself.
struct Place {
    proxy: Proxy,
    server: TcpListener,
}

impl Place {
    async fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(&server.local_addr().unwrap().to_string()).await;
        Self { proxy, server }
    }

    async fn client(&self) -> TcpStream {
        TcpStream::connect(self.proxy.address()).await.unwrap()
    }

    /// Both ends of a connection over which a byte went each way.
    async fn connection(&self) -> (TcpStream, TcpStream) {
        let mut client = self.client().await;
        let (mut server, _) = timeout(PATIENCE, self.server.accept()).await.unwrap().unwrap();
        say(&mut client, b"?").await;
        hears(&mut server, b"?").await;
        say(&mut server, b"!").await;
        hears(&mut client, b"!").await;
        (client, server)
    }
}

async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    timeout(PATIENCE, stream.write_all(bytes)).await.unwrap().unwrap();
}

async fn hears(stream: &mut TcpStream, bytes: &[u8]) {
    let mut heard = vec![0; bytes.len()];
    timeout(PATIENCE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert!(heard == bytes, "other bytes than were sent");
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(A_WHILE, stream.read_u8()).await.is_err()
}

/// All that still comes, and whether a reset ends it (else an orderly close).
async fn rest(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    let is_reset = ended.as_ref().is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
    assert!(ended.is_ok() || is_reset, "{ended:?}");
    (bytes, is_reset)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place % 251) as u8).collect()
}

#[tokio::test]
async fn in_fine_weather_all_bytes_arrive_and_closing_is_passed_on() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    let bytes = pattern(3_000_000);
    tokio::join!(say(&mut client, &bytes), hears(&mut server, &bytes));
    say(&mut server, b"last words").await;
    server.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, (b"last words".to_vec(), false));
    say(&mut client, b"still here").await;
    hears(&mut server, b"still here").await;
    drop(client);
    assert_eq!(rest(&mut server).await, (vec![], false));
    until(PATIENCE, || async { place.proxy.traffic().open == 0 }).await;
    let traffic = place.proxy.traffic();
    assert_eq!((traffic.opened, traffic.towards_server_bytes, traffic.towards_client_bytes), (1, 3_000_011, 11));
}

#[tokio::test]
async fn a_reset_of_one_side_is_passed_on() {
    let place = Place::new().await;
    let (client, mut server) = place.connection().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert_eq!(rest(&mut server).await, (vec![], true));
}

#[tokio::test]
async fn cut_connections_are_reset_on_both_sides_and_new_ones_too() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    place.proxy.set(Weather::Cut);
    assert_eq!(rest(&mut client).await, (vec![], true));
    assert_eq!(rest(&mut server).await, (vec![], true));
    assert_eq!(rest(&mut place.client().await).await, (vec![], true));
    place.proxy.set(Weather::Fine);
    place.connection().await;
}

#[tokio::test]
async fn without_a_server_a_client_is_reset() {
    let Place { proxy, server } = Place::new().await;
    drop(server);
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(rest(&mut client).await, (vec![], true));
}

#[tokio::test]
async fn reset_all_ends_what_is_open_and_lets_new_ones_pass() {
    let place = Place::new().await;
    let (mut one, mut other) = (place.connection().await, place.connection().await);
    assert_eq!(place.proxy.reset_all(), 2);
    for stream in [&mut one.0, &mut one.1, &mut other.0, &mut other.1] {
        assert_eq!(rest(stream).await, (vec![], true));
    }
    place.connection().await;
}

#[tokio::test]
async fn slow_bytes_come_late_and_in_order() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    let delay = Duration::from_millis(150);
    place.proxy.set(Weather::Slow { delay, bytes_per_s: 0 });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bytes = pattern(200_000);
    let begin = Instant::now();
    say(&mut client, &bytes[..1000]).await;
    hears(&mut server, &bytes[..1000]).await;
    assert!(begin.elapsed() >= delay);
    tokio::join!(say(&mut client, &bytes), hears(&mut server, &bytes));
    assert!(begin.elapsed() >= 2 * delay);
    // The delays of chunks that follow one another overlap: else these 13 chunks took 2 s.
    assert!(begin.elapsed() < 12 * delay, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn slow_bytes_leave_at_the_rate_that_was_set_and_at_once_when_the_weather_is_fine() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    place.proxy.set(Weather::Slow { delay: Duration::ZERO, bytes_per_s: 10_000 });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bytes = pattern(100_000);
    let begin = Instant::now();
    say(&mut server, &bytes).await;
    hears(&mut client, &bytes[..5_000]).await;
    assert!(begin.elapsed() >= Duration::from_millis(400), "{:?}", begin.elapsed());
    place.proxy.set(Weather::Fine);
    hears(&mut client, &bytes[5_000..]).await;
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn half_open_holds_one_direction_back_and_goes_on_without_a_hole() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    place.proxy.set(Weather::HalfOpen { towards_server: true, towards_client: false });
    tokio::time::sleep(Duration::from_millis(20)).await;
    say(&mut client, b"held back").await;
    client.shutdown().await.unwrap();
    say(&mut server, b"arrives").await;
    hears(&mut client, b"arrives").await;
    assert!(is_silent(&mut server).await);
    place.proxy.set(Weather::Fine);
    assert_eq!(rest(&mut server).await, (b"held back".to_vec(), false));
}

#[tokio::test]
async fn half_open_makes_a_busy_sender_wait_and_loses_nothing_of_what_it_sent() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    place.proxy.set(BOTH);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bytes = pattern(40_000_000);
    let mut sent = 0;
    while let Ok(count) = timeout(A_WHILE, client.write(&bytes[sent..])).await {
        sent += count.unwrap();
        assert!(sent < bytes.len(), "the sender never waits");
    }
    assert!(is_silent(&mut server).await);
    assert!(is_silent(&mut client).await);
    place.proxy.set(Weather::Fine);
    tokio::join!(say(&mut client, &bytes[sent..]), hears(&mut server, &bytes));
}

#[tokio::test]
async fn half_open_keeps_the_end_of_one_side_from_the_other() {
    let place = Place::new().await;
    let (client, mut server) = place.connection().await;
    place.proxy.set(Weather::HalfOpen { towards_server: true, towards_client: false });
    tokio::time::sleep(Duration::from_millis(20)).await;
    client.set_zero_linger().unwrap();
    drop(client);
    say(&mut server, b"to nobody").await;
    assert!(is_silent(&mut server).await);
    say(&mut server, b"to nobody").await;
    assert!(is_silent(&mut server).await);
    place.proxy.set(Weather::Fine);
    assert_eq!(rest(&mut server).await, (vec![], true));
}

#[tokio::test]
async fn half_open_lets_a_reset_pass_in_the_direction_that_is_open() {
    let place = Place::new().await;
    let (mut client, server) = place.connection().await;
    place.proxy.set(Weather::HalfOpen { towards_server: true, towards_client: false });
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.set_zero_linger().unwrap();
    drop(server);
    assert_eq!(rest(&mut client).await, (vec![], true));
}

#[tokio::test]
async fn half_open_holds_for_new_connections() {
    let place = Place::new().await;
    place.proxy.set(BOTH);
    let mut client = place.client().await;
    let (mut server, _) = timeout(PATIENCE, place.server.accept()).await.unwrap().unwrap();
    say(&mut client, b"early").await;
    say(&mut server, b"also early").await;
    assert!(is_silent(&mut server).await);
    assert!(is_silent(&mut client).await);
    place.proxy.set(Weather::Fine);
    hears(&mut server, b"early").await;
    hears(&mut client, b"also early").await;
}

#[tokio::test]
async fn a_half_open_connection_can_be_cut() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    place.proxy.set(BOTH);
    place.proxy.set(Weather::Cut);
    assert_eq!(rest(&mut client).await, (vec![], true));
    assert_eq!(rest(&mut server).await, (vec![], true));
}

#[tokio::test]
async fn garbage_comes_after_whole_messages_in_the_direction_of_the_seed_and_then_a_reset() {
    let place = Place::new().await;
    let mut directions = [0, 0];
    for seed in 0..6 {
        let (mut client, mut server) = place.connection().await;
        assert_eq!(place.proxy.corrupt(seed, Whom::All), 1);
        let begin = Instant::now();
        say(&mut client, b"a whole message").await;
        hears(&mut server, b"a whole message").await;
        let (at_client, at_server) = (rest(&mut client).await, rest(&mut server).await);
        assert!(begin.elapsed() >= Duration::from_millis(200));
        assert!(at_client.1 && at_server.1, "both are reset");
        let garbage = if at_client.0.is_empty() { &at_server.0 } else { &at_client.0 };
        assert!(garbage.len() == 32 && garbage[0] == 0xff, "{garbage:?}");
        assert_eq!(at_client.0.len() + at_server.0.len(), 32, "one direction only");
        directions[usize::from(at_client.0.is_empty())] += 1;
    }
    assert!(directions[0] > 0 && directions[1] > 0, "both occur: {directions:?}");
}

#[tokio::test]
async fn where_bytes_never_pause_garbage_comes_after_a_second_and_nothing_follows_it() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    place.proxy.corrupt(0, Whom::All);
    let begin = Instant::now();
    let (at_client, at_server) = tokio::join!(talk_and_listen(&mut client), talk_and_listen(&mut server));
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    let heard = if at_client.contains(&0xff) { at_client } else { at_server };
    let garbage = heard.iter().position(|byte| *byte == 0xff).unwrap();
    assert!(heard[..garbage].iter().all(|byte| *byte == 7));
    assert_eq!(heard.len() - garbage, 32, "nothing follows");
}

/// Sends bytes without a pause until the connection is reset: what came meanwhile.
async fn talk_and_listen(stream: &mut TcpStream) -> Vec<u8> {
    let (mut reader, mut writer) = stream.split();
    let mut heard = Vec::new();
    let talk = async {
        while writer.write_all(&[7]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let both = async { tokio::join!(talk, reader.read_to_end(&mut heard)) };
    drop(timeout(PATIENCE, both).await.unwrap());
    heard
}

#[tokio::test]
async fn one_connection_can_be_corrupted_while_the_others_live() {
    let place = Place::new().await;
    let mut connections = Vec::new();
    for _ in 0..4 {
        connections.push(place.connection().await);
    }
    assert_eq!(place.proxy.corrupt(11, Whom::One), 1);
    until(PATIENCE, || async { place.proxy.traffic().open == 3 }).await;
    let mut alive = 0;
    for (client, server) in &mut connections {
        if client.write_all(b"x").await.is_ok()
            && timeout(A_WHILE, server.read_u8()).await.is_ok_and(|byte| byte.is_ok())
        {
            alive += 1;
        }
    }
    assert_eq!(alive, 3);
}

#[tokio::test]
async fn a_proxy_that_is_dropped_resets_its_connections() {
    let place = Place::new().await;
    let (mut client, mut server) = place.connection().await;
    let address = place.proxy.address();
    drop(place);
    assert_eq!(rest(&mut client).await, (vec![], true));
    assert_eq!(rest(&mut server).await, (vec![], true));
    until(PATIENCE, || async { TcpStream::connect(&address).await.is_err() }).await;
}
