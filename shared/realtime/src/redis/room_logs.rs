//! The logs of many rooms, read in one round.
//!
//! Knows the log's entries only by the name of their payload. The invariant: the server answers with
//! no more than was allowed, whatever the logs hold.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::Script;

use super::{RedisEngine, keys};
use crate::{LogAsked, RealtimeError};

static ROOM_LOGS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/room_logs.lua")));

impl RedisEngine {
    pub(crate) async fn room_logs(
        &self,
        asked: &[LogAsked],
        bytes: usize,
    ) -> Result<Vec<Option<Vec<Bytes>>>, RealtimeError> {
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let mut script = ROOM_LOGS.prepare_invoke();
        script.arg(bytes);
        for one in asked {
            script.key(keys::log(one.room)).arg(one.after.0.max(0)).arg(one.limit.max(1));
        }
        let answers: Vec<Option<Vec<Vec<u8>>>> = self.script(&script).await?;
        let read = |payloads: Vec<Vec<u8>>| payloads.into_iter().map(Bytes::from).collect();
        Ok(answers.into_iter().map(|payloads| payloads.map(read)).collect())
    }
}
