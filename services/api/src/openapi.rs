//! The description of the API, generated from the routes themselves.

use domain::Cause;
use protocol::sync::SYNCED;
use utoipa::openapi::path::PathItem;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};

use crate::problem;
use crate::routes;

/// Where all routes are.
pub(crate) const ROOT: &str = "/api/v1";

/// The name of the one security scheme.
pub(crate) const BEARER: &str = "bearer";

/// What stands above the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ChatChit Realtime",
        description = "Accounts, conversations and messages by REST. Refusals are problem documents (RFC 9457) with a \
                       public `code`. What changes a room is answered 202 QUEUED once the broker has it safely; the \
                       outcome comes by socket.",
    ),
    components(schemas(problem::Document<'_>)),
    external_docs(url = "/api-docs/asyncapi.json", description = "The sockets (AsyncAPI 3.0)"),
    modifiers(&Bearer),
    tags(
        (name = "auth", description = "Accounts and sessions."),
        (name = "users", description = "People."),
        (name = "conversations", description = "Rooms: direct ones and groups."),
        (name = "members", description = "Who is in a room."),
        (name = "messages", description = "History, and sending without a socket."),
        (name = "sync", description = "Catching up without a socket."),
        (name = "admin", description = "Dead letters; only for admins, everybody else is FORBIDDEN."),
    )
)]
pub(crate) struct Head;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let components = document.components.get_or_insert_default();
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.bearer_format = Some("JWT".to_owned());
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    }
}

/// The whole document, as `/api-docs/openapi.json` serves it.
pub fn document() -> Document {
    complete(routes::all().split_for_parts().1)
}

/// Gives every operation the shape of its refusals and every path its root.
pub(crate) fn complete(mut document: Document) -> Document {
    let below = std::mem::take(&mut document.paths.paths);
    document.paths.paths = below.into_iter().map(|(path, item)| (format!("{ROOT}{path}"), item)).collect();
    for schema in document.components.iter_mut().flat_map(|components| &mut components.schemas) {
        describe_schema(schema.0, schema.1);
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            for (status, response) in &mut operation.responses.responses {
                if let RefOr::T(response) = response
                    && response.description.is_empty()
                {
                    outcome(status).clone_into(&mut response.description);
                }
            }
            let schema = Ref::from_schema_name("Problem");
            let content = Content::new(Some(RefOr::Ref(schema)));
            let refusal = ResponseBuilder::new()
                .description("Refused: see `code`.")
                .content(problem::MEDIA_TYPE, content)
                .build();
            operation.responses.responses.insert("default".to_owned(), RefOr::T(refusal));
        }
    }
    document
}

/// What a success is where the route has no words of its own.
fn outcome(status: &str) -> &'static str {
    match status {
        "201" => "Made.",
        "202" => "QUEUED: the broker has it safely; the outcome comes by socket.",
        _ => "Done.",
    }
}

/// Fields that the messages of `proto/` always have; their generated code does not say so.
const ALWAYS: [(&str, &[&str]); 4] = [
    ("Attachment", &["url"]),
    ("Member", &["userId", "role"]),
    ("MessageDelivered", &["roomId", "messageId", "seq", "senderId", "sentAt"]),
    ("Queued", &["status", "messageId"]),
];

/// A default is what the code fills in, not what a client should send: "try it out" would send empty texts.
fn describe_schema(name: &str, schema: &mut RefOr<Schema>) {
    let RefOr::T(Schema::Object(object)) = schema else { return };
    object.default = None;
    if let Some((_, fields)) = ALWAYS.iter().find(|(message, _)| *message == name) {
        object.required = fields.iter().map(|field| (*field).to_owned()).collect();
    }
    for property in object.properties.values_mut() {
        match property {
            RefOr::T(Schema::Object(property)) => property.default = None,
            RefOr::T(Schema::Array(property)) => property.default = None,
            RefOr::T(Schema::OneOf(property)) => property.default = None,
            _ => {}
        }
    }
}

fn one_of(values: &[&str], words: &str) -> Object {
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(words));
    text.enum_values(Some(values.iter().copied())).build()
}

/// Why events are given up.
pub(crate) fn cause() -> Object {
    one_of(&Cause::ALL.map(Cause::as_str), "Why they were given up.")
}

/// The kinds of conversations.
pub(crate) fn room_kind() -> Object {
    one_of(&["group", "direct"], "What it is.")
}

/// The roles that a new member may have.
pub(crate) fn new_role() -> Object {
    one_of(&["member", "admin"], "`member` when absent.")
}

/// The types of messages.
pub(crate) fn message_type() -> Object {
    one_of(&["TEXT", "IMAGE", "FILE", "VIDEO", "AUDIO"], "`TEXT` when absent.")
}

/// Events as catching up tells them; the protocol's page says what each of them holds.
pub(crate) fn sync_items() -> Array {
    let event = one_of(SYNCED, "Which event.");
    let rev = ObjectBuilder::new().schema_type(Type::Integer).description(Some("Its number in its room."));
    let item = ObjectBuilder::new()
        .property("event", event)
        .property("data", ObjectBuilder::new().schema_type(Type::Object).description(Some("The event's data.")))
        .property("rev", rev)
        .required("event")
        .required("data");
    let words = "Events of all of one's rooms, ascending by `rev` within each; `message.read` has no `rev`.";
    ArrayBuilder::new().items(item).description(Some(words)).build()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut utoipa::openapi::path::Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().filter_map(Option::as_mut)
}
