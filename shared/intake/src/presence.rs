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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use broker::{Broker, BrokerSettings, Depths};
    use domain::rate::Rate;
    use domain::room::{Role, RoomKind};
    use domain::{EventKind, UserId};
    use protocol::Keyring;
    use realtime::{Realtime, RealtimeSettings};
    use runtime::{Clock, Shutdown, Tasks};
    use store::{Store, StoreSettings};
    use testkit::{PATIENCE, until};

    use super::*;
    use crate::limiter::Limiter;
    use crate::load::{Load, sampled};
    use crate::{Inner, IntakeParts};

    /// An intake that is told how long the queues are; what it publishes waits in a broker of its own.
    struct Scene {
        intake: Intake,
        actor: Actor,
        _tasks: Tasks,
        _folder: tempfile::TempDir,
    }

    impl Scene {
        async fn new(queued_events: u32) -> Self {
            telemetry::recorder::install();
            let (tasks, folder) = (Tasks::new(Shutdown::new()), tempfile::tempdir().expect("a folder"));
            let path = |name: &str| folder.path().join(name);
            let broker = BrokerSettings::Embedded { path: path("broker.db"), sync_full: false };
            let store = StoreSettings::Sqlite { path: path("chat.db"), sync_full: false };
            let (clock, rate) = (Clock::system(), Rate { per_second: 0, burst: 0 });
            let parts = IntakeParts {
                broker: Broker::open(broker, &tasks).await.expect("opens"),
                store: Store::open(store).await.expect("opens"),
                realtime: Realtime::open(RealtimeSettings::Embedded, &tasks).await.expect("opens"),
                keys: Keyring::parse(&format!("k1:{}", "QUJD".repeat(11))).expect("keys"),
                clock: clock.clone(),
                rate,
                queued_events,
            };
            let load = Arc::new(Load::new(1, queued_events, clock));
            let intake = Intake { inner: Arc::new(Inner { parts, limiter: Limiter::new(rate), load }) };
            let actor = Actor { user: UserId::generate(), device: String::new(), traceparent: None };
            Self { intake, actor, _tasks: tasks, _folder: folder }
        }

        fn see(&self, high: u64) {
            let at_us = self.intake.inner.parts.clock.monotonic_us().max(1);
            let samples = sampled(&Depths::ready(vec![[high, 0, 0]]), &Default::default(), None, at_us);
            self.intake.inner.load.note(&samples, at_us);
        }

        /// Somebody types, and chooses a presence.
        fn say_both(&self) {
            let typing = wire::SetTyping { room_id: Uuid::from_u128(1).to_string(), is_typing: true };
            let standing = Some((RoomKind::Group, Role::Member));
            let typed = self.intake.typing(&self.actor, typing, standing).expect("taken");
            let wish = wire::PresenceSet { status: "away".to_owned() };
            let wished = self.intake.set_presence(&self.actor, wish).expect("taken");
            assert_eq!((typed.status.as_str(), wished.status.as_str()), ("OK", "OK"));
        }

        /// Panics unless so many are published, and no more.
        async fn published(&self, count: u64) {
            let broker = &self.intake.inner.parts.broker;
            until(PATIENCE, || async { broker.depths().await.is_ok_and(|depths| depths.low == count) }).await;
        }
    }

    fn shed() -> u64 {
        let text = telemetry::recorder::install().render();
        let count = text.lines().find_map(|line| line.strip_prefix("chat_events_shed_total ")?.parse().ok());
        count.unwrap_or(0)
    }

    #[tokio::test]
    async fn over_ten_thousand_messages_typing_and_presence_are_acked_and_not_published() {
        let (scene, before) = (Scene::new(50_000).await, shed());
        scene.see(10_000);
        scene.say_both();
        scene.published(2).await;
        for depth in [10_001, 8_001] {
            scene.see(depth);
            scene.say_both();
        }
        assert_eq!(shed() - before, 4);
        scene.see(8_000);
        scene.say_both();
        scene.published(4).await;
        assert_eq!(shed() - before, 4);
    }

    #[tokio::test]
    async fn while_messages_are_refused_typing_and_presence_are_acked_and_not_published() {
        let (scene, before) = (Scene::new(1_000).await, shed());
        for depth in [1_001, 801] {
            scene.see(depth);
            assert!(scene.intake.inner.load.enter(EventKind::MessageSend, Uuid::nil()).is_err());
            scene.say_both();
        }
        assert_eq!(shed() - before, 4);
        scene.see(800);
        scene.say_both();
        scene.published(2).await;
        assert_eq!(shed() - before, 4);
    }
}
