//! What connections that broke off are recognised by, and what their rooms' logs have for them.
//!
//! Moves no payload. The invariant: one round for many rooms, which reads little of a log in which
//! nothing came, and no more of all together than was asked for.

use std::sync::LazyLock;

use domain::{DeviceId, Membership, Rev, RoomId, UserId};
use uuid::Uuid;

use super::round::{Round, Script};
use super::{RedisEngine, keys};
use crate::recovery::since;
use crate::{LogNumber, REMEMBERED_FOR, RealtimeError, Remembered, Since};

/// Rooms in one round.
const SLICE: usize = 250;

static SINCE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/since.lua")));

impl RedisEngine {
    pub(crate) async fn since(
        &self,
        rooms: &[RoomId],
        after: LogNumber,
        most: usize,
    ) -> Result<Vec<Since>, RealtimeError> {
        if !self.is_ordered() {
            return Ok(vec![Since::Unknown; rooms.len()]);
        }
        let (mut found, mut left) = (Vec::with_capacity(rooms.len()), most);
        for slice in rooms.chunks(SLICE) {
            let mut round = Round::new(Some(&SINCE));
            let names: Vec<String> = slice.iter().map(|room| self.keys.log(*room)).collect();
            round.call(&names).arg(after.0).arg(left);
            let logs: Vec<Option<Vec<(i64, u64, bool)>>> = self.answer(&round).await?;
            for log in logs {
                let entries =
                    log.map(|log| log.into_iter().map(|(rev, number, begins)| (Rev(rev), LogNumber(number), begins)));
                found.push(entries.map_or(Since::Unknown, |entries| since(entries, after, &mut left)));
            }
        }
        Ok(found)
    }

    pub(crate) async fn remember(&self, pid: Uuid, remembered: &Remembered) -> Result<(), RealtimeError> {
        let Remembered { user, device, socket_id, membership, since } = remembered;
        let text =
            format!("{user} {device} {membership} {since} {socket_id}", membership = membership.0, since = since.0);
        let key = keys::recovery(pid);
        let mut round = Round::of(&key, "SET");
        self.answer(round.arg(&key).arg(text).arg("PX").arg(REMEMBERED_FOR.as_millis() as u64)).await
    }

    pub(crate) async fn recall(&self, pid: Uuid) -> Result<Option<Remembered>, RealtimeError> {
        let key = keys::recovery(pid);
        let text: Option<String> = self.answer(Round::of(&key, "GET").arg(&key)).await?;
        Ok(text.as_deref().and_then(parse))
    }

    pub(crate) async fn forget_connection(&self, pid: Uuid) -> Result<(), RealtimeError> {
        let key = keys::recovery(pid);
        self.send(Round::of(&key, "DEL").arg(&key)).await.map(drop)
    }
}

/// None of the parts but the last can hold a space.
fn parse(text: &str) -> Option<Remembered> {
    let mut parts = text.splitn(5, ' ');
    Some(Remembered {
        user: UserId(Uuid::try_parse(parts.next()?).ok()?),
        device: DeviceId::parse(parts.next()?).ok()?,
        membership: Membership(parts.next()?.parse().ok()?),
        since: LogNumber(parts.next()?.parse().ok()?),
        socket_id: parts.next()?.to_owned(),
    })
}
