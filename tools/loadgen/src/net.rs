//! Gets a connection as far as its handshake: TCP, TLS where the address asks for it, HTTP's upgrade.
//!
//! Knows no dialect. The invariant: a handshake ends within its time limit, with a socket or with what the
//! server said instead.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const LIMIT: Duration = Duration::from_secs(30);
const LONGEST_HEAD: usize = 16 * 1024;

/// Where a server listens.
#[derive(Clone)]
pub(crate) struct Target {
    host: String,
    address: std::net::SocketAddr,
    tls: Option<Arc<ClientConfig>>,
}

/// Bytes both ways.
pub(crate) enum Io {
    /// TCP.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum NoConnection {
    /// The server answered with this status.
    Answered(u16),
    /// It could not be reached, or broke off.
    Failed(anyhow::Error),
}

impl Target {
    /// From `ws://`, `wss://`, `http://` or `https://`; the path is left out.
    pub(crate) async fn resolve(url: &str) -> anyhow::Result<Self> {
        let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} is no address: ws://host:port"))?;
        let secure = match scheme {
            "ws" | "http" => false,
            "wss" | "https" => true,
            _ => bail!("{scheme}:// is neither ws:// nor wss://"),
        };
        let host = rest.split('/').next().unwrap_or_default().to_owned();
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let authority = if has_port { host.clone() } else { format!("{host}:{}", if secure { 443 } else { 80 }) };
        let address = lookup_host(&authority).await.with_context(|| format!("{authority} is unknown"))?.next();
        let address = address.with_context(|| format!("{authority} has no address"))?;
        let tls = secure.then(|| {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
        });
        Ok(Self { host, address, tls })
    }

    /// Upgrades to a WebSocket; what was read after the handshake comes along.
    pub(crate) async fn open(&self, path: &str, subprotocol: Option<&str>) -> Result<(Io, Vec<u8>), NoConnection> {
        let handshake = async {
            let mut io = self.connect().await.map_err(NoConnection::Failed)?;
            let rest = self.upgrade(&mut io, path, subprotocol).await?;
            Ok((io, rest))
        };
        let late = |_| Err(NoConnection::Failed(anyhow::anyhow!("no handshake within {} s", LIMIT.as_secs())));
        tokio::time::timeout(LIMIT, handshake).await.unwrap_or_else(late)
    }

    async fn connect(&self) -> anyhow::Result<Io> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Io::Plain(stream)) };
        let name = self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name);
        let name = ServerName::try_from(name.to_owned())?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await?;
        Ok(Io::Tls(Box::new(stream)))
    }

    async fn upgrade(&self, io: &mut Io, path: &str, protocol: Option<&str>) -> Result<Vec<u8>, NoConnection> {
        let key = STANDARD.encode(rand::random::<[u8; 16]>());
        let protocol = protocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{protocol}\r\n",
            self.host
        );
        let failed = |error: io::Error| NoConnection::Failed(error.into());
        io.write_all(request.as_bytes()).await.map_err(failed)?;
        let mut answer = Vec::with_capacity(512);
        loop {
            if io.read_buf(&mut answer).await.map_err(failed)? == 0 {
                return Err(NoConnection::Failed(anyhow::anyhow!("the server hung up during the handshake")));
            }
            let mut headers = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut headers);
            match response.parse(&answer) {
                Ok(httparse::Status::Complete(used)) if response.code == Some(101) => {
                    return Ok(answer.split_off(used));
                }
                Ok(httparse::Status::Complete(_)) => {
                    return Err(NoConnection::Answered(response.code.unwrap_or_default()));
                }
                Ok(httparse::Status::Partial) if answer.len() < LONGEST_HEAD => {}
                _ => return Err(NoConnection::Failed(anyhow::anyhow!("the server's answer is no HTTP"))),
            }
        }
    }
}

impl Io {
    /// Writes what can be written at once, without waiting to be polled.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
