//! Takes out what the library cannot read: messages with properties that are no text.
//!
//! RabbitMQ takes any bytes from whoever may publish. The library gives a connection up that delivers
//! such a message, and the next one, for ever. So this speaks the protocol itself, as far as it must.
//! The invariant: what the library can read stays where it is, and the rest is acked only after a dead
//! letter of it is confirmed.

use std::io;

use domain::{Cause, Class, Timestamp};
use futures_util::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use lapin::protocol::basic::parse_properties;
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use protocol::UnverifiedEnvelope;
use telemetry::Counter;

use super::copies::CopyLine;
use super::flight::Parcel;
use super::link::unavailable;
use super::properties;
use super::topology::{DEAD_EXCHANGE, queue_name};
use crate::consumer::Origin;
use crate::{ASK_LIMIT, BrokerError, DeadLetterNote, Failure, Incoming, within};

/// Messages of a queue that are looked at: more than a consumer is sent at once.
const LOOKS: usize = 512;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;
/// The one channel that is used.
const CHANNEL: u16 = 1;
/// Of a header frame, what lies before the properties: class, weight, size of the body.
const BEFORE_PROPERTIES: usize = 12;

/// A class and a method of the protocol.
type Method = (u16, u16);
const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CHANNEL_OPEN: Method = (20, 10);
const CHANNEL_OPEN_OK: Method = (20, 11);
const GET: Method = (60, 70);
const GET_OK: Method = (60, 71);
const GET_EMPTY: Method = (60, 72);
const ACK: Method = (60, 80);

/// Makes dead letters of what cannot be read among the first messages of these queues; how many.
pub(super) async fn rescue(
    uri: &AMQPUri,
    queues: impl Iterator<Item = (Class, String)>,
    copies: &mut CopyLine,
    at: Timestamp,
) -> Result<u64, BrokerError> {
    let mut wire = within(ASK_LIMIT, async { Wire::open(uri).await }).await?;
    let mut count = 0;
    for (class, routing_key) in queues {
        let queue = queue_name(&routing_key);
        for _ in 0..LOOKS {
            let got = within(ASK_LIMIT, async { wire.get(&queue).await.map_err(|error| lost(&error)) }).await?;
            let Some(message) = got else { break };
            if message.is_readable() {
                continue;
            }
            let tag = message.tag;
            copies.publish(vec![message.into_letter(class, &queue, &routing_key, at)]).await?;
            within(ASK_LIMIT, async { wire.ack(tag).await.map_err(|error| lost(&error)) }).await?;
            Counter::DeadLetters.inc_with(Cause::Undecodable.as_str());
            tracing::warn!(queue, "a message that no client can read became a dead letter");
            count += 1;
        }
    }
    // Answered behind the acks: they have arrived.
    within(ASK_LIMIT, async { wire.finish().await.map_err(|error| lost(&error)) }).await?;
    Ok(count)
}

fn lost(error: &io::Error) -> BrokerError {
    BrokerError::Unavailable(error.to_string())
}

/// A message as it came.
struct Message {
    tag: u64,
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    fn properties(&self) -> &[u8] {
        self.header.get(BEFORE_PROPERTIES..).unwrap_or_default()
    }

    fn is_readable(&self) -> bool {
        parse_properties(self.properties()).is_ok()
    }

    /// What operators get to see of it; nobody could process it.
    fn into_letter(self, class: Class, queue: &str, routing_key: &str, at: Timestamp) -> Parcel {
        // Behind two bytes that say which properties there are.
        let words = String::from_utf8_lossy(self.properties().get(2..).unwrap_or_default()).into_owned();
        let origin = Origin::RabbitMq { tag: self.tag, priority: None, content_type: None, app_id: None };
        let envelope = UnverifiedEnvelope { body: self.body.into(), ..Default::default() };
        let incoming = Incoming { envelope, class, failures: 0, first_failed_at: None, redelivered: true, origin };
        let rendering = serde_json::json!({ "properties": words }).to_string();
        let failure = Failure {
            cause: Cause::Undecodable,
            error: "its properties are no text, so that no processor can receive it".to_owned(),
            at,
            counts: true,
            note: DeadLetterNote { rendering, ..Default::default() },
        };
        let properties = properties::of_dead_letter(&incoming, &failure, queue, routing_key);
        let (exchange, routing_key) = (DEAD_EXCHANGE.to_owned(), routing_key.to_owned());
        Parcel { exchange, routing_key, properties, body: incoming.envelope.body }
    }
}

/// A connection with one channel; dropped, the broker takes back what was not acked.
struct Wire<S>(S);

impl Wire<()> {
    async fn open(uri: &AMQPUri) -> Result<Wire<impl AsyncRead + AsyncWrite + Unpin>, BrokerError> {
        let runtime = lapin::runtime::default_runtime().map_err(|error| unavailable(&error))?;
        let authority = &uri.authority;
        let opening = async {
            let found = tokio::net::lookup_host((authority.host.as_str(), authority.port)).await?;
            let plain = AsyncTcpStream::connect(&runtime, found.collect::<Vec<_>>()).await?;
            let stream = match uri.scheme {
                AMQPScheme::AMQP => plain,
                AMQPScheme::AMQPS => plain.into_tls(&authority.host, OwnedTLSConfig::default().as_ref()).await?,
            };
            let mut wire = Wire(stream);
            wire.greet(uri).await?;
            Ok(wire)
        };
        opening.await.map_err(|error: io::Error| lost(&error))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    async fn greet(&mut self, uri: &AMQPUri) -> io::Result<()> {
        let login = &uri.authority.userinfo;
        self.0.write_all(b"AMQP\0\0\x09\x01").await?;
        self.expect(START).await?;
        let secret = format!("\0{}\0{}", login.username, login.password);
        let size = (secret.len() as u32).to_be_bytes();
        let nothing_of_us = [0; 4];
        self.say(0, START_OK, &[&nothing_of_us, &short("PLAIN"), &size, secret.as_bytes(), &short("en_US")]).await?;
        let limits = self.expect(TUNE).await?;
        let no_heartbeat = [0; 2];
        self.say(0, TUNE_OK, &[limits.get(..6).ok_or_else(garbled)?, &no_heartbeat]).await?;
        self.say(0, OPEN, &[&short(&uri.vhost), &[0, 0]]).await?;
        self.expect(OPEN_OK).await?;
        self.say(CHANNEL, CHANNEL_OPEN, &[&[0]]).await?;
        self.expect(CHANNEL_OPEN_OK).await.map(drop)
    }

    /// The next message of a queue.
    async fn get(&mut self, queue: &str) -> io::Result<Option<Message>> {
        self.say(CHANNEL, GET, &[&[0, 0], &short(queue), &[0]]).await?;
        let (method, arguments) = self.method().await?;
        if method == GET_EMPTY {
            return Ok(None);
        }
        let tag = arguments.first_chunk().filter(|_| method == GET_OK).map(|tag| u64::from_be_bytes(*tag));
        let tag = tag.ok_or_else(garbled)?;
        let header = self.frame(HEADER).await?;
        let size = header.get(4..BEFORE_PROPERTIES).and_then(|size| size.try_into().ok()).map(u64::from_be_bytes);
        let size = size.ok_or_else(garbled)?;
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            body.extend(self.frame(BODY).await?);
        }
        Ok(Some(Message { tag, header, body }))
    }

    async fn ack(&mut self, tag: u64) -> io::Result<()> {
        self.say(CHANNEL, ACK, &[&tag.to_be_bytes(), &[0]]).await
    }

    /// Closes the channel in an orderly way.
    async fn finish(&mut self) -> io::Result<()> {
        const CLOSE: Method = (20, 40);
        const CLOSE_OK: Method = (20, 41);
        let goodbye = [200_u16.to_be_bytes(), [0, 0], [0, 0]].concat();
        self.say(CHANNEL, CLOSE, &[&goodbye, &[0]]).await?;
        self.expect(CLOSE_OK).await.map(drop)
    }

    async fn say(&mut self, channel: u16, (class, method): Method, arguments: &[&[u8]]) -> io::Result<()> {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), &arguments.concat()].concat();
        let size = (payload.len() as u32).to_be_bytes();
        let frame = [&[METHOD][..], &channel.to_be_bytes(), &size, &payload, &[FRAME_END]].concat();
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }

    /// The arguments of the next method, which must be this one.
    async fn expect(&mut self, wanted: Method) -> io::Result<Vec<u8>> {
        let (method, arguments) = self.method().await?;
        if method == wanted {
            return Ok(arguments);
        }
        let words = String::from_utf8_lossy(&arguments).into_owned();
        Err(io::Error::other(format!("the broker refused: {words}")))
    }

    async fn method(&mut self) -> io::Result<(Method, Vec<u8>)> {
        let mut payload = self.frame(METHOD).await?;
        let arguments = payload.split_off(payload.len().min(4));
        let Ok([a, b, c, d]) = <[u8; 4]>::try_from(payload) else { return Err(garbled()) };
        Ok(((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])), arguments))
    }

    /// The payload of the next frame, which must be of this kind.
    async fn frame(&mut self, wanted: u8) -> io::Result<Vec<u8>> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await?;
        let [kind, _, _, size @ ..] = head;
        let mut payload = Vec::new();
        let size = u64::from(u32::from_be_bytes(size)) + 1;
        (&mut self.0).take(size).read_to_end(&mut payload).await?;
        if kind == wanted && payload.len() as u64 == size && payload.pop() == Some(FRAME_END) {
            return Ok(payload);
        }
        Err(garbled())
    }
}

fn garbled() -> io::Error {
    io::Error::other("the broker said what was not to be expected")
}

/// A short text as it is sent; longer ones than 255 bytes are not asked about.
fn short(text: &str) -> Vec<u8> {
    let text = crate::letter::truncated(text, u8::MAX.into());
    [&[text.len() as u8], text.as_bytes()].concat()
}
