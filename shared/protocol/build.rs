//! Compiles `proto/` with a compiler written in Rust, so that no system `protoc` is needed, and
//! gives the public messages their JSON form: camelCase, absent optional fields left out.

use std::error::Error;
use std::path::Path;

use protox::prost_reflect::prost_types::field_descriptor_proto::Label;

const FILES: [&str; 6] = [
    "chat/v1/message.proto",
    "chat/v1/room.proto",
    "chat/v1/presence.proto",
    "chat/v1/session.proto",
    "chat/v1/frame.proto",
    "chat/v1/event.proto",
];

/// Messages that hold a `oneof`: frames and envelopes, whose JSON form is written by hand.
const WITHOUT_JSON: [&str; 11] = [
    "ClientFrame",
    "ServerFrame",
    "ServerEvent",
    "AckFrame",
    "Event",
    "Bundle",
    "BundledEvent",
    "Delivery",
    "RevEvent",
    "SyncedRoom",
    "SyncResult",
];

const JSON: &str =
    "#[derive(serde::Serialize, serde::Deserialize, utoipa::ToSchema)] #[serde(rename_all = \"camelCase\", default)]";

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES, [&root])?;

    let mut config = prost_build::Config::new();
    for file in &descriptors.file {
        for message in &file.message_type {
            let name = message.name();
            if WITHOUT_JSON.contains(&name) {
                continue;
            }
            let path = format!(".chat.v1.{name}");
            config.message_attribute(&path, JSON);
            for field in &message.field {
                if !field.proto3_optional() {
                    let reader = "#[serde(deserialize_with = \"crate::json::null_is_absent\")]";
                    config.field_attribute(format!("{path}.{}", field.name()), reader);
                }
                let skip = match field.label() {
                    _ if field.proto3_optional() => "Option::is_none",
                    Label::Repeated if !always_written(name, field.name()) => "Vec::is_empty",
                    _ => continue,
                };
                config.field_attribute(
                    format!("{path}.{}", field.name()),
                    format!("#[serde(skip_serializing_if = \"{skip}\")]"),
                );
            }
        }
    }
    config.compile_fds(descriptors)?;
    Ok(())
}

/// Lists that a client may rely on being there, even when empty.
fn always_written(message: &str, field: &str) -> bool {
    let lists =
        [("SessionReady", "rooms"), ("PresenceList", "users"), ("RoomsBeacon", "rooms"), ("RoomCreated", "members")];
    lists.contains(&(message, field))
}
