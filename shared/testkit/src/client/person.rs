//! Somebody with an account.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Rest, Socket};
use crate::cluster::Node;

/// An account with a token.
#[derive(Debug, Clone)]
pub struct Person {
    /// The user's id.
    pub id: String,
    /// The e-mail address.
    pub email: String,
    /// An access token.
    pub token: String,
    /// The refresh token that came with it.
    pub refresh_token: String,
    /// REST as this person.
    pub rest: Rest,
}

impl Person {
    /// Everybody's password.
    pub const PASSWORD: &'static str = "correct horse battery";

    /// Registers somebody new.
    pub async fn register(rest: &Rest, name: &str) -> Self {
        let email = format!("{}-{}@example.org", name.to_lowercase(), Uuid::new_v4().simple());
        let form = json!({"email": email, "password": Self::PASSWORD, "firstName": name, "lastName": "Test"});
        let body = rest.post("/api/v1/auth/register", form).await.expect(201);
        let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {body}")).to_owned();
        let token = text(&body["accessToken"]);
        Self {
            id: text(&body["user"]["id"]),
            email,
            rest: rest.with_token(&token),
            token,
            refresh_token: text(&body["refreshToken"]),
        }
    }

    /// Creates a group with `others` and returns its id.
    pub async fn create_group(&self, others: &[&Person]) -> String {
        let ids: Vec<&str> = others.iter().map(|person| person.id.as_str()).collect();
        let form = json!({"type": "group", "title": "A room", "memberIds": ids});
        let room = self.rest.post("/api/v1/conversations", form).await.expect(201);
        room["id"].as_str().expect("a room has an id").to_owned()
    }

    /// All messages of a room as history shows them, ascending.
    pub async fn history(&self, room: &str) -> Vec<Value> {
        let mut all: Vec<Value> = Vec::new();
        loop {
            let after = all.last().map_or(0, |item| item["seq"].as_i64().expect("messages have a seq"));
            let path = format!("/api/v1/conversations/{room}/messages?after={after}&limit=200");
            let page = self.rest.get(&path).await.expect(200);
            let items = page["items"].as_array().expect("a page has items");
            if items.is_empty() {
                return all;
            }
            all.extend(items.iter().cloned());
        }
    }

    /// Connects by the native WebSocket and waits for `session.ready`.
    pub async fn connect(&self, gateway: &Node) -> Socket {
        let socket = Socket::open(&gateway.clients_url(), &format!("/ws?token={}", self.token)).await;
        socket.event("session.ready", |_| true).await;
        socket
    }
}
