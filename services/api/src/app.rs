//! What every request may use; made once.

use std::sync::Arc;

use auth::Tokens;
use config::Settings;
use domain::rate::Rate;
use handlers::{HandlerParts, Handlers};
use intake::{Intake, IntakeParts};
use runtime::Clock;
use store::Store;

use crate::ApiParts;
use crate::logins::Logins;
use crate::purge;
use crate::user::Accounts;

/// The service's parts, shared by all requests.
pub(crate) struct App {
    pub(crate) settings: Arc<Settings>,
    pub(crate) store: Store,
    pub(crate) clock: Clock,
    pub(crate) tokens: Tokens,
    pub(crate) intake: Intake,
    pub(crate) handlers: Handlers,
    pub(crate) accounts: Accounts,
    pub(crate) logins: Logins,
}

impl App {
    pub(crate) fn new(parts: ApiParts) -> Self {
        let ApiParts { settings, engine, tasks, tokens } = parts;
        let limits = settings.limits;
        let rate = Rate { per_second: limits.user_events_per_sec, burst: limits.user_burst };
        let intake = IntakeParts {
            broker: engine.broker.clone(),
            store: engine.store.clone(),
            keys: engine.keys.clone(),
            clock: engine.clock.clone(),
            rate,
        };
        let handlers = HandlerParts {
            store: engine.store.clone(),
            realtime: engine.realtime.clone(),
            keys: engine.keys.clone(),
            clock: engine.clock.clone(),
        };
        purge::start(engine.store.clone(), engine.clock.clone(), &tasks);
        Self {
            intake: Intake::new(intake, &tasks),
            handlers: Handlers::new(handlers),
            store: engine.store,
            clock: engine.clock,
            tokens,
            accounts: Accounts::default(),
            logins: Logins::new(limits.logins_per_min),
            settings,
        }
    }
}
