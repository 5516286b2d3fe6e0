//! A light client's connection as its application sees it, and what a client keeps for the next one.
//!
//! The invariant: what Socket.IO sends before it has let a client in is heard after that, as with the stock
//! client, and an offset counts only once its event was heard.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::line::{Heard, Kind, Line, Pass, Refused};

/// What a Socket.IO client keeps from one connection to the next. A native client has none of it.
#[derive(Debug, Default)]
pub struct Recovery {
    pid: Option<String>,
    offset: Option<String>,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    line: Line,
    is_accepted: bool,
    kept: VecDeque<(String, Value, Option<String>)>,
    code: Option<u16>,
    /// When it began.
    pub opened: Instant,
    /// When something came last.
    pub heard: Instant,
    /// Socket.IO: it goes on where the one before ended.
    pub is_recovered: bool,
    /// When to come back after its end, if that was said.
    pub hint: Option<Duration>,
}

impl Connection {
    /// Connects to `http://host:port`.
    pub async fn open(base: &str, kind: Kind, token: &str, device: &str, recovery: &Recovery) -> Result<Self, Refused> {
        let recovery = recovery.pid.as_deref().zip(recovery.offset.as_deref());
        let line = Line::open(base, kind, &Pass { token, device, recovery }).await?;
        let now = Instant::now();
        Ok(Self {
            line,
            is_accepted: kind == Kind::Native,
            kept: VecDeque::new(),
            code: None,
            opened: now,
            heard: now,
            is_recovered: false,
            hint: None,
        })
    }

    /// Sends a command; the id its ack will have.
    pub async fn send(&mut self, event: &str, data: &Value) -> i64 {
        self.line.send(event, data).await
    }

    /// The next thing that came. May be given up and called again.
    pub async fn hear(&mut self, recovery: &mut Recovery) -> Heard {
        loop {
            let kept = if self.is_accepted { self.kept.pop_front() } else { None };
            let heard = match kept {
                Some((name, data, offset)) => Heard::Event { name, data, offset },
                None => self.line.hear().await,
            };
            self.heard = Instant::now();
            match heard {
                Heard::Event { name, data, offset } if !self.is_accepted && name != "error" => {
                    self.kept.push_back((name, data, offset));
                }
                heard => return self.taken(heard, recovery),
            }
        }
    }

    fn taken(&mut self, heard: Heard, recovery: &mut Recovery) -> Heard {
        match &heard {
            Heard::Event { name, data, offset } => {
                if offset.is_some() {
                    recovery.offset.clone_from(offset);
                }
                match name.as_str() {
                    "server.draining" => self.hint = hint(data),
                    "error" => {
                        self.hint = hint(data).or(self.hint);
                        self.code = data["closeCode"].as_u64().and_then(|code| u16::try_from(code).ok());
                    }
                    _ => {}
                }
            }
            Heard::Accepted { pid } => {
                self.is_accepted = true;
                self.is_recovered = pid.is_some() && *pid == recovery.pid;
                recovery.pid.clone_from(pid);
            }
            // Why it ended is said before by an event; Socket.IO's own end has no code.
            Heard::Closed(code) => return Heard::Closed(self.code.or(*code)),
            _ => {}
        }
        heard
    }
}

/// How long to wait before the next attempt, as an answer says.
pub fn hint(data: &Value) -> Option<Duration> {
    data["retryAfterMs"].as_u64().map(Duration::from_millis)
}
