//! A gateway moved by hand: no task, no timer, one step after another.
//!
//! For those who count what a message costs (`tools/guards`). It has no rule of its own: it calls what
//! sessions and the task of deliveries call. The invariant: nothing happens but between call and return.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use config::Settings;
use domain::room::{Role, RoomKind};
use domain::{DeviceId, Rev, RoomId, SessionId, Timestamp, UserId};
use engine::Engine;
use protocol::{Channel, Keyring};
use realtime::LogNumber;
use runtime::Tasks;
use transport::Link;

use crate::codec::Dialect;
use crate::handle::Identity;
use crate::hub::{Hub, Known, Ticket};
use crate::idle::Idle;
use crate::lookups::Lookups;
use crate::session::{Connection, Open, Renewals};
use crate::shared::Shared;
use crate::{Desks, delivery, share};

/// Sessions of a gateway, each with its link.
pub struct Bench<L> {
    shared: Arc<Shared>,
    keys: Keyring,
    sessions: Vec<(Open, Connection<L>)>,
}

impl<L: Link> Bench<L> {
    /// A gateway without sessions.
    pub fn new(settings: &Settings, engine: Engine, tasks: Tasks) -> Self {
        // Who would carry out what they ask for is not there; nothing here asks for anything.
        let (hub, _) = Hub::new(settings.limits.user_devices);
        let (idle, _) = Idle::new(settings.presence.idle);
        let (renewals, _) = Renewals::new();
        let (lookups, _) = Lookups::new();
        let (inbox, keys) = (engine.realtime.inbox().id(), engine.keys.clone());
        let shared = Arc::new(share(settings, engine, tasks, hub, inbox, Desks { idle, renewals, lookups }));
        Self { shared, keys, sessions: Vec::new() }
    }

    /// Opens a session of `user`, who is a member of these rooms, all of them at `rev`; its number, from 0 on.
    pub fn open(&mut self, user: UserId, rooms: &[RoomId], rev: Rev, dialect: Dialect, link: L) -> usize {
        let number = self.sessions.len();
        // Far beyond what anything here lasts, and no overflow.
        let handle = self.shared.new_handle(dialect, u64::MAX / 2);
        let session = SessionId::from(uuid::Uuid::from_u128(number as u128));
        let identity = Identity { user, session, device: DeviceId::generate() };
        handle.identify(identity.clone());
        handle.authenticated(u64::MAX);
        let hub = &self.shared.hub;
        hub.users.enter(&handle);
        handle.reserve_rooms(rooms.len());
        hub.enter(&handle, rooms);
        hub.subscribed(rooms);
        let known = |room: &RoomId| Known { room: *room, rev, kind: RoomKind::Group, role: Role::Member };
        hub.arm(&handle, Ticket::OPENING, &rooms.iter().map(known).collect::<Vec<_>>());
        for room in rooms {
            hub.open(&handle, *room, Ticket::OPENING);
        }
        handle.followed.begin(LogNumber::NONE);
        handle.take_early();
        let connection = Connection::new(link, Arc::clone(&handle));
        let open = Open::new(Arc::clone(&self.shared), handle, identity, Timestamp(i64::MAX), Vec::new());
        self.sessions.push((open.arrived(), connection));
        number
    }

    /// Takes what came by pub/sub.
    pub fn take(&self, channel: Channel, number: LogNumber, payload: &[u8]) {
        delivery::take(&self.shared, &self.keys, channel, number, payload);
    }

    /// Does what the task of a session does once it is woken, until it would wait. False: the session ends.
    pub fn step(&mut self, session: usize) -> bool {
        let (open, connection) = &mut self.sessions[session];
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(next) = open.poll_next(connection, &mut cx) {
            if open.see_to(next).is_break() {
                return false;
            }
        }
        true
    }
}
