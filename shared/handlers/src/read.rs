//! Read receipts: a direct event, a watermark that only moves forward.

use std::time::Duration;

use domain::{MessageId, RoomId, Seq, UserId};
use protocol::{Channel, EventData, OpenedDelivery, Refusal, wire};
use store::{ReadMark, Reading};

use crate::Handlers;
use crate::fanout::Planned;

/// Clocks of edges may differ by so much, and a read mark be committed so much after its moment.
pub(crate) const MARKS_LAG: Duration = Duration::from_secs(10);

fn done() -> wire::Done {
    wire::Done { status: "OK".to_owned() }
}

impl Handlers {
    /// Marks everything up to and including a message as read, and tells the room if that is news.
    pub async fn read(&self, user: UserId, read: wire::MessageRead) -> Result<wire::Done, Refusal> {
        let room = RoomId::parse("roomId", &read.room_id)?;
        let store = self.store();
        let standing = store.standing(room, user).await.map_err(|error| error.refusal())?;
        if standing.is_none() {
            return Err(Refusal::not_found("room"));
        }
        let seq = self.read_position(room, &read).await?;
        let now = self.parts.clock.now();
        let seq = match store.set_read(room, user, seq, now).await.map_err(|error| error.refusal())? {
            Reading::Moved(seq) => seq,
            Reading::Stood => return Ok(done()),
            // Who reads has been removed just now.
            Reading::NoMember => return Err(Refusal::not_found("room")),
        };
        let mark = ReadMark { room, user, seq, at: now };
        let delivery = OpenedDelivery::passing(EventData::MessageRead(mark.to_wire()));
        let planned = Planned { channel: Channel::Room(room), delivery };
        // The watermark is stored; who misses the telling finds it in the next sync.
        if let Err(error) = self.publish(&[planned]).await {
            tracing::warn!(%error, "a read receipt was not published");
        }
        Ok(done())
    }

    async fn read_position(&self, room: RoomId, read: &wire::MessageRead) -> Result<Seq, Refusal> {
        match (read.seq, &read.message_id) {
            (Some(seq), _) if seq >= 0 => Ok(Seq(seq)),
            (Some(_), _) => Err(Refusal::invalid("seq", "must not be negative")),
            (None, Some(id)) => {
                let id = MessageId::parse("messageId", id)?;
                let row = self.store().message(id).await.map_err(|error| error.refusal())?;
                let row = row.filter(|row| row.room == room).ok_or_else(|| Refusal::not_found("message"))?;
                Ok(row.seq)
            }
            (None, None) => Err(Refusal::invalid("seq", "or messageId is required")),
        }
    }
}
