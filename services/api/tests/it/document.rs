//! The description of the API and the page that shows it.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use config::Environment;
use domain::limits;
use serde_json::{Value, json};

use crate::world::{Reply, World};

/// What clients rely on.
const ROUTES: [&str; 21] = [
    "delete /api/v1/conversations/{id}/members/{userId}",
    "delete /api/v1/conversations/{id}/messages/{messageId}",
    "get /api/v1/admin/dead-letters",
    "get /api/v1/admin/dead-letters/{id}",
    "get /api/v1/conversations",
    "get /api/v1/conversations/{id}",
    "get /api/v1/conversations/{id}/members",
    "get /api/v1/conversations/{id}/messages",
    "get /api/v1/sync",
    "get /api/v1/users/me",
    "patch /api/v1/conversations/{id}",
    "patch /api/v1/conversations/{id}/messages/{messageId}",
    "post /api/v1/admin/dead-letters/drop",
    "post /api/v1/admin/dead-letters/replay",
    "post /api/v1/auth/login",
    "post /api/v1/auth/logout",
    "post /api/v1/auth/refresh",
    "post /api/v1/auth/register",
    "post /api/v1/conversations",
    "post /api/v1/conversations/{id}/members",
    "post /api/v1/conversations/{id}/messages",
];

async fn get(world: &World, path: &str) -> Reply {
    world.send(Request::get(path).body(Body::empty()).expect("a request")).await
}

fn operations(document: &Value) -> Vec<(String, String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let each = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("operations");
        item.iter().map(move |(method, operation)| (method.clone(), path.clone(), operation))
    });
    each.collect()
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let world = World::start().await;
    let document = get(&world, "/api-docs/openapi.json").await.body;
    let described: BTreeSet<String> =
        operations(&document).iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    assert_eq!(described, ROUTES.map(str::to_owned).into());
    for (method, path, _) in operations(&document) {
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
        let reply = world.ask(method.clone(), path.trim_start_matches("/api/v1"), "", None).await;
        assert!(![404, 405].contains(&reply.status.as_u16()), "{method} {path}: {reply:?}");
    }
}

#[tokio::test]
async fn every_operation_is_named_once_and_tells_its_refusals() {
    let document = serde_json::to_value(api::document()).expect("a document");
    let mut names = BTreeSet::new();
    for (method, path, operation) in operations(&document) {
        let name = operation["operationId"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} twice");
        let problem = &operation["responses"]["default"]["content"]["application/problem+json"]["schema"]["$ref"];
        assert_eq!(problem, "#/components/schemas/Problem", "{method} {path}");
        assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{method} {path}");
    }
}

#[tokio::test]
async fn every_response_says_what_it_means() {
    let document = serde_json::to_value(api::document()).expect("a document");
    for (method, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let described = response["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{method} {path} {status}");
        }
    }
}

#[tokio::test]
async fn fields_have_their_limits_and_no_made_up_defaults() {
    let document = serde_json::to_value(api::document()).expect("a document");
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for (name, schema) in schemas {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(property.get("default").is_none(), "{name}.{field}: {property}");
        }
    }
    let field = |schema: &str, field: &str, key: &str| schemas[schema]["properties"][field][key].clone();
    for (schema, name, key, limit) in [
        ("Registration", "email", "maxLength", limits::EMAIL_CHARS),
        ("Registration", "password", "minLength", *limits::PASSWORD_CHARS.start()),
        ("Registration", "password", "maxLength", *limits::PASSWORD_CHARS.end()),
        ("Registration", "firstName", "maxLength", limits::NAME_CHARS),
        ("NewConversation", "title", "maxLength", limits::TITLE_CHARS),
        ("NewConversation", "memberIds", "maxItems", limits::MEMBERS_PER_REQUEST),
        ("ConversationChange", "title", "maxLength", limits::TITLE_CHARS),
        ("NewMembers", "userIds", "maxItems", limits::MEMBERS_PER_REQUEST),
        ("NewMessage", "content", "maxLength", limits::CONTENT_BYTES),
        ("NewMessage", "clientMsgId", "maxLength", limits::CLIENT_MSG_ID_CHARS),
        ("NewMessage", "mentions", "maxItems", limits::MENTIONS),
        ("NewMessage", "attachments", "maxItems", limits::ATTACHMENTS),
    ] {
        assert_eq!(field(schema, name, key), limit, "{schema}.{name}.{key}");
    }
    assert_eq!(field("NewConversation", "type", "enum"), json!(["group", "direct"]));
    let required = |schema: &str| schemas[schema]["required"].clone();
    assert_eq!(required("NewConversation"), json!(["type", "memberIds"]));
    assert_eq!(required("NewMessage"), Value::Null);
    assert_eq!(required("Member"), json!(["userId", "role"]));
    assert!(schemas["NewMessage"]["properties"].get("roomId").is_none());
    let logout = &document["paths"]["/api/v1/auth/logout"]["post"]["security"];
    assert_eq!(logout, &json!([{}, { "bearer": [] }]));
}

#[tokio::test]
async fn answers_about_the_api_carry_what_every_answer_carries() {
    let world = World::start().await;
    for path in [
        "/api-docs",
        "/api-docs/openapi.json",
        "/api-docs/asyncapi.json",
        "/api-docs/swagger-ui-bundle.js",
        "/api-docs/nothing",
    ] {
        let reply = get(&world, path).await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert!(!reply.header("x-request-id").is_empty(), "{path}");
    }
    get(&world, "/api-docs/%ff").await.refused(400, "INVALID_PAYLOAD", "");
    get(&world, "/api-docs/nothing").await.refused(404, "NOT_FOUND", "");
}

#[tokio::test]
async fn every_reference_in_the_document_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(api::document()).expect("a document");
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for reference in found {
        let pointer = reference.strip_prefix('#').expect("a reference into this document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn the_page_is_there_except_in_production() {
    let world = World::start().await;
    for path in ["/api-docs", "/api-docs/"] {
        let page = get(&world, path).await;
        assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html"));
        assert!(page.body.as_str().is_some_and(|html| html.contains("swagger-ui") && html.contains("<base")), "{path}");
    }
    let script = get(&world, "/api-docs/swagger-initializer.js").await;
    assert!(script.body.as_str().is_some_and(|js| js.contains("/api-docs/openapi.json")), "{script:?}");
    assert_eq!(get(&world, "/api-docs/swagger-ui-bundle.js").await.status, StatusCode::OK);
    assert_eq!(get(&world, "/api-docs/../../etc/passwd").await.status, StatusCode::NOT_FOUND);

    let world = World::with(|settings| settings.environment = Environment::Production).await;
    for path in ["/api-docs", "/api-docs/", "/api-docs/index.html"] {
        assert_eq!(get(&world, path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for document in ["/api-docs/openapi.json", "/api-docs/asyncapi.json"] {
        assert_eq!(get(&world, document).await.status, StatusCode::OK, "{document}");
    }
}

#[tokio::test]
async fn the_sockets_are_described_where_the_page_says() {
    let world = World::start().await;
    let document = serde_json::to_value(api::document()).expect("a document");
    let link = document["externalDocs"]["url"].as_str().expect("a link");
    let reply = get(&world, link).await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!(reply.body, protocol::asyncapi::document());
}

/// The route that a text such as `GET /api/v1/users/me?x=` names, as in [`ROUTES`]; the root may be left out.
fn route(code: &str) -> Option<String> {
    let (method, path) = code.split_once(" /")?;
    let path = path.strip_prefix("api/v1/").unwrap_or(path).split('?').next()?;
    Some(format!("{} /api/v1/{path}", method.to_lowercase()))
}

fn document(path: &str) -> String {
    let file = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn in_code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn the_protocol_names_every_route_and_its_table_no_other() {
    let text = document("docs/PROTOCOL.md");
    let named: BTreeSet<String> = in_code(&text).filter_map(route).collect();
    let rows = text.lines().filter_map(|line| route(line.strip_prefix("| `")?.split('`').next()?));
    let rows: BTreeSet<String> = rows.collect();
    let known: BTreeSet<String> = ROUTES.map(str::to_owned).into();
    assert_eq!(known.difference(&named).collect::<Vec<_>>(), Vec::<&String>::new(), "forgotten");
    assert_eq!(rows.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "not there");
}

#[test]
fn the_way_over_leads_to_routes_that_are_there() {
    let text = document("docs/MIGRATION.md");
    let named: BTreeSet<String> = in_code(&text).filter(|code| code.contains(" /api/v1/")).filter_map(route).collect();
    let known: BTreeSet<String> = ROUTES.map(str::to_owned).into();
    assert!(named.len() > 10, "{named:?}");
    assert_eq!(named.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "not there");
}
