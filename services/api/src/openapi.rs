//! The description of the API, generated from the routes themselves.

use utoipa::openapi::path::PathItem;
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
    modifiers(&Bearer),
    tags(
        (name = "auth", description = "Accounts and sessions."),
        (name = "users", description = "People."),
        (name = "conversations", description = "Rooms: direct ones and groups."),
        (name = "members", description = "Who is in a room."),
        (name = "messages", description = "History, and sending without a socket."),
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
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
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

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut utoipa::openapi::path::Operation> {
    [&mut item.get, &mut item.post, &mut item.patch, &mut item.delete].into_iter().filter_map(Option::as_mut)
}
