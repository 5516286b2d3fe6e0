//! The edge: sockets in, deliveries out.
//!
//! A client's frames pass `transport`, `session` and `commands` on their way in; what is told to it
//! passes `delivery`, `hub` and `outbox` on its way out. Knows the ports through `intake` and
//! `handlers`, and never a processor or the REST service. The invariant: what a client was told is
//! `QUEUED` is with the broker, and each room's events reach each connection in the order of `rev`.

pub mod bench;
mod codec;
mod commands;
mod delivery;
mod door;
mod drain;
mod entering;
mod following;
mod handle;
mod hub;
mod idle;
mod lookups;
mod pages;
mod presence;
mod refusals;
mod routes;
mod session;
mod shared;
mod socketio;
mod typing;
mod upkeep;
mod watch;
mod wheel;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use auth::Tokens;
use axum::Router;
use config::Settings;
use domain::limits;
use domain::rate::Rate;
use engine::Engine;
use handlers::{HandlerParts, Handlers};
use intake::{Intake, IntakeParts};
use protocol::wire::SessionLimits;
use runtime::{Shutdown, Tasks};
use tokio::sync::Notify;
use transport::engineio::{self, Server};
use uuid::Uuid;

pub use crate::codec::Dialect;
use crate::door::admission::Admission;
use crate::door::openings::Openings;
use crate::handle::Meters;
use crate::handle::deadlines;
use crate::hub::{Hub, Requests};
use crate::idle::Idle;
use crate::lookups::Lookups;
use crate::presence::Turns;
use crate::session::{Renewals, recovery};
use crate::shared::Shared;
use crate::typing::Published;
use crate::watch::changes::Doubts;
use crate::watch::{beacon, changes, gaps, tail};
use crate::wheel::Wheel;

/// What a gateway works with.
pub struct GatewayParts {
    /// The process's settings; checked, so the token secret is there.
    pub settings: Arc<Settings>,
    /// The three ports.
    pub engine: Engine,
    /// What its background tasks and connections run under.
    pub tasks: Tasks,
}

/// A running gateway. Clones share it.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
    origins: Vec<String>,
}

impl Gateway {
    /// Starts the background tasks; connections come by the router.
    pub fn start(parts: GatewayParts) -> Self {
        let GatewayParts { settings, engine, tasks } = parts;
        let inbox = engine.realtime.inbox();
        let (hub, requests) = Hub::new(settings.limits.user_devices);
        let (idle, returned) = Idle::new(settings.presence.idle);
        let (renewals, asked) = Renewals::new();
        let (lookups, questions) = Lookups::new();
        let keys = engine.keys.clone();
        let shared =
            Arc::new(share(&settings, engine, tasks.clone(), hub, inbox.id(), Desks { idle, renewals, lookups }));
        let lost = Arc::new(Notify::new());
        let Requests { fills, joins } = requests;

        tasks.own("deliveries", delivery::run(Arc::clone(&shared), inbox, keys, Arc::clone(&lost)));
        tasks.own("gaps", gaps::fill_gaps(Arc::clone(&shared), fills));
        tasks.own("joins", gaps::carry_out_joins(Arc::clone(&shared), joins));
        tasks.own("comparison", gaps::compare(Arc::clone(&shared), lost));
        tasks.own("changes", changes::watch(Arc::clone(&shared)));
        tasks.own("reconciliation", changes::reconcile(Arc::clone(&shared)));
        tasks.own("renewals", recovery::run(Arc::clone(&shared), asked));
        tasks.own("look-ups", lookups::answer(Arc::clone(&shared), questions));
        tasks.own("tail", tail::follow(Arc::clone(&shared)));
        if !settings.beacon_every.is_zero() {
            tasks.own("beacons", beacon::run(Arc::clone(&shared), settings.beacon_every));
        }
        tasks.own("sweep", upkeep::sweep(Arc::clone(&shared)));
        tasks.own("idleness", idle::run(Arc::clone(&shared), returned));
        tasks.own("typing", typing::sweep(Arc::clone(&shared)));
        tasks.own("lease", presence::renew_lease(Arc::clone(&shared)));
        let turning = Arc::clone(&shared);
        let shutdown = tasks.shutdown().clone();
        tasks.own("wheel", async move { turning.wheel.run(shutdown).await });
        Self { shared, origins: settings.http.cors_origins.clone() }
    }

    /// `/ws` and its alias `/chat`, `/socket.io/`, and the page at `/`. The server must insert
    /// `ConnectInfo<SocketAddr>` for limits by address to work.
    pub fn router(&self) -> Router {
        routes::router(Arc::clone(&self.shared), &self.origins)
    }

    /// The way in that its sockets use.
    pub fn intake(&self) -> Intake {
        self.shared.intake.clone()
    }

    /// Refuses new connections and takes leave of the others; ten seconds at most.
    pub async fn drain(&self) {
        drain::drain(&self.shared).await;
    }
}

/// Where sessions ask something of the gateway's own tasks.
struct Desks {
    idle: Idle,
    renewals: Renewals,
    lookups: Lookups,
}

fn share(
    settings: &Settings,
    engine: Engine,
    tasks: Tasks,
    hub: Arc<Hub>,
    inbox: realtime::InboxId,
    desks: Desks,
) -> Shared {
    let Desks { idle, renewals, lookups } = desks;
    let Engine { store, broker, realtime, keys, clock, .. } = engine;
    let secret = settings.jwt_secret.as_ref().expect("settings that passed their checks hold the token secret");
    let rate = Rate { per_second: settings.limits.user_events_per_sec, burst: settings.limits.user_burst };
    let intake = IntakeParts {
        broker,
        store: store.clone(),
        realtime: realtime.clone(),
        keys: keys.clone(),
        clock: clock.clone(),
        rate,
        queued_events: settings.limits.queued_events,
    };
    let handlers = HandlerParts { store: store.clone(), realtime: realtime.clone(), keys, clock: clock.clone() };
    let gateway = Uuid::now_v7();
    Shared {
        hub,
        engine: Server::new(engineio(gateway)),
        wheel: Wheel::new(clock.clone()),
        turns: Turns::default(),
        idle,
        renewals,
        lookups,
        meters: Arc::new(Meters::default()),
        doubts: Doubts::default(),
        published: Published::default(),
        openings: Openings::new(&settings.limits),
        admission: Admission::new(&settings.limits, settings.http.trusted_proxies.clone()),
        store,
        realtime,
        inbox,
        intake: Intake::new(intake, &tasks),
        handlers: Handlers::new(handlers),
        tokens: Tokens::new(secret, settings.access_lifetime),
        clock,
        tasks,
        gateway,
        limits: session_limits(rate),
        draining: Shutdown::new(),
        return_within_ms: AtomicU64::new(drain::RETURN_WITHIN_MS),
        live: AtomicUsize::new(0),
        next_key: AtomicU64::new(1),
    }
}

fn engineio(gateway: Uuid) -> engineio::Config {
    engineio::Config {
        ping_interval_ms: deadlines::PING_EVERY_MS,
        ping_timeout_ms: deadlines::PONG_WITHIN_MS,
        max_payload: limits::FRAME_BYTES,
        // The end of the id is random.
        tag: gateway.simple().to_string().split_off(24),
    }
}

fn session_limits(rate: Rate) -> SessionLimits {
    SessionLimits {
        events_per_sec: i64::from(rate.per_second),
        burst: i64::from(rate.burst),
        frame_bytes: limits::FRAME_BYTES as i64,
        content_bytes: limits::CONTENT_BYTES as i64,
        sync_rooms: limits::SYNC_ROOMS as i64,
    }
}
