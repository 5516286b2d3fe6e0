//! A Socket.IO client that polls, request by request.

use std::collections::VecDeque;
use std::net::SocketAddr;

use domain::UserId;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::house::House;

/// Where polling begins.
pub(crate) const PATH: &str = "/socket.io/?EIO=4&transport=polling";
/// What a session that is over answers.
pub(crate) const OVER: i64 = 1;
/// Between two packets of a body.
const SEPARATOR: char = '\u{1e}';

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The code of a refusal in the words of Engine.IO.
    pub(crate) fn code(&self) -> Option<i64> {
        let body: Value = serde_json::from_str(&self.text).ok()?;
        body["code"].as_i64().filter(|_| self.status == 400)
    }
}

/// Asks for something.
pub(crate) async fn ask(method: Method, url: &str, headers: &[(&str, &str)], body: impl Into<String>) -> Answer {
    ask_by(&Client::new(), method, url, headers, body).await
}

async fn ask_by(
    client: &Client,
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<String>,
) -> Answer {
    let mut request = client.request(method, url).timeout(testkit::PATIENCE).body(body.into());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, text: answer.text().await.expect("a body") }
}

/// A session over polling.
#[derive(Clone)]
pub(crate) struct Poller {
    address: SocketAddr,
    client: Client,
    pub(crate) sid: String,
    waiting: VecDeque<String>,
}

impl Poller {
    pub(crate) async fn open(house: &House) -> Self {
        let handshake = ask(Method::GET, &format!("{}{PATH}", house.base), &[], "").await;
        let open: Value = serde_json::from_str(&handshake.text[1..]).expect("JSON");
        let address = house.base.trim_start_matches("http://").parse().expect("an address");
        let sid = open["sid"].as_str().expect("an id").to_owned();
        Self { address, client: Client::new(), sid, waiting: VecDeque::new() }
    }

    /// A session in the namespace.
    pub(crate) async fn enter(house: &House, user: UserId) -> Self {
        let mut poller = Self::open(house).await;
        poller.say(&format!("40/chat,{}", json!({"token": House::token(user)}))).await;
        poller.json_after("42/chat,[\"session.ready\",").await;
        poller
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}{PATH}&sid={}", self.address, self.sid)
    }

    /// One poll.
    pub(crate) async fn poll(&self) -> Answer {
        ask_by(&self.client, Method::GET, &self.url(), &[], "").await
    }

    pub(crate) async fn post(&self, body: impl Into<String>) -> Answer {
        ask_by(&self.client, Method::POST, &self.url(), &[], body).await
    }

    pub(crate) async fn say(&self, packet: &str) {
        let answer = self.post(packet).await;
        assert_eq!((answer.status, answer.text.as_str()), (200, "ok"), "{packet}");
    }

    /// The next packet.
    pub(crate) async fn next(&mut self) -> String {
        loop {
            if let Some(packet) = self.waiting.pop_front() {
                return packet;
            }
            let answer = self.poll().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            self.waiting.extend(answer.text.split(SEPARATOR).map(str::to_owned));
        }
    }

    /// The first value after the next packet that starts like this.
    pub(crate) async fn json_after(&mut self, start: &str) -> Value {
        loop {
            if let Some(rest) = self.next().await.strip_prefix(start) {
                let mut values = serde_json::Deserializer::from_str(rest).into_iter();
                return values.next().expect("a value").expect("JSON");
            }
        }
    }

    /// The server still answers commands.
    pub(crate) async fn assert_serves(&mut self) {
        self.say(r#"42/chat,77["ping"]"#).await;
        assert!(self.json_after("43/chat,77").await[0]["serverTime"].is_string());
    }

    /// Nobody knows the session any more. Asks by posting: a poll would wait.
    pub(crate) async fn is_over(&self) -> bool {
        self.post("3").await.code() == Some(OVER)
    }

    /// Waits until nobody knows the session any more.
    pub(crate) async fn over(&self) {
        testkit::until(testkit::PATIENCE, || self.is_over()).await;
    }

    /// Begins a request with a body of 100 bytes and says only the beginning of it.
    pub(crate) async fn begin(&self, method: &str, beginning: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        let (path, length) = (format!("{PATH}&sid={}", self.sid), if method == "POST" { 100 } else { 0 });
        let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{beginning}");
        stream.write_all(head.as_bytes()).await.expect("sent");
        stream
    }
}
