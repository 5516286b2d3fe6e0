//! What connections that broke off are recognised by, and what their rooms' logs have for them.
//!
//! Reads no payload. The invariant: one round trip for the usual case that little or nothing came.

use std::time::Duration;

use domain::{DeviceId, Membership, RoomId, UserId};
use uuid::Uuid;

use super::fanout::{Entry, read};
use super::{RedisEngine, keys};
use crate::recovery::since;
use crate::{LogNumber, REMEMBERED_FOR, RealtimeError, Remembered, Since};

/// Rooms in one round.
const SLICE: usize = 250;
/// Entries looked at first, and where that is not enough.
const FEW: usize = 4;
const MANY: usize = 129;

impl RedisEngine {
    pub(crate) async fn since(&self, rooms: &[RoomId], after: LogNumber) -> Result<Vec<Since>, RealtimeError> {
        let mut found = Vec::with_capacity(rooms.len());
        for slice in rooms.chunks(SLICE) {
            found.extend(self.newest(slice, FEW, after).await?);
        }
        let unknown = |at: &usize| found[*at] == Since::Unknown;
        let again: Vec<usize> = (0..rooms.len()).filter(unknown).collect();
        for slice in again.chunks(SLICE) {
            let rooms: Vec<RoomId> = slice.iter().map(|at| rooms[*at]).collect();
            for (at, since) in slice.iter().zip(self.newest(&rooms, MANY, after).await?) {
                found[*at] = since;
            }
        }
        Ok(found)
    }

    async fn newest(&self, rooms: &[RoomId], count: usize, after: LogNumber) -> Result<Vec<Since>, RealtimeError> {
        let mut pipe = redis::pipe();
        for room in rooms {
            pipe.cmd("XREVRANGE").arg(keys::log(*room)).arg("+").arg("-").arg("COUNT").arg(count);
        }
        let logs: Vec<Vec<Entry>> = self.pipeline(&pipe).await?;
        let one = |entries: Vec<Entry>| {
            let is_whole = entries.len() < count;
            let entries: Option<Vec<_>> = entries.into_iter().map(read).collect();
            entries.map_or(Since::Unknown, |entries| since(entries.into_iter(), is_whole, after))
        };
        Ok(logs.into_iter().map(one).collect())
    }

    pub(crate) async fn remember(&self, pid: Uuid, remembered: &Remembered) -> Result<(), RealtimeError> {
        let Remembered { user, device, socket_id, membership, since } = remembered;
        let text =
            format!("{user} {device} {membership} {since} {socket_id}", membership = membership.0, since = since.0);
        let mut pipe = redis::pipe();
        pipe.cmd("SET").arg(keys::recovery(pid)).arg(text).arg("PX").arg(ms(REMEMBERED_FOR)).ignore();
        self.pipeline(&pipe).await
    }

    pub(crate) async fn recall(&self, pid: Uuid) -> Result<Option<Remembered>, RealtimeError> {
        let (text,): (Option<String>,) = self.pipeline(redis::pipe().get(keys::recovery(pid))).await?;
        Ok(text.as_deref().and_then(parse))
    }

    pub(crate) async fn forget_connection(&self, pid: Uuid) -> Result<(), RealtimeError> {
        self.pipeline(redis::pipe().del(keys::recovery(pid)).ignore()).await
    }
}

fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
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
