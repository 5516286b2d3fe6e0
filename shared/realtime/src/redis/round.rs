//! Commands that go out together, each to the node that has its keys: one pipeline for each node, all at once.
//!
//! A single server is a cluster of one node that never says that a key is elsewhere. The invariant: the
//! commands of one slot that go out together are carried out in their order, each at least once or the
//! round fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, ServerErrorKind, ToRedisArgs, Value};
use tokio::time::{sleep, timeout};

use super::node::Node;
use super::slots::Slot;
use super::{RedisEngine, unavailable};
use crate::{COMMAND_LIMIT, RealtimeError};

/// How often commands are sent, when the server lacks their script or slots are moving.
const ATTEMPTS: u32 = 6;
/// Between the attempts when slots are moving, the first time; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(20);

/// A Lua script, known to servers by its hash.
pub(super) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// What goes out together.
pub(super) struct Round {
    script: Option<&'static Script>,
    /// The script goes along in any case.
    loads: bool,
    commands: Vec<(Slot, Cmd)>,
}

impl Round {
    /// Of commands, and calls of one script.
    pub(super) fn new(script: Option<&'static Script>) -> Self {
        Self { script, loads: false, commands: Vec::new() }
    }

    /// Of one command that goes where `key` is.
    pub(super) fn of(key: &str, name: &str) -> Self {
        let mut round = Self::new(None);
        round.command(key, name);
        round
    }

    /// The script goes along with its first calls, so that a server that has lost it (restart,
    /// fail-over) cannot carry out half of them and so change the order.
    pub(super) fn with_script(script: &'static Script) -> Self {
        Self { script: Some(script), loads: true, commands: Vec::new() }
    }

    /// One more command, which goes where `key` is; the key itself is to be added if it is an argument.
    pub(super) fn command(&mut self, key: &str, name: &str) -> &mut Self {
        self.commands.push((Slot::of(key), redis::cmd(name)));
        self
    }

    /// One more call of the script; all keys, of which there is one at least, lie in one slot.
    pub(super) fn call(&mut self, keys: &[String]) -> &mut Self {
        let hash = self.script.map(|script| script.hash.as_str()).unwrap_or_default();
        self.command(keys.first().map_or("", String::as_str), "EVALSHA").arg(hash).arg(keys.len()).arg(keys)
    }

    /// One more argument of the last command.
    pub(super) fn arg(&mut self, arg: impl ToRedisArgs) -> &mut Self {
        if let Some((_, command)) = self.commands.last_mut() {
            command.arg(arg);
        }
        self
    }
}

/// Commands that go to one node, by their places in the round.
struct Part {
    node: Arc<Node>,
    /// The node has not got the slot yet, but perhaps the keys.
    asking: bool,
    places: Vec<usize>,
}

impl Part {
    fn pipeline(&self, round: &Round, loads: bool) -> redis::Pipeline {
        let mut pipe = redis::pipe();
        if let Some(script) = round.script.filter(|_| loads) {
            pipe.cmd("SCRIPT").arg("LOAD").arg(script.text).ignore();
        }
        for place in &self.places {
            if self.asking {
                pipe.cmd("ASKING").ignore();
            }
            pipe.add_command(round.commands[*place].1.clone());
        }
        pipe
    }
}

/// What becomes of a command that was refused.
enum Turn {
    /// It goes out once more, along with the script.
    WithScript,
    /// It goes to that node this time.
    Ask(String),
    /// It goes out once more when the map was read anew.
    Elsewhere,
    /// It is refused for good.
    Refused,
}

fn turn(error: &RedisError) -> Turn {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Turn::WithScript,
        ErrorKind::Server(ServerErrorKind::Ask) => {
            error.redirect_node().map_or(Turn::Refused, |(node, _)| Turn::Ask(node.to_owned()))
        }
        ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::TryAgain | ServerErrorKind::ReadOnly) => {
            Turn::Elsewhere
        }
        _ => Turn::Refused,
    }
}

/// What a round ended with.
pub(super) struct Outcome {
    /// One for each command.
    pub(super) answers: Vec<Value>,
    /// The commands that a node carried out that has not got their slot yet.
    pub(super) ahead: Vec<usize>,
}

/// A round under way.
struct Sending {
    answers: Vec<Option<Value>>,
    ahead: Vec<usize>,
    /// The places of commands still to be sent, and to whom if not to the owner of the slot.
    open: Vec<(usize, Option<Arc<Node>>)>,
    loads: bool,
    moving: bool,
}

impl RedisEngine {
    /// Sends a round; its answers in the order of its commands.
    pub(super) async fn send(&self, round: &Round) -> Result<Vec<Value>, RealtimeError> {
        self.carry_out(round).await.map(|outcome| outcome.answers)
    }

    /// Sends a round of one command.
    pub(super) async fn answer<T: FromRedisValue>(&self, round: &Round) -> Result<T, RealtimeError> {
        read(self.send(round).await?.pop().unwrap_or(Value::Nil))
    }

    /// Sends a round, and says what went where.
    pub(super) async fn carry_out(&self, round: &Round) -> Result<Outcome, RealtimeError> {
        let outcome = timeout(COMMAND_LIMIT, self.until_answered(round)).await;
        outcome.unwrap_or_else(|_| {
            self.doubt();
            Err(RealtimeError::Unavailable("no answer in time".into()))
        })
    }

    async fn until_answered(&self, round: &Round) -> Result<Outcome, RealtimeError> {
        let places = round.commands.len();
        let mut sending = Sending {
            answers: vec![None; places],
            ahead: Vec::new(),
            open: (0..places).map(|place| (place, None)).collect(),
            loads: round.loads,
            moving: false,
        };
        for attempt in 0..ATTEMPTS {
            if std::mem::take(&mut sending.moving) {
                sleep(PAUSE * 2_u32.pow(attempt)).await;
            }
            self.attempt(round, &mut sending).await?;
            if sending.open.is_empty() {
                let answers = sending.answers.into_iter().flatten().collect();
                return Ok(Outcome { answers, ahead: sending.ahead });
            }
        }
        Err(RealtimeError::Unavailable("refused again and again, as by a cluster whose slots are moving".into()))
    }

    async fn attempt(&self, round: &Round, sending: &mut Sending) -> Result<(), RealtimeError> {
        let parts = self.parts(round, std::mem::take(&mut sending.open)).await?;
        let loads = sending.loads;
        let runs = parts.iter().map(|part| async move { part.node.run(&mut part.pipeline(round, loads)).await });
        for (part, answers) in parts.iter().zip(join_all(runs).await) {
            let answers = answers.inspect_err(|_| self.doubt())?;
            for (place, answer) in part.places.iter().zip(answers) {
                match answer {
                    Ok(value) => {
                        sending.answers[*place] = Some(value);
                        sending.ahead.extend(part.asking.then_some(*place));
                    }
                    Err(error) => self.again(*place, &error, sending)?,
                }
            }
        }
        // What several nodes gave back goes out in order.
        sending.open.sort_by_key(|(place, _)| *place);
        Ok(())
    }

    /// Sees to it that a command goes out once more, if that may help.
    fn again(&self, place: usize, error: &RedisError, sending: &mut Sending) -> Result<(), RealtimeError> {
        let asked = match turn(error) {
            Turn::WithScript => {
                sending.loads = true;
                None
            }
            Turn::Ask(name) => self.node(&name)?,
            Turn::Elsewhere if self.is_cluster() => {
                sending.moving = true;
                self.doubt();
                None
            }
            Turn::Elsewhere | Turn::Refused => {
                if error.is_cluster_error() {
                    self.doubt();
                }
                return Err(unavailable("refused", error));
            }
        };
        sending.loads |= asked.is_some();
        sending.open.push((place, asked));
        Ok(())
    }

    /// The open commands by the nodes they go to.
    async fn parts(&self, round: &Round, open: Vec<(usize, Option<Arc<Node>>)>) -> Result<Vec<Part>, RealtimeError> {
        let map = self.map().await?;
        let mut parts: HashMap<(String, bool), Part> = HashMap::new();
        for (place, asked) in open {
            let asking = asked.is_some();
            let owner = || map.owner(round.commands[place].0).cloned();
            let node = asked.or_else(owner).ok_or_else(|| unavailable("the cluster", &"nobody has the slot"));
            let node = node.inspect_err(|_| self.doubt())?;
            let new = || Part { node: Arc::clone(&node), asking, places: Vec::new() };
            parts.entry((node.name().to_owned(), asking)).or_insert_with(new).places.push(place);
        }
        Ok(parts.into_values().collect())
    }
}

/// Reads an answer.
pub(super) fn read<T: FromRedisValue>(value: Value) -> Result<T, RealtimeError> {
    redis::from_redis_value(value).map_err(|error| unavailable("an answer", &error))
}
