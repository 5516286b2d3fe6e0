//! A subscription connection as its kind of server wants it: `SUBSCRIBE` on one that has everything,
//! `SSUBSCRIBE` on a node of a cluster.
//!
//! Knows no channel's meaning. The invariant: what it says was confirmed, the server has confirmed; an
//! answer that does not come in time is an error.

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, ReadyChunks, poll_fn};
use redis::aio::{MultiplexedConnection, PubSubSink};
use redis::{Msg, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::keys::Keys;
use super::node::Node;
use crate::COMMAND_LIMIT;

/// Channels in one round.
const SLICE: usize = 1024;
/// Messages taken over in one go.
const READ_AHEAD: usize = 256;

/// What came over a connection.
pub(super) enum Heard {
    Message(Msg),
    /// The connection does not listen on this channel any more.
    Left(String),
}

/// What comes, several at a time.
pub(super) struct Messages(ReadyChunks<BoxStream<'static, Heard>>);

impl Messages {
    pub(super) async fn next(&mut self) -> Option<Vec<Heard>> {
        self.0.next().await
    }
}

#[derive(Clone)]
pub(super) enum Line {
    One(PubSubSink),
    Sharded(MultiplexedConnection),
}

impl Line {
    pub(super) async fn open(node: &Node, keys: Keys) -> Result<(Self, Messages), String> {
        let (line, heard) = match keys {
            Keys::One => {
                let (sink, stream) = node.subscriber().await?.split();
                (Self::One(sink), stream.map(Heard::Message).boxed())
            }
            Keys::Cluster => {
                let (heard, mut pushed) = mpsc::unbounded_channel();
                let connection = node.sharded_subscriber(heard).await?;
                let pushed = poll_fn(move |context| pushed.poll_recv(context));
                (Self::Sharded(connection), pushed.filter_map(async |push| hear(push)).boxed())
            }
        };
        Ok((line, Messages(heard.ready_chunks(READ_AHEAD))))
    }

    pub(super) fn is_sharded(&self) -> bool {
        matches!(self, Self::Sharded(_))
    }

    /// Ends and begins subscriptions.
    pub(super) async fn carry_out(mut self, add: Vec<String>, remove: Vec<String>) -> Result<(), String> {
        for names in remove.chunks(SLICE) {
            match &mut self {
                Self::One(sink) => in_time(sink.unsubscribe(names)).await?,
                Self::Sharded(connection) => each(connection, "SUNSUBSCRIBE", names).await?,
            }
        }
        for names in add.chunks(SLICE) {
            match &mut self {
                Self::One(sink) => in_time(sink.subscribe(names)).await?,
                Self::Sharded(connection) => each(connection, "SSUBSCRIBE", names).await?,
            }
        }
        Ok(())
    }

    /// Asks for a sign of life.
    pub(super) async fn ping(mut self) -> Result<(), String> {
        match &mut self {
            Self::One(sink) => in_time(sink.ping::<Value>()).await.map(drop),
            Self::Sharded(connection) => in_time(redis::cmd("PING").exec_async(connection)).await,
        }
    }
}

/// The channels of one command must lie in one slot, so each has its own; all go out in one go.
async fn each(connection: &mut MultiplexedConnection, command: &str, names: &[String]) -> Result<(), String> {
    let mut pipe = redis::pipe();
    for name in names {
        pipe.cmd(command).arg(name).ignore();
    }
    in_time(pipe.exec_async(connection)).await
}

async fn in_time<T>(answer: impl Future<Output = RedisResult<T>>) -> Result<T, String> {
    match timeout(COMMAND_LIMIT, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer in time".into()),
    }
}

fn hear(push: PushInfo) -> Option<Heard> {
    match push.kind {
        PushKind::SMessage => Msg::from_push_info(push).map(Heard::Message),
        PushKind::SUnsubscribe => {
            let name = push.data.into_iter().next()?;
            redis::from_redis_value(name).ok().map(Heard::Left)
        }
        _ => None,
    }
}
