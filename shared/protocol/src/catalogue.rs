//! Every event of the protocol in one table: its data, its ack, its path, and words for people.
//!
//! Documents are made from it and checked against it; it reads and writes no frame itself. The
//! invariant: it is whole. A command, event or ack of `proto/` without a row here does not compile.

use domain::event::EventKind;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{Ack, CloseCode, Code, Command, EventData, command, event, wire};

/// The shape of a message's JSON form.
#[derive(Debug)]
pub struct Payload {
    /// The message's name in `proto/`.
    pub name: String,
    /// Its JSON schema; refers to others as `#/components/schemas/NAME`.
    pub schema: Value,
    /// The fields that are written whatever they hold.
    pub always: Vec<String>,
}

impl Payload {
    fn of<T: ToSchema + Serialize + Default>() -> Self {
        let written = serde_json::to_value(T::default()).unwrap_or_default();
        let always = written.as_object().map(|fields| fields.keys().cloned().collect());
        let schema = serde_json::to_value(T::schema()).unwrap_or_default();
        Self { name: T::name().into_owned(), schema, always: always.unwrap_or_default() }
    }

    /// The names of all fields.
    pub fn fields(&self) -> Vec<String> {
        let properties = self.schema.get("properties").and_then(Value::as_object);
        properties.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
    }
}

/// How a command is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Before the ack, without the broker.
    Direct,
    /// Through the broker, in the class and with the priority of this kind; the ack says that the broker has it.
    Queued(EventKind),
    /// As [`Path::Queued`], but acked at once: it may be dropped under load.
    Shed(EventKind),
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Queued(kind) | Self::Shed(kind) => write!(f, "{}, {}", kind.class(), kind.priority()),
        }
    }
}

/// What a client may ask for.
#[derive(Debug)]
pub struct ClientEvent {
    /// Its name on the wire.
    pub name: &'static str,
    /// What its `data` holds.
    pub data: Payload,
    /// The fields without which it is refused.
    pub required: &'static [&'static str],
    /// The name of its ack's shape; see [`acks`]. Any command may be answered by `Refusal` instead.
    pub ack: &'static str,
    /// How it is carried out.
    pub path: Path,
    /// What it is for.
    pub what: &'static str,
    /// A right `data`, as JSON.
    pub example: &'static str,
}

/// What the server tells a client.
#[derive(Debug)]
pub struct ServerEvent {
    /// Its name on the wire.
    pub name: &'static str,
    /// What its `data` holds.
    pub data: Payload,
    /// What it says, and to whom.
    pub what: &'static str,
}

macro_rules! client_events {
    ($($event:ident($data:ident) $required:tt -> $ack:ident, $path:expr, $what:literal, $example:literal;)*) => {
        /// All commands, in the order of the documentation.
        pub fn client_events() -> Vec<ClientEvent> {
            vec![$(ClientEvent {
                name: command::name(&Command::$event(wire::$data::default())),
                data: Payload::of::<wire::$data>(),
                required: &$required,
                ack: stringify!($ack),
                path: $path,
                what: $what,
                example: $example,
            }),*]
        }

        /// A command without a row does not compile, nor an ack that is none.
        const _: fn(&Command) -> fn(&Ack) -> bool = |command| match command {
            $(Command::$event(_) => |ack| matches!(ack, Ack::$ack(_)),)*
        };
    };
}

client_events! {
    Auth(Auth) ["token"] -> Refreshed, Path::Direct,
        "Says who the client is: the first frame of a native connection without a token. Later the same as `auth.refresh`.",
        r#"{"token":"eyJhbGciOiJIUzI1NiJ9.e30.c2ln","deviceId":"phone-1"}"#;
    AuthRefresh(AuthRefresh) ["token"] -> Refreshed, Path::Direct,
        "A new token of the same user, before the old one expires.",
        r#"{"token":"eyJhbGciOiJIUzI1NiJ9.e30.c2ln"}"#;
    Ping(Ping) [] -> Pong, Path::Direct, "Asks for the server's time.", "{}";
    MessageSend(MessageSend) ["roomId", "content", "clientMsgId"] -> Queued, Path::Queued(EventKind::MessageSend),
        "Sends a message. The same `clientMsgId` of the same sender is the same message, however often it is sent.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff","content":"hello","clientMsgId":"m-1"}"#;
    MessageEdit(MessageEdit) ["roomId", "messageId", "content"] -> Queued, Path::Queued(EventKind::MessageEdit),
        "Gives an own message new content.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff","messageId":"0a1b2c3d-0000-8000-8000-000000000001","content":"hello!"}"#;
    MessageDelete(MessageDelete) ["roomId", "messageId", "forEveryone"] -> Queued, Path::Queued(EventKind::MessageDelete),
        "Takes a message back for everybody; `forEveryone` must be true.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff","messageId":"0a1b2c3d-0000-8000-8000-000000000001","forEveryone":true}"#;
    MessageReact(MessageReact) ["roomId", "messageId", "emoji"] -> Queued, Path::Queued(EventKind::MessageReact),
        "Gives a reaction, or takes it back with `remove`.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff","messageId":"0a1b2c3d-0000-8000-8000-000000000001","emoji":"👍"}"#;
    MessageRead(MessageRead) ["roomId"] -> Done, Path::Direct,
        "Says how far one has read, up to and including `seq`, or the message `messageId`: one of the two.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff","seq":18}"#;
    RoomJoin(RoomJoin) ["roomId"] -> RoomState, Path::Direct,
        "Switches a room on for this connection. Membership is not changed.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff"}"#;
    RoomLeave(RoomLeave) ["roomId"] -> RoomState, Path::Direct,
        "Switches a room off for this connection. Membership is not changed.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff"}"#;
    Sync(Sync) ["rooms"] -> SyncResult, Path::Direct,
        "Asks for what came since; each room with `afterSeq` or with `afterRev`.",
        r#"{"rooms":[{"roomId":"01890000-0000-7000-8000-0000000000ff","afterSeq":17}]}"#;
    Typing(SetTyping) ["roomId", "isTyping"] -> Done, Path::Shed(EventKind::Typing),
        "Says that one types, or has stopped.",
        r#"{"roomId":"01890000-0000-7000-8000-0000000000ff","isTyping":true}"#;
    PresenceSet(PresenceSet) ["status"] -> Done, Path::Shed(EventKind::PresenceSet),
        "Chooses the status that others see.", r#"{"status":"away"}"#;
    PresenceQuery(PresenceQuery) ["userIds"] -> PresenceList, Path::Direct,
        "Asks who is there.", r#"{"userIds":["01890000-0000-7000-8000-00000000000a"]}"#;
}

macro_rules! server_events {
    ($($event:ident($data:ident), $what:literal;)* @internal $($internal:ident)*) => {
        /// All events that clients get, in the order of the documentation.
        pub fn server_events() -> Vec<ServerEvent> {
            vec![$(ServerEvent {
                name: event::name(&EventData::$event(wire::$data::default())),
                data: Payload::of::<wire::$data>(),
                what: $what,
            }),*]
        }

        /// True for events from gateway to gateway, which no client gets. An event without a row does not compile.
        pub const fn is_internal(event: &EventData) -> bool {
            match event {
                $(EventData::$event(_) => false,)*
                $(EventData::$internal(_) => true,)*
            }
        }
    };
}

server_events! {
    SessionReady(SessionReady), "The first event on every connection: who one is, and where one's rooms stand.";
    AuthExpiring(AuthExpiring), "The token expires soon: send `auth.refresh`.";
    ServerDraining(ServerDraining), "The server stops: come back after `retryAfterMs`. Close code 4503 follows.";
    Error(Refusal), "A refusal when no ack was asked for; on Socket.IO with `closeCode` before a close.";
    MessageDelivered(MessageDelivered), "A message, to every device of every member, the sender's included.";
    MessageFailed(MessageFailed), "Something QUEUED has become impossible; to its sender.";
    MessageEdited(MessageEdited), "A message has new content.";
    MessageDeleted(MessageDeleted), "A message was taken back.";
    MessageReaction(MessageReaction), "A reaction was given or taken back.";
    MessageRead(MessageReadBy), "Somebody has read up to and including `seq`.";
    RoomCreated(RoomCreated), "A room was made; to each member.";
    RoomUpdated(RoomUpdated), "A room has a new title.";
    RoomMemberJoined(RoomMemberJoined), "Somebody became a member; to the room and to who joined.";
    RoomMemberLeft(RoomMemberLeft), "Somebody is no member any more; to the room and to who left.";
    RoomsBeacon(RoomsBeacon), "Where rooms stand: compare, and `sync` where you are behind.";
    Typing(Typing), "Somebody types, or has stopped; to the room but who types.";
    PresenceChanged(PresenceChanged), "Somebody came, went or changed their status.";
    @internal DeviceTaken SessionRevoked
}

macro_rules! acks {
    ($($ack:ident)*) => {
        /// The shapes of acks, `Refusal` last.
        pub fn acks() -> Vec<Payload> {
            vec![$(Payload::of::<wire::$ack>()),*]
        }

        /// An ack without a row does not compile.
        const _: fn(&Ack) = |ack| match ack { $(Ack::$ack(_) => (),)* };
    };
}

acks! { Queued Done RoomState SyncResult PresenceList Pong Refreshed Refusal }

/// Shapes that stand inside others.
pub fn parts() -> Vec<Payload> {
    vec![
        Payload::of::<wire::Attachment>(),
        Payload::of::<wire::ReactionCount>(),
        Payload::of::<wire::Member>(),
        Payload::of::<wire::RoomPosition>(),
        Payload::of::<wire::SessionRoom>(),
        Payload::of::<wire::SessionLimits>(),
        Payload::of::<wire::SyncRoom>(),
        Payload::of::<wire::SyncedRoom>(),
        Payload::of::<wire::RevEvent>(),
        Payload::of::<wire::ReadMark>(),
    ]
}

/// When a code is given.
pub const fn reason(code: Code) -> &'static str {
    match code {
        Code::InvalidPayload => "Bad data; `field` names it. The connection stays.",
        Code::UnknownEvent => "There is no such event.",
        Code::Unauthenticated => "No token, or one that is expired, malformed or not ours; a wrong password.",
        Code::Forbidden => "A member lacks the right.",
        Code::NotFound => "Unknown, and likewise whatever a stranger may not know of.",
        Code::Conflict => "Taken already, or changed meanwhile.",
        Code::TooOld => "What came since that position is not kept any more: load the state anew.",
        Code::TooLarge => "Content over its limit.",
        Code::RateLimited => "Too many requests; with `retryAfterMs`.",
        Code::Overloaded => "The system has too much to do; with `retryAfterMs`.",
        Code::Unavailable => {
            "A dependency does not answer; with `retryAfterMs`. It may still have been stored: send it again under the same `clientMsgId`."
        }
        Code::Internal => "Our fault; no detail.",
    }
}

/// When a connection is closed with a code, and whether to come back.
pub const fn closing(code: CloseCode) -> &'static str {
    match code {
        CloseCode::Normal => "The client left.",
        CloseCode::InvalidUtf8 => "A text frame was not UTF-8. Mend the client.",
        CloseCode::BadFrame => "Not JSON, no string `event`, nested too deep, a wrong kind of frame. Mend the client.",
        CloseCode::Unauthenticated => "No token in time, a bad one, or one that expired. Come back with a new token.",
        CloseCode::Forbidden => "The account is blocked or was signed out everywhere. Do not come back.",
        CloseCode::PongTimeout => "No pong came. Come back.",
        CloseCode::Replaced => "Another connection of the same device took its place. Do not come back.",
        CloseCode::FrameTooLarge => "A frame over its limit. Mend the client.",
        CloseCode::Flooding => "The client went on after being told to slow down. Come back later.",
        CloseCode::Draining => "The server stops or cannot serve now. Come back after `retryAfterMs`.",
        CloseCode::TooSlow => "The client read too slowly. Come back, then `sync`.",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_is_read_by_its_name_and_its_example_is_right() {
        for event in client_events() {
            let command = command::from_json(event.name, Some(event.example)).expect(event.name);
            assert_eq!(command::name(&command), event.name);
        }
    }

    #[test]
    fn examples_hold_what_is_required_and_known_fields_only() {
        for event in client_events() {
            let example: serde_json::Value = serde_json::from_str(event.example).expect("JSON");
            let given: BTreeSet<&str> = example.as_object().expect("an object").keys().map(String::as_str).collect();
            let fields = event.data.fields();
            let known: BTreeSet<&str> = fields.iter().map(String::as_str).collect();
            let required: BTreeSet<&str> = event.required.iter().copied().collect();
            assert!(given.is_subset(&known) && required.is_subset(&given), "{}: {example}", event.name);
        }
    }

    #[test]
    fn queued_events_have_the_names_under_which_the_broker_carries_them() {
        for event in client_events() {
            if let Path::Queued(kind) | Path::Shed(kind) = event.path {
                assert_eq!(kind.as_str(), event.name);
            }
            assert_eq!(matches!(event.path, Path::Queued(_)), event.ack == "Queued", "{}", event.name);
        }
    }

    #[test]
    fn no_name_is_given_twice_in_one_direction() {
        let commands: BTreeSet<_> = client_events().iter().map(|event| event.name).collect();
        let events: BTreeSet<_> = server_events().iter().map(|event| event.name).collect();
        assert_eq!((commands.len(), events.len()), (client_events().len(), server_events().len()));
    }

    #[test]
    fn what_gateways_tell_one_another_is_no_event_for_clients() {
        let taken = EventData::DeviceTaken(wire::DeviceTaken::default());
        assert!(is_internal(&taken) && server_events().iter().all(|it| it.name != event::name(&taken)));
        assert!(!is_internal(&EventData::Typing(wire::Typing::default())));
    }
}
