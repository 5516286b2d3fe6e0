//! Presence and typing on their way in: ephemeral, acked at submission, shed under load.

use domain::permission::Action;
use domain::presence::Status;
use domain::{JobId, RoomId};
use protocol::{Change, Refusal, wire};
use telemetry::Counter;
use uuid::Uuid;

use crate::{Actor, Intake, Standing, done, permit};

impl Intake {
    /// Passes on that a member types or has stopped.
    pub fn typing(&self, actor: &Actor, typing: wire::SetTyping, standing: Standing) -> Result<wire::Done, Refusal> {
        let room = RoomId::parse("roomId", &typing.room_id)?;
        permit(standing, Action::Send)?;
        self.submit_ephemeral(actor, room, Change::Typing(typing))
    }

    /// Passes on the presence a user chose.
    pub fn set_presence(&self, actor: &Actor, wish: wire::PresenceSet) -> Result<wire::Done, Refusal> {
        Status::parse_wish(&wish.status)?;
        self.submit_ephemeral(actor, RoomId(Uuid::nil()), Change::PresenceSet(wish))
    }

    fn submit_ephemeral(&self, actor: &Actor, room: RoomId, change: Change) -> Result<wire::Done, Refusal> {
        if self.inner.load.sheds() {
            Counter::EventsShed.inc();
            return Ok(done());
        }
        if !self.inner.parts.broker.is_connected() {
            return Err(Refusal::unavailable());
        }
        // Nobody waits for the confirm: an event that may be shed may be lost.
        drop(self.publish(actor, JobId::generate(), room, change, None));
        Ok(done())
    }
}
