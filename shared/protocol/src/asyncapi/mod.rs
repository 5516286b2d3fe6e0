//! The description of both socket transports, an `AsyncAPI` 3.0 document made from the catalogue.
//!
//! Knows what clients see and nothing of how it is done; the document describes the server, so it
//! "receives" what clients send. The invariant: nothing here names an event, every event comes from the catalogue.

mod schemas;

use serde_json::{Map, Value, json};

use crate::catalogue::{self, ClientEvent, Path};
use crate::{CloseCode, Code};

/// The dialects in which the same events travel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    /// Native frames, JSON.
    Json,
    /// Socket.IO events.
    SocketIo,
}

impl Dialect {
    const ALL: [Self; 2] = [Self::Json, Self::SocketIo];

    /// The channel's name; operations begin with it.
    const fn channel(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::SocketIo => "socketio",
        }
    }

    /// A message's name among the components. Native ones are whole frames.
    fn message(self, kind: &str, name: &str) -> String {
        match self {
            Self::Json => format!("frame.{kind}.{name}"),
            Self::SocketIo => format!("{kind}.{name}"),
        }
    }
}

/// The whole document, as `docs/asyncapi.json` holds it and `/api-docs/asyncapi.json` serves it.
pub fn document() -> Value {
    let mut document = json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "ChatChit Realtime, sockets",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INFO,
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "servers": servers(),
        "channels": channels(),
        "operations": operations(),
        "components": {
            "messages": messages(),
            "schemas": schemas::all(),
            "securitySchemes": security_schemes(),
        },
    });
    document["x-refusal-codes"] = refusals();
    document["x-close-codes"] = closes();
    document
}

/// The same as text, a line for each value.
pub fn text() -> String {
    format!("{:#}\n", document())
}

const INFO: &str = "The events of ChatChit Realtime: the same names and data by native WebSocket (JSON or protobuf) and \
    by Socket.IO. Order, promises and limits: docs/PROTOCOL.md of the repository. REST: `/api-docs/openapi.json`. \
    Fields and events are added without notice: ignore what you do not know. In what clients send, `null` means absent. \
    Any command may be answered by a `Refusal` instead of its ack; without an ack asked for it comes as `error`.";

fn servers() -> Value {
    let security: Vec<Value> =
        ["bearer", "queryToken"].iter().map(|name| reference("components/securitySchemes", name)).collect();
    let mut with_auth = security.clone();
    with_auth.push(reference("components/securitySchemes", "authToken"));
    let host = json!({ "default": "localhost:8080", "description": "The gateway, or the proxy before it." });
    json!({
        "native": {
            "host": "{host}",
            "protocol": "ws",
            "description": "Plain WebSocket (RFC 6455), version 13. `wss` behind a proxy that ends TLS. Instead of the \
                            header or the query a first frame `auth` within 5 s may bring the token.",
            "variables": { "host": host.clone() },
            "security": security,
        },
        "socketio": {
            "host": "{host}",
            "pathname": "/socket.io/",
            "protocol": "ws",
            "description": "Socket.IO v5 over Engine.IO v4.",
            "variables": { "host": host },
            "security": with_auth,
        },
    })
}

fn security_schemes() -> Value {
    json!({
        "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "`Authorization: Bearer …`: HS256 over the server's secret, with `sub` and `exp`." },
        "queryToken": { "type": "httpApiKey", "in": "query", "name": "token", "description": "The same token as `?token=`." },
        "authToken": { "type": "apiKey", "in": "password", "description": "The same token as Socket.IO's `auth.token`." },
    })
}

fn channels() -> Value {
    json!({
        "json": {
            "address": "/ws",
            "title": "Native, JSON",
            "description": "Also at `/chat`. Subprotocol `chatchit.v1.json`, which is what no subprotocol means. One \
                            text frame holds one object.",
            "servers": [reference("servers", "native")],
            "messages": channel_messages(Dialect::Json),
            "bindings": { "ws": handshake("chatchit.v1.json") },
        },
        "protobuf": {
            "address": "/ws",
            "title": "Native, protobuf",
            "description": "Also at `/chat`. Subprotocol `chatchit.v1.protobuf`: the same events; one binary frame \
                            holds one message of `proto/chat/v1/frame.proto`.",
            "servers": [reference("servers", "native")],
            "messages": {
                "ClientFrame": reference("components/messages", "protobuf.ClientFrame"),
                "ServerFrame": reference("components/messages", "protobuf.ServerFrame"),
            },
            "bindings": { "ws": handshake("chatchit.v1.protobuf") },
        },
        "socketio": {
            "address": "/chat",
            "title": "Socket.IO",
            "description": "The address is the namespace. An event's first argument is the message's payload; events \
                            of rooms and `session.ready` have an offset, a text, as a second one. The ack is the \
                            callback's one argument. Binary attachments are not used.",
            "servers": [reference("servers", "socketio")],
            "messages": channel_messages(Dialect::SocketIo),
        },
    })
}

fn handshake(subprotocol: &str) -> Value {
    let query = json!({
        "type": "object",
        "properties": {
            "token": { "type": "string", "description": "The access token, unless a header or a first frame brings it." },
            "deviceId": { "type": "string", "maxLength": domain::limits::DEVICE_ID_CHARS,
                "description": "Names the device: a second connection with it takes the first one's place." },
        },
    });
    let headers = json!({
        "type": "object",
        "properties": { "Sec-WebSocket-Protocol": { "type": "string", "enum": [subprotocol] } },
    });
    json!({ "method": "GET", "query": query, "headers": headers, "bindingVersion": "0.1.0" })
}

/// The messages of a channel: a name of its own for each, so that an event in both directions is two.
fn channel_messages(dialect: Dialect) -> Value {
    let clients = catalogue::client_events().into_iter().map(|event| ("client", event.name.to_owned()));
    let servers = catalogue::server_events().into_iter().map(|event| ("server", event.name.to_owned()));
    let acks = catalogue::acks().into_iter().map(|ack| ("ack", ack.name));
    let each = clients.chain(servers).chain(acks);
    let named = each.map(|(kind, name)| {
        let component = dialect.message(kind, &name);
        (format!("{kind}.{name}"), reference("components/messages", &component))
    });
    Value::Object(named.collect())
}

fn messages() -> Value {
    let mut all = Map::new();
    for dialect in Dialect::ALL {
        for event in catalogue::client_events() {
            all.insert(dialect.message("client", event.name), client_message(dialect, &event));
        }
        for event in catalogue::server_events() {
            let payload = match dialect {
                Dialect::Json => server_frame(event.name, &event.data.name),
                Dialect::SocketIo => reference("components/schemas", &event.data.name),
            };
            let message = json!({ "name": event.name, "summary": event.what, "payload": payload });
            all.insert(dialect.message("server", event.name), message);
        }
        for ack in catalogue::acks() {
            let schema = reference("components/schemas", &ack.name);
            let payload = match dialect {
                Dialect::Json => ack_frame(&schema),
                Dialect::SocketIo => schema,
            };
            all.insert(
                dialect.message("ack", &ack.name),
                json!({ "name": "ack", "title": ack.name, "payload": payload }),
            );
        }
    }
    for frame in ["ClientFrame", "ServerFrame"] {
        all.insert(format!("protobuf.{frame}"), protobuf_message(frame));
    }
    Value::Object(all)
}

fn client_message(dialect: Dialect, event: &ClientEvent) -> Value {
    let example: Value = serde_json::from_str(event.example).unwrap_or_default();
    let (payload, example) = match dialect {
        Dialect::Json => (client_frame(event), json!({ "payload": { "id": 1, "event": event.name, "data": example } })),
        Dialect::SocketIo => (reference("components/schemas", &event.data.name), json!({ "payload": example })),
    };
    let mut message = json!({ "name": event.name, "summary": event.what, "payload": payload, "examples": [example] });
    if dialect == Dialect::Json {
        message["correlationId"] = json!({ "location": "$message.payload#/id" });
    }
    message
}

fn client_frame(event: &ClientEvent) -> Value {
    let required: &[&str] = if event.required.is_empty() { &["event"] } else { &["event", "data"] };
    json!({
        "type": "object",
        "required": required,
        "properties": {
            "id": reference("components/schemas", "FrameId"),
            "event": { "type": "string", "const": event.name },
            "data": reference("components/schemas", &event.data.name),
        },
    })
}

fn server_frame(event: &str, schema: &str) -> Value {
    json!({
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": { "type": "string", "const": event },
            "data": reference("components/schemas", schema),
        },
    })
}

fn ack_frame(schema: &Value) -> Value {
    json!({
        "type": "object",
        "required": ["id", "ack"],
        "properties": { "id": reference("components/schemas", "FrameId"), "ack": schema },
    })
}

fn protobuf_message(frame: &str) -> Value {
    json!({
        "name": frame,
        "contentType": "application/x-protobuf",
        "summary": format!("`chat.v1.{frame}` of proto/chat/v1/frame.proto"),
        "payload": { "type": "string", "format": "binary" },
    })
}

fn operations() -> Value {
    let mut all = Map::new();
    for dialect in Dialect::ALL {
        let channel = dialect.channel();
        for event in catalogue::client_events() {
            all.insert(format!("{channel}.{}", event.name), receive(channel, &event));
        }
        let told: Vec<Value> = catalogue::server_events()
            .iter()
            .map(|event| reference(&format!("channels/{channel}/messages"), &format!("server.{}", event.name)))
            .collect();
        all.insert(format!("{channel}.tell"), send(channel, &told));
    }
    let frame = |name| reference("channels/protobuf/messages", name);
    all.insert(
        "protobuf.ask".to_owned(),
        json!({
            "action": "receive",
            "channel": reference("channels", "protobuf"),
            "summary": "Any command.",
            "messages": [frame("ClientFrame")],
            "reply": { "channel": reference("channels", "protobuf"), "messages": [frame("ServerFrame")] },
        }),
    );
    all.insert("protobuf.tell".to_owned(), send("protobuf", &[frame("ServerFrame")]));
    Value::Object(all)
}

fn receive(channel: &str, event: &ClientEvent) -> Value {
    let message = |name: &str| reference(&format!("channels/{channel}/messages"), name);
    let mut operation = json!({
        "action": "receive",
        "channel": reference("channels", channel),
        "summary": event.what,
        "messages": [message(&format!("client.{}", event.name))],
        "reply": {
            "channel": reference("channels", channel),
            "messages": [message(&format!("ack.{}", event.ack)), message("ack.Refusal")],
        },
    });
    operation["x-path"] = match event.path {
        Path::Direct => json!({ "queued": false }),
        Path::Queued(kind) | Path::Shed(kind) => {
            json!({ "queued": true, "class": kind.class().as_str(), "priority": kind.priority() })
        }
    };
    operation
}

fn send(channel: &str, messages: &[Value]) -> Value {
    json!({
        "action": "send",
        "channel": reference("channels", channel),
        "summary": "Whatever the server tells.",
        "messages": messages,
    })
}

fn refusals() -> Value {
    let row =
        |code: Code| json!({ "code": code.as_str(), "rest": code.http_status(), "when": catalogue::reason(code) });
    Code::ALL.map(row).into_iter().collect()
}

fn closes() -> Value {
    let row = |code: CloseCode| {
        json!({
            "code": code.number(),
            "reason": code.reason(),
            "when": catalogue::closing(code),
            "socketio": if code.is_final() { "namespace disconnect" } else { "transport close" },
        })
    };
    CloseCode::ALL.map(row).into_iter().collect()
}

fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{place}/{name}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 100, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("a reference into this document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_command_has_an_operation_with_its_ack_in_each_dialect() {
        let document = document();
        for dialect in Dialect::ALL {
            for event in catalogue::client_events() {
                let operation = &document["operations"][format!("{}.{}", dialect.channel(), event.name)];
                assert_eq!(operation["action"], "receive", "{}", event.name);
                let reply = operation["reply"]["messages"][0]["$ref"].as_str().expect("an ack");
                assert!(reply.ends_with(&format!("/ack.{}", event.ack)), "{reply}");
            }
            let told = &document["operations"][format!("{}.tell", dialect.channel())]["messages"];
            assert_eq!(told.as_array().map(Vec::len), Some(catalogue::server_events().len()));
        }
    }

    #[test]
    fn every_code_is_there() {
        let document = document();
        let there =
            |list: &str, code: Value| document[list].as_array().expect(list).iter().any(|it| it["code"] == code);
        assert!(Code::ALL.iter().all(|code| there("x-refusal-codes", code.as_str().into())));
        assert!(CloseCode::ALL.iter().all(|code| there("x-close-codes", code.number().into())));
    }
}
