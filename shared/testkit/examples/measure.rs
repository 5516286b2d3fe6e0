//! Measures a running server from outside: highest rate, latency of acks and deliveries, memory of
//! idle connections. Speaks Socket.IO (websocket transport) or native frames over loopback.
//!
//! `measure chat --url ws://127.0.0.1:8080 --secret … --connections 1000 --room-size 10 --rate 1000 --seconds 15`
//! `measure idle --url … --secret … --connections 5000 --pid SERVER`
//!
//! Connection `i` is user `i` and writes to room `i / room-size`; ids follow `--ids` (see `Ids`).
//! Latency counts from the moment a message was due (open loop), so that a slow server cannot hide.

#![allow(clippy::print_stdout, reason = "a measuring program prints its result")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

#[derive(Clone)]
struct Options {
    mode: String,
    url: String,
    secret: String,
    connections: usize,
    room_size: usize,
    rate: f64,
    seconds: u64,
    native: bool,
    pid: Option<u32>,
    bytes: usize,
}

fn options() -> Options {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_else(|| "chat".to_owned());
    let mut named = HashMap::new();
    while let Some(key) = args.next() {
        named.insert(key.trim_start_matches('-').to_owned(), args.next().unwrap_or_default());
    }
    let text = |key: &str, default: &str| named.get(key).cloned().unwrap_or_else(|| default.to_owned());
    let number = |key: &str, default: f64| text(key, "").parse().unwrap_or(default);
    Options {
        mode,
        url: text("url", "ws://127.0.0.1:8080"),
        secret: text("secret", "bench-secret"),
        connections: number("connections", 1000.0) as usize,
        room_size: number("room-size", 10.0) as usize,
        rate: number("rate", 200.0),
        seconds: number("seconds", 10.0) as u64,
        native: text("transport", "socketio") == "native",
        pid: text("pid", "").parse().ok(),
        bytes: number("bytes", 100.0) as usize,
    }
}

fn user_id(options: &Options, index: usize) -> String {
    format!("{:04x}0000-0000-4000-8000-{index:012x}", options.room_size)
}

fn room_id(options: &Options, index: usize) -> String {
    format!("{:04x}0000-0000-4000-9000-{:012x}", options.room_size, index / options.room_size)
}

fn token(options: &Options, index: usize) -> String {
    testkit::client::token::mint(&options.secret, &user_id(options, index), 3600)
}

/// What all connections count together.
#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    queued: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    ack_us: Mutex<Vec<u32>>,
    end_to_end_us: Mutex<Vec<u32>>,
}

fn percentiles(samples: &Mutex<Vec<u32>>) -> String {
    let mut samples = samples.lock().expect("no thread panicked").clone();
    samples.sort_unstable();
    if samples.is_empty() {
        return "-".to_owned();
    }
    let at = |q: f64| f64::from(samples[((samples.len() - 1) as f64 * q) as usize]) / 1000.0;
    format!("{:.2} / {:.2} / {:.2}", at(0.5), at(0.99), at(1.0))
}

type Socket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

async fn connect(options: &Options, index: usize) -> Socket {
    let path = if options.native { "/ws" } else { "/socket.io/?EIO=4&transport=websocket" };
    let request = format!("{}{path}", options.url).into_client_request().expect("a URL");
    let authority = options.url.trim_start_matches("ws://").to_owned();
    let config = tokio_tungstenite::tungstenite::protocol::WebSocketConfig::default().read_buffer_size(4096);
    let mut last = String::new();
    for _ in 0..5 {
        match tokio::net::TcpStream::connect(&authority).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                let handshake =
                    tokio_tungstenite::client_async_with_config(request.clone(), stream, Some(config)).await;
                match handshake {
                    Ok((mut socket, _)) => {
                        greet(options, index, &mut socket).await;
                        return socket;
                    }
                    Err(error) => last = error.to_string(),
                }
            }
            Err(error) => last = error.to_string(),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("connection {index}: {last}");
}

/// Authenticates and waits until the server says that the connection is ready.
async fn greet(options: &Options, index: usize, socket: &mut Socket) {
    let token = token(options, index);
    if options.native {
        let auth = format!(r#"{{"event":"auth","data":{{"token":"{token}"}}}}"#);
        socket.send(Message::text(auth)).await.expect("open");
    }
    loop {
        let Some(Ok(message)) = socket.next().await else { panic!("connection {index} closed during its handshake") };
        let Ok(text) = message.to_text() else { continue };
        if text.starts_with('0') && !options.native {
            socket.send(Message::text(format!(r#"40/chat,{{"token":"{token}"}}"#))).await.expect("open");
        } else if text.starts_with("40/chat") || text.contains("session.ready") {
            return;
        } else if text.starts_with("44") || text.contains("REJECTED") {
            panic!("connection {index} refused: {text}");
        }
    }
}

fn digits(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

fn observe(text: &str, started: Instant, due: &Mutex<HashMap<u64, u64>>, counts: &Counts) {
    let now_us = started.elapsed().as_micros() as u64;
    if let Some(at) = text.find("\"content\":\"t=") {
        counts.delivered.fetch_add(1, Ordering::Relaxed);
        if let Some(due_us) = digits(&text[at + 13..]) {
            let waited = now_us.saturating_sub(due_us) as u32;
            counts.end_to_end_us.lock().expect("no thread panicked").push(waited);
        }
        return;
    }
    let id = text.strip_prefix("43/chat,").or_else(|| text.strip_prefix("{\"id\":")).and_then(digits);
    let Some(id) = id else { return };
    let Some(due_us) = due.lock().expect("no thread panicked").remove(&id) else { return };
    if text.contains("QUEUED") {
        counts.queued.fetch_add(1, Ordering::Relaxed);
        counts.ack_us.lock().expect("no thread panicked").push(now_us.saturating_sub(due_us) as u32);
    } else {
        counts.refused.fetch_add(1, Ordering::Relaxed);
    }
}

async fn converse(
    options: Arc<Options>,
    index: usize,
    socket: Socket,
    started: Instant,
    counts: Arc<Counts>,
    mut orders: tokio::sync::mpsc::Receiver<u64>,
) {
    let (mut out, mut inbound) = socket.split();
    let due: Mutex<HashMap<u64, u64>> = Mutex::default();
    let (room, padding) = (room_id(&options, index), "x".repeat(options.bytes.saturating_sub(20)));
    let (mut frame_id, run) = (0u64, std::process::id());
    loop {
        tokio::select! {
            message = inbound.next() => match message {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => {
                    if out.send(Message::text("3")).await.is_err() { return }
                }
                Some(Ok(Message::Text(text))) => observe(&text, started, &due, &counts),
                Some(Ok(_)) => {}
                _ => return,
            },
            order = orders.recv() => {
                let Some(due_us) = order else { return };
                frame_id += 1;
                due.lock().expect("no thread panicked").insert(frame_id, due_us);
                let name = format!("{index:08x}-{:04x}-4000-a000-{due_us:012x}", run & 0xffff);
                let data = format!(r#"{{"roomId":"{room}","content":"t={due_us:019}{padding}","clientMsgId":"{name}"}}"#);
                let frame = if options.native {
                    format!(r#"{{"id":{frame_id},"event":"message.send","data":{data}}}"#)
                } else {
                    format!(r#"42/chat,{frame_id}["message.send",{data}]"#)
                };
                if out.send(Message::text(frame)).await.is_err() { return }
                counts.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn rss_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

async fn open_all(options: &Arc<Options>) -> Vec<Socket> {
    let opened = futures_util::stream::iter(0..options.connections).map(|index| {
        let options = Arc::clone(options);
        async move { connect(&options, index).await }
    });
    opened.buffered(32).collect().await
}

async fn chat(options: Arc<Options>) {
    let sockets = open_all(&options).await;
    let (started, counts) = (Instant::now(), Arc::new(Counts::default()));
    let mut senders = Vec::new();
    for (index, socket) in sockets.into_iter().enumerate() {
        let (order, orders) = tokio::sync::mpsc::channel(4096);
        senders.push(order);
        tokio::spawn(converse(Arc::clone(&options), index, socket, started, Arc::clone(&counts), orders));
    }
    let begun = Instant::now();
    let total = (options.rate * options.seconds as f64) as u64;
    let mut given = 0u64;
    while given < total {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let due_count = ((begun.elapsed().as_secs_f64() * options.rate) as u64).min(total);
        while given < due_count {
            let due = begun - started + Duration::from_secs_f64(given as f64 / options.rate);
            let index = (given as usize).wrapping_mul(7919) % senders.len();
            let _ = senders[index].try_send(due.as_micros() as u64);
            given += 1;
        }
    }
    let expected = |counts: &Counts| counts.queued.load(Ordering::Relaxed) * options.room_size as u64;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline
        && (counts.queued.load(Ordering::Relaxed) + counts.refused.load(Ordering::Relaxed) < total
            || counts.delivered.load(Ordering::Relaxed) < expected(&counts))
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!(
        "rate {} sent {} queued {} refused {} delivered {} of {} | ack ms p50/p99/max {} | end to end ms {}",
        options.rate,
        counts.sent.load(Ordering::Relaxed),
        counts.queued.load(Ordering::Relaxed),
        counts.refused.load(Ordering::Relaxed),
        counts.delivered.load(Ordering::Relaxed),
        expected(&counts),
        percentiles(&counts.ack_us),
        percentiles(&counts.end_to_end_us),
    );
}

async fn idle(options: Arc<Options>) {
    let pid = options.pid.expect("--pid of the server");
    let before = rss_kib(pid);
    let sockets = open_all(&options).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = rss_kib(pid);
    let each = (after.saturating_sub(before)) as f64 * 1024.0 / sockets.len() as f64;
    println!("{} idle connections: {before} -> {after} KiB, {each:.0} bytes each", sockets.len());
}

fn main() {
    let options = Arc::new(options());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match options.mode.as_str() {
            "idle" => idle(Arc::clone(&options)).await,
            _ => chat(Arc::clone(&options)).await,
        }
    });
}
