//! One client: what comes from it, what goes to it, and whether it is still there.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use protocol::CloseCode;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};
use transport::engineio::{EngineLink, packet};
use transport::{Frame, Gone, Link as _, Received};

use crate::{PING_INTERVAL_MS, PING_TIMEOUT_MS};

/// A little less than what the client was told: one that measures the same time finds the session
/// closed, however late this process gets its turn.
const PONG_WITHIN: Duration = Duration::from_millis(PING_TIMEOUT_MS - 20);

/// A client.
pub(crate) struct Client {
    pub(crate) link: EngineLink,
    outgoing: VecDeque<Frame>,
    pings: Interval,
    pong_by: Option<Instant>,
}

impl Client {
    pub(crate) fn new(link: EngineLink) -> Self {
        let every = Duration::from_millis(PING_INTERVAL_MS);
        let mut pings = interval_at(Instant::now() + every, every);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outgoing = link.greeting().map(Frame::Text).into_iter().collect();
        Self { link, outgoing, pings, pong_by: None }
    }

    /// Sends a frame with the next turn.
    pub(crate) fn send(&mut self, frame: Frame) {
        self.outgoing.push_back(frame);
    }

    /// The next thing the client says, its pongs left out; `Err` when it is to be closed.
    pub(crate) async fn next(&mut self) -> Result<Received, CloseCode> {
        loop {
            let pong_by = self.pong_by;
            let overdue = async {
                match pong_by {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let (link, outgoing) = (&mut self.link, &mut self.outgoing);
            tokio::select! {
                received = std::future::poll_fn(|cx| turn(link, outgoing, cx)) => match received {
                    Received::Gone => return Err(CloseCode::Normal),
                    Received::Broken(code) => return Err(code),
                    Received::Text(text) if packet::parse(&text) == Ok(packet::Packet::Pong) => self.pong_by = None,
                    Received::Alive => {}
                    received => return Ok(received),
                },
                planned = self.pings.tick() => {
                    self.outgoing.push_back(Frame::Text(packet::PING.into()));
                    self.pong_by.get_or_insert(planned + PONG_WITHIN);
                }
                () = overdue => return Err(CloseCode::PongTimeout),
            }
        }
    }
}

/// Sends what waits; ready with what came.
fn turn(link: &mut EngineLink, outgoing: &mut VecDeque<Frame>, cx: &mut Context<'_>) -> Poll<Received> {
    if let Poll::Ready(received) = link.poll_receive(cx) {
        return Poll::Ready(received);
    }
    while !outgoing.is_empty() {
        match link.poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(Gone)) => return Poll::Ready(Received::Gone),
            Poll::Pending => break,
        }
        if let Some(frame) = outgoing.pop_front() {
            link.send(frame);
        }
    }
    match link.poll_flush(cx) {
        Poll::Ready(Err(Gone)) => Poll::Ready(Received::Gone),
        _ => Poll::Pending,
    }
}
