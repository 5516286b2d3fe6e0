//! The first phase: finding out who a client says it is.
//!
//! Judges no token. The invariant: nothing of the system is touched for a client in this phase but
//! the time it has.

use domain::DeviceId;
use protocol::{Ack, ClientFrame, CloseCode, Code, Command, FrameId, Refusal, wire};
use transport::socketio::Assembler;
use transport::{Link, Received};

use crate::codec::Dialect;
use crate::door::offered::Offered;
use crate::handle::Signal;
use crate::handle::outbox::Kind;
use crate::session::connection::{Connection, End, Step};
use crate::shared::Shared;
use crate::socketio::{self, Claim, Connect, Said};

/// How often a client may get it wrong on one connection.
const AUTH_ATTEMPTS: u32 = 8;

/// A client that has not said who it is.
pub(crate) struct Unauthenticated {
    dialect: Dialect,
    offered: Offered,
    /// What the request itself brought is used once.
    is_first: bool,
    attempts: u32,
}

/// Who a client says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) token: String,
    pub(crate) device: Option<DeviceId>,
    /// Asks for an ack.
    pub(crate) id: Option<FrameId>,
    /// Asks for the recovery of a connection.
    pub(crate) claim: Option<Claim>,
}

/// Why a candidate was not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) refusal: Refusal,
    pub(crate) close: CloseCode,
}

/// What a packet in this phase came to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Candidate(Candidate),
    /// Answer that and wait for better.
    Refuse(Option<FrameId>, Refusal),
    /// There is no such namespace.
    NoNamespace(String),
    Ignore,
    End(End),
}

impl Unauthenticated {
    pub(crate) fn new(dialect: Dialect, offered: Offered) -> Self {
        Self { dialect, offered, is_first: true, attempts: 0 }
    }

    /// Waits for a client to say who it is.
    pub(crate) async fn candidate<L: Link>(&mut self, connection: &mut Connection<L>) -> Result<Candidate, End> {
        if let Some(candidate) = self.brought() {
            return Ok(candidate);
        }
        loop {
            match std::future::poll_fn(|cx| connection.poll_step(cx, true)).await {
                Step::Signal(Signal::Close(code)) => return Err(End::Close(code)),
                Step::Signal(_) => {}
                Step::Received(received) => match self.judge(received) {
                    Verdict::Candidate(candidate) => return Ok(candidate),
                    Verdict::Refuse(id, refusal) => self.answer(connection, id, refusal)?,
                    Verdict::NoNamespace(namespace) => {
                        self.count()?;
                        connection.handle.push(socketio::refuse_namespace(&namespace), Kind::Answer);
                    }
                    Verdict::Ignore => {}
                    Verdict::End(end) => return Err(end),
                },
            }
        }
    }

    /// What the request of a native client brought; Socket.IO asks for a packet in any case.
    fn brought(&mut self) -> Option<Candidate> {
        if !std::mem::take(&mut self.is_first) || !self.dialect.is_native() {
            return None;
        }
        let token = self.offered.token(None)?;
        Some(Candidate { token, device: self.offered.device.clone(), id: None, claim: None })
    }

    /// A candidate was not let in: a native client is closed, a Socket.IO client may try again
    /// unless it was known already who it is. When it is no fault of the client's, the transport of
    /// Socket.IO closes without a word: after `connect_error` the stock client stays away for good.
    pub(crate) fn refused<L: Link>(
        &mut self,
        shared: &Shared,
        connection: &Connection<L>,
        id: Option<FrameId>,
        failure: Failure,
    ) -> Result<(), End> {
        let is_known = connection.handle.identity().is_some();
        if self.dialect.is_native() {
            if let Some(id) = id {
                connection.handle.answer(&id, &Ack::Refusal(failure.refusal.into()));
            }
            return Err(End::Close(failure.close));
        }
        if !failure.close.is_final() {
            return Err(End::Close(failure.close));
        }
        let by_ms = shared.wheel.now_ms() + super::auth_within_ms(self.dialect);
        connection.handle.await_authentication(by_ms);
        shared.wheel.watch(&connection.handle);
        self.answer(connection, None, failure.refusal)?;
        if is_known { Err(End::Close(failure.close)) } else { Ok(()) }
    }

    fn answer<L: Link>(
        &mut self,
        connection: &Connection<L>,
        id: Option<FrameId>,
        refusal: Refusal,
    ) -> Result<(), End> {
        self.count()?;
        let handle = &connection.handle;
        // No token is a bad token: a native client is closed at once, not when its time is up.
        let is_over = self.dialect.is_native() && refusal.code == Code::Unauthenticated;
        match (self.dialect, id) {
            (Dialect::SocketIo, _) => handle.push(socketio::refuse(&refusal), Kind::Answer),
            (_, Some(id)) => handle.answer(&id, &Ack::Refusal(wire::Refusal::from(refusal))),
            (_, None) => handle.push(self.dialect.error(refusal), Kind::Answer),
        }
        if is_over { Err(End::Close(CloseCode::Unauthenticated)) } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), End> {
        self.attempts += 1;
        if self.attempts > AUTH_ATTEMPTS { Err(End::Close(CloseCode::Unauthenticated)) } else { Ok(()) }
    }

    fn judge(&self, received: Received) -> Verdict {
        match received {
            Received::Text(_) | Received::Binary(_) if self.dialect.is_native() => {
                match self.dialect.decode(&received) {
                    Ok(frame) => self.judge_frame(frame),
                    Err(close) => Verdict::End(End::Close(close)),
                }
            }
            Received::Text(text) => self.judge_packet(&text),
            Received::Binary(_) => Verdict::End(End::Close(CloseCode::BadFrame)),
            Received::Alive => Verdict::Ignore,
            Received::Broken(close) => Verdict::End(End::Close(close)),
            Received::Gone => Verdict::End(End::Gone),
        }
    }

    fn judge_frame(&self, frame: ClientFrame) -> Verdict {
        match frame.command {
            Ok(Command::Auth(auth)) => self.judge_credentials(Some(&auth.token), auth.device_id.as_deref(), frame.id),
            Err(refusal) if refusal.code == Code::InvalidPayload => Verdict::Refuse(frame.id, refusal),
            Ok(_) | Err(_) => Verdict::End(End::Close(CloseCode::Unauthenticated)),
        }
    }

    fn judge_packet(&self, text: &str) -> Verdict {
        // Nothing with attachments may come before a client was let in.
        let mut assembler = Assembler::default();
        match socketio::read(text, &mut assembler) {
            Ok(_) if assembler.is_waiting() => Verdict::End(End::Close(CloseCode::BadFrame)),
            Ok(Said::Connect(Connect { namespace, .. })) if namespace != socketio::NAMESPACE => {
                Verdict::NoNamespace(namespace)
            }
            Ok(Said::Connect(Connect { auth: Ok(auth), .. })) => {
                let claim = auth.claim();
                match self.judge_credentials(auth.token.as_deref(), auth.device_id.as_deref(), None) {
                    Verdict::Candidate(candidate) => Verdict::Candidate(Candidate { claim, ..candidate }),
                    verdict => verdict,
                }
            }
            Ok(Said::Connect(Connect { auth: Err(refusal), .. })) => Verdict::Refuse(None, refusal),
            Ok(Said::Close) => Verdict::End(End::Gone),
            Ok(Said::Leave | Said::Nothing) => Verdict::Ignore,
            Ok(Said::Frame(_)) | Err(_) => Verdict::End(End::Close(CloseCode::BadFrame)),
        }
    }

    fn judge_credentials(&self, token: Option<&str>, device: Option<&str>, id: Option<FrameId>) -> Verdict {
        let device = match device.filter(|name| !name.is_empty()).map(DeviceId::parse).transpose() {
            Ok(device) => device.or_else(|| self.offered.device.clone()),
            Err(invalid) => return Verdict::Refuse(id, invalid.into()),
        };
        match self.offered.token(token) {
            Some(token) => Verdict::Candidate(Candidate { token, device, id, claim: None }),
            None => Verdict::Refuse(id, Refusal::unauthenticated("a token is required")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn judge(dialect: Dialect, text: &str) -> Verdict {
        Unauthenticated::new(dialect, Offered::default()).judge(Received::Text(text.into()))
    }

    fn candidate(token: &str, device: Option<&str>, id: Option<FrameId>) -> Verdict {
        let device = device.map(|name| DeviceId::parse(name).expect("well-formed"));
        Verdict::Candidate(Candidate { token: token.into(), device, id, claim: None })
    }

    #[test]
    fn a_first_frame_says_who_it_is() {
        let text = r#"{"id":1,"event":"auth","data":{"token":"t","deviceId":"d"}}"#;
        assert_eq!(judge(Dialect::Native, text), candidate("t", Some("d"), Some(FrameId::Number(1))));
        let text = r#"40/chat,{"token":"t","deviceId":"d"}"#;
        assert_eq!(judge(Dialect::SocketIo, text), candidate("t", Some("d"), None));
    }

    #[rstest]
    #[case("hello", CloseCode::BadFrame)]
    #[case(r#"{"event":"ping"}"#, CloseCode::Unauthenticated)]
    #[case(r#"{"event":"no.such"}"#, CloseCode::Unauthenticated)]
    fn another_first_frame_ends_a_native_connection(#[case] text: &str, #[case] code: CloseCode) {
        assert_eq!(judge(Dialect::Native, text), Verdict::End(End::Close(code)));
    }

    #[rstest]
    #[case(r#"{"event":"auth","data":{"token":7}}"#, Code::InvalidPayload)]
    #[case(r#"{"event":"auth","data":{"token":"t","deviceId":"two words"}}"#, Code::InvalidPayload)]
    #[case(r#"{"event":"auth"}"#, Code::Unauthenticated)]
    fn bad_credentials_are_refused_and_may_be_repeated(#[case] text: &str, #[case] code: Code) {
        assert!(matches!(judge(Dialect::Native, text), Verdict::Refuse(None, refusal) if refusal.code == code));
    }

    #[test]
    fn other_namespaces_are_not_there() {
        for (text, name) in [("40", "/"), ("40/admin,", "/admin"), (r#"40{"token":"t"}"#, "/")] {
            assert_eq!(judge(Dialect::SocketIo, text), Verdict::NoNamespace(name.into()));
        }
    }

    #[test]
    fn a_token_in_the_request_is_used_at_once_by_native_and_kept_for_the_packet_by_socketio() {
        let offered = Offered { query: Some("q".into()), ..Offered::default() };
        let mut native = Unauthenticated::new(Dialect::Native, offered.clone());
        assert_eq!(native.brought().map(|candidate| candidate.token).as_deref(), Some("q"));
        assert_eq!(native.brought(), None);
        let mut socketio = Unauthenticated::new(Dialect::SocketIo, offered);
        assert_eq!(socketio.brought(), None);
        assert_eq!(socketio.judge(Received::Text("40/chat,".into())), candidate("q", None, None));
    }
}
