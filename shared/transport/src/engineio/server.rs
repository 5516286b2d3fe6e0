//! The sessions of one process by their ids, and how they begin.
//!
//! Serves none of them. The invariant: a session is registered for as long as its link is held.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use dashmap::DashMap;
use protocol::CloseCode;
use uuid::Uuid;

use super::polling::Polling;
use super::route::{self, Entry, Rejection, Route};
use super::{Config, EngineLink};
use crate::handshake::{Refused, Upgrade};
use crate::{Link as _, Socket};

/// An Engine.IO server. Clones share it.
#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    sessions: DashMap<Uuid, Entry>,
}

/// A session's place among the others; given back when dropped.
pub(crate) struct Registered {
    inner: Arc<Inner>,
    id: Uuid,
}

impl Server {
    /// A server without sessions.
    pub fn new(config: Config) -> Self {
        Self { inner: Arc::new(Inner { config, sessions: DashMap::new() }) }
    }

    /// Finds out what a request wants.
    pub fn route(&self, request: &Request) -> Result<Route, Rejection> {
        route::route(request, |sid| self.inner.find(sid))
    }

    /// Begins a session over long-polling: what serves it, and what carries it. The request that asked
    /// for it is its first poll.
    pub fn open_polling(&self) -> (EngineLink, Arc<Polling>) {
        let polling = Arc::<Polling>::default();
        let registered = Inner::register(&self.inner, Entry::Polling(Arc::clone(&polling)));
        (EngineLink::over_polling(registered, Arc::clone(&polling)), polling)
    }

    /// Begins a session over a WebSocket.
    pub fn open_socket(&self, socket: Socket) -> EngineLink {
        EngineLink::over_socket(Inner::register(&self.inner, Entry::Socket), socket)
    }

    /// Lets a session go over to a WebSocket: what the request is answered with, and what has to be
    /// done beside that.
    pub fn upgrade(
        &self,
        polling: Arc<Polling>,
        request: &mut Request,
    ) -> Result<(Response, impl Future<Output = ()> + Send + use<>), Refused> {
        let Upgrade { response, socket } = Upgrade::begin(request, None)?;
        let max_payload = self.inner.config.max_payload;
        let brought = async move {
            if let Some(socket) = socket.accept(max_payload).await
                && let Err(stray) = polling.bring(socket).await
            {
                stray.close(CloseCode::Normal).await;
            }
        };
        Ok((response, brought))
    }

    /// Accepts a WebSocket that belongs to nothing and closes it.
    pub fn turn_away(
        &self,
        request: &mut Request,
    ) -> Result<(Response, impl Future<Output = ()> + Send + use<>), Refused> {
        let Upgrade { response, socket } = Upgrade::begin(request, None)?;
        let max_payload = self.inner.config.max_payload;
        let turned_away = async move {
            if let Some(socket) = socket.accept(max_payload).await {
                socket.close(CloseCode::Normal).await;
            }
        };
        Ok((response, turned_away))
    }
}

impl Inner {
    /// The session of that id; one of another process is unknown here.
    fn find(&self, sid: &str) -> Option<Entry> {
        let id = sid.strip_prefix(self.config.tag.as_str())?.strip_prefix('-')?;
        let id = Uuid::try_parse(id).ok()?;
        self.sessions.get(&id).map(|entry| entry.clone())
    }

    fn register(inner: &Arc<Self>, entry: Entry) -> Registered {
        // Random: whoever knows a session's id may read and write it.
        let id = Uuid::new_v4();
        inner.sessions.insert(id, entry);
        Registered { inner: Arc::clone(inner), id }
    }
}

impl Registered {
    pub(crate) fn config(&self) -> &Config {
        &self.inner.config
    }

    pub(crate) fn sid(&self) -> String {
        format!("{}-{}", self.inner.config.tag, self.id.simple())
    }

    /// The session has gone over to a WebSocket.
    pub(crate) fn upgraded(&self) {
        self.inner.sessions.insert(self.id, Entry::Socket);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.inner.sessions.remove(&self.id);
    }
}
