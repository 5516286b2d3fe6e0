//! What every request may use; made once.

use std::sync::Arc;

use auth::Tokens;
use broker::Broker;
use config::Settings;
use domain::rate::Rate;
use engine::Engine;
use handlers::{HandlerParts, Handlers};
use intake::{Intake, IntakeParts};
use runtime::{Clock, Shutdown, Tasks};
use store::Store;

use crate::ApiParts;
use crate::logins::Logins;
use crate::polls::Polls;
use crate::user::Accounts;

/// The service's parts, shared by all requests.
pub(crate) struct App {
    pub(crate) settings: Arc<Settings>,
    pub(crate) store: Store,
    pub(crate) broker: Broker,
    pub(crate) clock: Clock,
    pub(crate) tokens: Tokens,
    pub(crate) intake: Intake,
    pub(crate) handlers: Handlers,
    pub(crate) accounts: Accounts,
    pub(crate) logins: Logins,
    pub(crate) polls: Arc<Polls>,
    pub(crate) stopping: Shutdown,
}

/// An intake of its own, for an api without a gateway beside it.
pub fn intake(settings: &Settings, engine: &Engine, tasks: &Tasks) -> Intake {
    let rate = Rate { per_second: settings.limits.user_events_per_sec, burst: settings.limits.user_burst };
    let parts = IntakeParts {
        broker: engine.broker.clone(),
        store: engine.store.clone(),
        realtime: engine.realtime.clone(),
        keys: engine.keys.clone(),
        clock: engine.clock.clone(),
        rate,
        queued_events: settings.limits.queued_events,
    };
    Intake::new(parts, tasks)
}

impl App {
    pub(crate) fn new(parts: ApiParts) -> Self {
        let ApiParts { settings, engine, tokens, intake, tasks, stopping } = parts;
        let polls = Polls::start(&engine.realtime, engine.keys.clone(), &tasks);
        let handlers = HandlerParts {
            store: engine.store.clone(),
            realtime: engine.realtime.clone(),
            keys: engine.keys.clone(),
            clock: engine.clock.clone(),
        };
        Self {
            intake,
            handlers: Handlers::new(handlers),
            store: engine.store,
            broker: engine.broker,
            clock: engine.clock,
            tokens,
            accounts: Accounts::default(),
            logins: Logins::new(settings.limits.logins_per_min),
            polls,
            stopping,
            settings,
        }
    }
}
