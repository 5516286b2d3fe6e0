//! Socket.IO: the namespaces `/` and `/custom`, each an echo.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use protocol::CloseCode;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};
use transport::engineio::packet::{self, Packet as EnginePacket};
use transport::socketio::{Assembled, Assembler, BadPacket, Message, Packet, parse};
use transport::{Frame, Received};

use crate::MAX_PAYLOAD;
use crate::client::Client;

const NAMESPACES: [&str; 2] = ["/", "/custom"];
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Serves a client; why it is to be closed.
pub(crate) async fn run(client: &mut Client) -> CloseCode {
    let mut session = Session { client, entered: HashSet::new(), assembler: Assembler::default() };
    let connect_by = Instant::now() + CONNECT_WITHIN;
    loop {
        let next = session.client.next();
        let received = if session.entered.is_empty() && Instant::now() < connect_by {
            match timeout_at(connect_by, next).await {
                Ok(received) => received,
                Err(_) => return CloseCode::Unauthenticated,
            }
        } else {
            next.await
        };
        let taken = match received {
            Ok(Received::Text(text)) => session.take_text(&text),
            Ok(Received::Binary(data)) => session.take_binary(data),
            Ok(_) => Ok(true),
            Err(code) => return code,
        };
        match taken {
            Ok(true) => {}
            Ok(false) => return CloseCode::Normal,
            Err(BadPacket) => return CloseCode::BadFrame,
        }
    }
}

struct Session<'a> {
    client: &'a mut Client,
    entered: HashSet<&'static str>,
    assembler: Assembler,
}

impl Session<'_> {
    /// False when the client takes leave.
    fn take_text(&mut self, text: &str) -> Result<bool, BadPacket> {
        let message = match packet::parse(text).map_err(|_| BadPacket)? {
            EnginePacket::Close => return Ok(false),
            EnginePacket::Pong | EnginePacket::Noop => return Ok(true),
            EnginePacket::Message(_) if self.assembler.is_waiting() => return Err(BadPacket),
            EnginePacket::Message(message) => message,
        };
        match parse(message)? {
            Packet::Connect { namespace, auth } => self.connect(namespace, auth.unwrap_or("{}")),
            Packet::Disconnect { namespace } => self.entered.retain(|entered| *entered != namespace),
            Packet::Message(parsed) if parsed.attachments > 0 => {
                self.assembler.begin(message.into(), &parsed, MAX_PAYLOAD)?;
            }
            Packet::Message(message) => self.echo(&message, Vec::new())?,
        }
        Ok(true)
    }

    fn take_binary(&mut self, data: Bytes) -> Result<bool, BadPacket> {
        if let Some(Assembled { packet, attachments }) = self.assembler.add(data)?
            && let Packet::Message(message) = parse(&packet)?
        {
            self.echo(&message, attachments)?;
        }
        Ok(true)
    }

    fn connect(&mut self, namespace: &str, auth: &str) {
        let Some(known) = NAMESPACES.into_iter().find(|known| *known == namespace) else {
            return self.say(&format!(r#"44{namespace},{{"message":"Invalid namespace"}}"#));
        };
        self.entered.insert(known);
        let prefix = prefix(namespace);
        let sid = uuid::Uuid::new_v4().simple();
        self.say(&format!(r#"40{prefix}{{"sid":"{sid}"}}"#));
        self.say(&format!(r#"42{prefix}["auth",{auth}]"#));
    }

    /// `message` comes back as `message-back`, `message-with-ack` as the answer.
    fn echo(&mut self, message: &Message<'_>, attachments: Vec<Bytes>) -> Result<(), BadPacket> {
        let args: Vec<&RawValue> = serde_json::from_str(message.args).map_err(|_| BadPacket)?;
        if !self.entered.contains(message.namespace) {
            return Err(BadPacket);
        }
        if message.is_ack {
            return Ok(());
        }
        let name: String = args.first().and_then(|name| serde_json::from_str(name.get()).ok()).ok_or(BadPacket)?;
        let rest: Vec<&str> = args[1..].iter().map(|arg| arg.get()).collect();
        let (rest, prefix) = (rest.join(","), prefix(message.namespace));
        let is_binary = !attachments.is_empty();
        let count = if is_binary { format!("{}-", attachments.len()) } else { String::new() };
        match (name.as_str(), message.id) {
            ("message", _) => {
                let separator = if rest.is_empty() { "" } else { "," };
                let kind = if is_binary { 5 } else { 2 };
                self.say(&format!(r#"4{kind}{count}{prefix}["message-back"{separator}{rest}]"#));
            }
            ("message-with-ack", Some(id)) => {
                let kind = if is_binary { 6 } else { 3 };
                self.say(&format!("4{kind}{count}{prefix}{id}[{rest}]"));
            }
            _ => return Ok(()),
        }
        for data in attachments {
            self.client.send(Frame::Binary(data));
        }
        Ok(())
    }

    fn say(&mut self, text: &str) {
        self.client.send(Frame::Text(text.to_owned().into()));
    }
}

fn prefix(namespace: &str) -> String {
    if namespace == "/" { String::new() } else { format!("{namespace},") }
}
