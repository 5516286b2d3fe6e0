//! One AMQP connection, and the means to end it whatever state it is in.
//!
//! Knows nothing of queues. The invariant: every step of connecting has a limit, and a link that is
//! given up takes its socket with it (a library thread that waits for a hung broker would stay).

use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use parking_lot::Mutex;

use crate::{ASK_LIMIT, BrokerError, within};

/// Seconds without a sign of life after which the peer doubts the connection; it is given up after
/// twice that. Short, for a hung broker is noticed by nothing else while nothing is published.
const HEARTBEAT_S: u16 = 4;
const REPLY_SUCCESS: u16 = 200;

/// A connection to the broker.
pub(super) struct Link {
    connection: Connection,
    socket: Socket,
}

/// A second handle on the connection's socket, for ending it.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<Option<TcpStream>>>);

impl Socket {
    fn keep(&self, socket: OwnedFd) {
        *self.0.lock() = Some(socket.into());
    }

    fn cut(&self) {
        if let Some(socket) = self.0.lock().take() {
            // It may be closed already, which is what is wanted.
            let _closed = socket.shutdown(Shutdown::Both);
        }
    }
}

/// Cuts the socket of a handshake that was given up.
struct CutOnDrop(Option<Socket>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(socket) = self.0.take() {
            socket.cut();
        }
    }
}

/// Reads the URL; the error does not repeat it, for it holds a password.
pub(super) fn parse_url(url: &str) -> Result<AMQPUri, BrokerError> {
    let malformed = |_| BrokerError::Unavailable("the AMQP URL is malformed".to_owned());
    let mut uri: AMQPUri = url.parse().map_err(malformed)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
    if uri.scheme == AMQPScheme::AMQPS {
        // Somebody else may have installed it first, which serves as well.
        let _installed = rustls::crypto::ring::default_provider().install_default();
    }
    Ok(uri)
}

impl Link {
    /// Connects, at most 5 s; `name` is what operators see.
    pub(super) async fn open(uri: &AMQPUri, name: &str) -> Result<Self, BrokerError> {
        let socket = Socket::default();
        let mut cut = CutOnDrop(Some(socket.clone()));
        let connection = within(ASK_LIMIT, async {
            let runtime = lapin::runtime::default_runtime().map_err(|error| unavailable(&error))?;
            let properties = ConnectionProperties::default().with_connection_name(name.into());
            let (kept, reactor) = (socket.clone(), runtime.clone());
            let dial = async move |uri: AMQPUri, _runtime| {
                let authority = &uri.authority;
                let found = tokio::net::lookup_host((authority.host.as_str(), authority.port)).await?;
                let stream = AsyncTcpStream::connect(&reactor, found.collect::<Vec<_>>()).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    kept.keep(plain.get_ref().as_fd().try_clone_to_owned()?);
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => {
                        Ok(stream.into_tls(&authority.host, OwnedTLSConfig::default().as_ref()).await?)
                    }
                }
            };
            Connection::connector(uri.clone(), runtime, dial, properties).await.map_err(|error| unavailable(&error))
        })
        .await?;
        cut.0 = None;
        Ok(Self { connection, socket })
    }

    /// The connection itself.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A new channel on it.
    pub(super) async fn channel(&self) -> Result<Channel, BrokerError> {
        asked(self.connection.create_channel()).await
    }

    /// Whether it was not lost yet, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker takes nothing from it at the moment (a resource alarm).
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Ends it at once; the broker takes back what was not acked.
    pub(super) fn cut(&self) {
        self.socket.cut();
    }

    /// Ends it in an orderly way, if the broker still answers.
    pub(super) async fn close(&self) {
        let goodbye = self.connection.close(REPLY_SUCCESS, "goodbye".into());
        let _late = tokio::time::timeout(Duration::from_secs(2), goodbye).await;
        self.socket.cut();
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.socket.cut();
    }
}

/// Asks the broker something, with a limit.
pub(super) async fn asked<T>(question: impl Future<Output = lapin::Result<T>>) -> Result<T, BrokerError> {
    within(ASK_LIMIT, async { question.await.map_err(|error| unavailable(&error)) }).await
}

/// Closes a channel in an orderly way; what it held unacked goes back to its queue.
pub(super) async fn close_channel(channel: &Channel) {
    // A channel that is closed already has given everything back.
    let _closed = asked(channel.close(REPLY_SUCCESS, "done".into())).await;
}

/// The library's error as ours.
pub(super) fn unavailable(error: &lapin::Error) -> BrokerError {
    match error.kind() {
        ErrorKind::ParsingError(_) => BrokerError::Unreadable(error.to_string()),
        _ => BrokerError::Unavailable(error.to_string()),
    }
}

/// True when the broker says that what was asked about is not there (404).
pub(super) fn is_missing(error: &lapin::Error) -> bool {
    const NOT_FOUND: u16 = 404;
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == NOT_FOUND)
}

/// True when the broker refused a declaration because what is there has other arguments (406).
pub(super) fn is_contradiction(error: &lapin::Error) -> bool {
    const PRECONDITION_FAILED: u16 = 406;
    matches!(error.kind(), ErrorKind::ProtocolError(error) if error.get_id() == PRECONDITION_FAILED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_url_is_not_repeated() {
        let error = parse_url("amqp://app:secret@ho st/").expect_err("malformed").to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn heartbeats_are_short_unless_the_url_says_otherwise() {
        let heartbeat = |url| parse_url(url).expect("well-formed").query.heartbeat;
        assert_eq!(heartbeat("amqp://host/"), Some(HEARTBEAT_S));
        assert_eq!(heartbeat("amqp://host/?heartbeat=9"), Some(9));
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_unavailable_and_let_go() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let uri = parse_url(&format!("amqp://127.0.0.1:{port}/")).expect("well-formed");
        let (opened, accepted) = tokio::join!(Link::open(&uri, "test"), listener.accept());
        assert!(matches!(opened, Err(BrokerError::Unavailable(_))));
        let (mut socket, _) = accepted.expect("dialled");
        let mut heard = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut heard);
        tokio::time::timeout(Duration::from_secs(5), read).await.expect("the socket was cut").expect("readable");
        assert_eq!(&heard[..4], b"AMQP");
    }
}
