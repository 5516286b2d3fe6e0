//! Engine.IO over plain requests: one that waits for packets, and one after another that brings some.
//!
//! Knows packets as text and nothing of what they mean. The invariant: packets go and come in order, and
//! nothing is asked or sent but while somebody listens.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use futures_util::future::{BoxFuture, pending};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;

use super::line::Refused;

/// Separates packets.
const SEPARATOR: char = '\u{1e}';
/// The stock client's patience: two rounds of pings.
const REQUEST_LIMIT: Duration = Duration::from_secs(45);
/// Shorter than any server's, so that no request meets a connection that is just being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(1);

/// A session.
pub(super) struct Polling {
    http: Client,
    /// With the session's id.
    address: String,
    poll: Option<BoxFuture<'static, reqwest::Result<String>>>,
    post: Option<BoxFuture<'static, reqwest::Result<()>>>,
    to_send: VecDeque<String>,
    came: VecDeque<String>,
}

impl fmt::Debug for Polling {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Polling").field("to_send", &self.to_send).field("came", &self.came).finish_non_exhaustive()
    }
}

impl Polling {
    /// Opens a session at `http://host:port`.
    pub(super) async fn open(base: &str) -> Result<Self, Refused> {
        let nothing = |_| Refused { status: None, retry_after: None };
        let http = Client::builder().pool_idle_timeout(IDLE_LIMIT).timeout(REQUEST_LIMIT).build().map_err(nothing)?;
        let address = format!("{base}/socket.io/?EIO=4&transport=polling");
        let answer = http.get(&address).send().await.map_err(nothing)?;
        if !answer.status().is_success() {
            return Err(refused(&answer));
        }
        let text = answer.text().await.map_err(nothing)?;
        let mut packets = text.split(SEPARATOR);
        let open: Option<Value> =
            packets.next().and_then(|packet| serde_json::from_str(packet.strip_prefix('0')?).ok());
        let Some(sid) = open.as_ref().and_then(|open| open["sid"].as_str()) else {
            return Err(Refused { status: None, retry_after: None });
        };
        Ok(Self {
            address: format!("{address}&sid={sid}"),
            http,
            poll: None,
            post: None,
            to_send: VecDeque::new(),
            came: packets.map(str::to_owned).collect(),
        })
    }

    /// The packet goes with the next request, while `hear` is waited for.
    pub(super) fn send(&mut self, packet: String) {
        self.to_send.push_back(packet);
    }

    /// The next packet; `None` at the end. May be given up and called again.
    pub(super) async fn hear(&mut self) -> Option<String> {
        loop {
            if let Some(packet) = self.came.pop_front() {
                return Some(packet);
            }
            if !self.to_send.is_empty() && self.post.is_none() {
                let body = self.to_send.drain(..).collect::<Vec<_>>().join(&SEPARATOR.to_string());
                let request = self.http.post(&self.address).body(body);
                self.post = Some(Box::pin(posted(request)));
            }
            let poll = self.poll.get_or_insert_with(|| Box::pin(polled(self.http.get(&self.address))));
            tokio::select! {
                text = poll => {
                    self.poll = None;
                    self.came.extend(text.ok()?.split(SEPARATOR).map(str::to_owned));
                }
                done = maybe(&mut self.post) => {
                    self.post = None;
                    done.ok()?;
                }
            }
        }
    }
}

async fn maybe<T>(under_way: &mut Option<BoxFuture<'static, T>>) -> T {
    match under_way {
        Some(request) => request.await,
        None => pending().await,
    }
}

async fn polled(request: RequestBuilder) -> reqwest::Result<String> {
    request.send().await?.error_for_status()?.text().await
}

async fn posted(request: RequestBuilder) -> reqwest::Result<()> {
    request.send().await?.error_for_status()?.text().await.map(drop)
}

fn refused(answer: &Response) -> Refused {
    let seconds = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
    Refused { status: Some(answer.status().as_u16()), retry_after: seconds.map(Duration::from_secs) }
}
