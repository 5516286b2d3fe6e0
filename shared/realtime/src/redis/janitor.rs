//! The scheduled script: trims those online, extends the sessions of gateways that live and ends those
//! of gateways that died. Who is gone is noted as due to be looked at.
//!
//! Reads no socket and no store. The invariant: bounded work per run of the script, and one janitor
//! at a time.

use std::sync::LazyLock;

use domain::Timestamp;

use super::presence::people_script;
use super::round::Script;
use super::{RedisEngine, keys};
use crate::{JANITOR_DUE_AFTER, ONLINE_FOR, RealtimeError, Trimmed};

/// Users in one run of the script (about a millisecond of the server).
const SLICE: u64 = 500;

static JANITOR: LazyLock<Script> = people_script!("scripts/janitor.lua");
static DUE: LazyLock<Script> = people_script!("scripts/due.lua");

impl RedisEngine {
    pub(crate) async fn janitor(&self, now: Timestamp, grace_ms: i64) -> Result<Trimmed, RealtimeError> {
        let mut total = Trimmed::default();
        if !self.is_due(now).await? {
            return Ok(total);
        }
        let mut cursor = 0;
        loop {
            let (gone, extended, next, stale) = self.slice(now, cursor, grace_ms).await?;
            total.gone += gone;
            total.extended += extended;
            cursor = next;
            if cursor == 0 && stale < SLICE {
                return Ok(total);
            }
        }
    }

    async fn is_due(&self, now: Timestamp) -> Result<bool, RealtimeError> {
        let mut round = self.about_people(&DUE, now);
        round.arg(JANITOR_DUE_AFTER.as_millis() as u64).arg(keys::JANITOR_TTL.as_millis() as u64);
        self.answer(&round).await
    }

    async fn slice(&self, now: Timestamp, cursor: u64, grace_ms: i64) -> Result<(u64, u64, u64, u64), RealtimeError> {
        let mut round = self.about_people(&JANITOR, now);
        round.arg(ONLINE_FOR.as_millis() as u64).arg(SLICE).arg(cursor).arg(grace_ms);
        self.answer(&round).await
    }
}
