//! The logs of many rooms, read in one round, on a cluster in two.
//!
//! Knows the log's entries only by the name of their payload. The invariant: the servers answer with
//! no more than was allowed, whatever the logs hold.

use std::sync::LazyLock;

use bytes::Bytes;
use redis::Value;

use super::RedisEngine;
use super::round::{Round, Script, read};
use crate::{LogAsked, RealtimeError};

static ROOM_LOGS: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/room_logs.lua")));

/// What a log has.
enum Log {
    /// These.
    Has(Vec<Bytes>),
    /// So many bytes, for which there was no place.
    IsLarge(usize),
    Unknown,
}

impl Log {
    fn read(answer: Value) -> Result<Self, RealtimeError> {
        Ok(match answer {
            Value::Array(_) => {
                let payloads: Vec<Vec<u8>> = read(answer)?;
                Self::Has(payloads.into_iter().map(Bytes::from).collect())
            }
            Value::Int(bytes) => Self::IsLarge(bytes as usize),
            _ => Self::Unknown,
        })
    }

    fn into_payloads(self) -> Option<Vec<Bytes>> {
        match self {
            Self::Has(payloads) => Some(payloads),
            Self::IsLarge(_) | Self::Unknown => None,
        }
    }
}

impl RedisEngine {
    pub(crate) async fn room_logs(
        &self,
        asked: &[LogAsked],
        bytes: usize,
    ) -> Result<Vec<Option<Vec<Bytes>>>, RealtimeError> {
        let together = self.keys.together(asked.len()).max(1);
        let shares = asked.len().div_ceil(together).max(1);
        // The first of each call says how much it may answer.
        let first: Vec<(LogAsked, usize)> = asked.iter().map(|one| (*one, bytes / shares)).collect();
        let mut logs = self.read_logs(&first, together).await?;
        if shares > 1 {
            self.read_large_ones(asked, bytes, &mut logs).await?;
        }
        Ok(logs.into_iter().map(Log::into_payloads).collect())
    }

    /// Logs on many nodes cannot share one allowance: those that need more than an equal share of it are
    /// read when it is known what the others have left over.
    async fn read_large_ones(&self, asked: &[LogAsked], bytes: usize, logs: &mut [Log]) -> Result<(), RealtimeError> {
        let size = |log: &Log| if let Log::Has(payloads) = log { payloads.iter().map(Bytes::len).sum() } else { 0 };
        let mut left = bytes.saturating_sub(logs.iter().map(size).sum());
        let mut large = Vec::new();
        for (place, log) in logs.iter().enumerate() {
            if let Log::IsLarge(bytes) = log
                && *bytes <= left
            {
                left -= bytes;
                large.push((place, (asked[place], *bytes)));
            }
        }
        let (places, again): (Vec<usize>, Vec<_>) = large.into_iter().unzip();
        for (place, log) in places.into_iter().zip(self.read_logs(&again, 1).await?) {
            logs[place] = log;
        }
        Ok(())
    }

    async fn read_logs(&self, asked: &[(LogAsked, usize)], together: usize) -> Result<Vec<Log>, RealtimeError> {
        let mut round = Round::new(Some(&ROOM_LOGS));
        for asked in asked.chunks(together) {
            let names: Vec<String> = asked.iter().map(|(one, _)| self.keys.log(one.room)).collect();
            round.call(&names).arg(asked[0].1);
            for (one, _) in asked {
                round.arg(one.after.0.max(0)).arg(one.limit.max(1));
            }
        }
        let mut logs = Vec::with_capacity(asked.len());
        for answers in self.send(&round).await? {
            for answer in read::<Vec<Value>>(answers)? {
                logs.push(Log::read(answer)?);
            }
        }
        Ok(logs)
    }
}
