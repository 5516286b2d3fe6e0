//! Clients that do nothing, at the least cost: a socket each, no task, and what they cost the process.

use std::time::Duration;

use domain::UserId;
use futures_util::future::join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::house::House;

/// Memory of this process, bytes; clients and server together.
pub(crate) fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * 4096
}

/// A client's socket with small buffers; nothing is read from it but its handshake.
pub(crate) struct Sleeper {
    pub(crate) stream: TcpStream,
}

impl Sleeper {
    pub(crate) async fn open(base: &str, user: UserId, is_native: bool) -> Self {
        let address = base.trim_start_matches("http://").parse().expect("an address");
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let mut stream = socket.connect(address).await.expect("connected");
        let token = House::token(user);
        let path =
            if is_native { format!("/ws?token={token}") } else { "/socket.io/?EIO=4&transport=websocket".to_owned() };
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        if !is_native {
            read_until(&mut stream, "pingInterval").await;
            stream.write_all(&masked(&format!("40/chat,{}", json!({"token": token})))).await.expect("sent");
        }
        read_until(&mut stream, "session.ready").await;
        Self { stream }
    }

    /// Sends a command and reads nothing.
    pub(crate) async fn tell(&mut self, text: &str) -> bool {
        let sent = tokio::time::timeout(Duration::from_millis(20), self.stream.write_all(&masked(text))).await;
        matches!(sent, Ok(Ok(())))
    }
}

/// A client's text frame (RFC 6455 section 5.2) whose mask is zero.
fn masked(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        len @ ..=125 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0xfe);
            frame.extend((len as u16).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

pub(crate) async fn read_until(stream: &mut TcpStream, what: &str) -> Vec<u8> {
    let (mut seen, mut part) = (Vec::new(), [0; 512]);
    while !seen.windows(what.len()).any(|window| window == what.as_bytes()) {
        let count = tokio::time::timeout(testkit::PATIENCE, stream.read(&mut part)).await.expect("in time");
        let count = count.expect("read");
        assert!(count > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend(&part[..count]);
    }
    seen
}

pub(crate) async fn sleepers(house: &House, users: &[UserId]) -> Vec<Sleeper> {
    let mut sleepers = Vec::new();
    for some in users.chunks(50) {
        let open = some.iter().enumerate().map(|(at, user)| Sleeper::open(&house.base, *user, at % 2 == 0));
        sleepers.extend(join_all(open).await);
    }
    sleepers
}

pub(crate) async fn people(house: &House, count: usize) -> Vec<UserId> {
    let mut users = Vec::with_capacity(count);
    for _ in 0..count {
        users.push(house.user().await);
    }
    users
}
