//! A dead letter as people and programs see it: by REST and from the command line alike.
//!
//! The invariant: nothing here was believed; every text is what the letter says of itself.

use broker::DeadLetter;
use serde::Serialize;
use utoipa::ToSchema;

/// An event that was given up.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
#[serde(rename_all = "camelCase")]
pub struct Letter {
    /// The event's id: what replaying and dropping take. Strangers' letters may have none.
    id: String,
    /// What it was: `message.send`, ….
    event: String,
    /// Who sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_id: Option<String>,
    /// Into which room.
    #[serde(skip_serializing_if = "Option::is_none")]
    room_id: Option<String>,
    /// Why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// What kind of cause that is: `retry`, `never` or `bug`.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    /// What went wrong, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When it first failed.
    #[schema(format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    first_failed_at: Option<String>,
    /// When it failed last.
    #[schema(format = DateTime)]
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failed_at: Option<String>,
    /// How often it was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    /// The queue it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
    /// The id of the key that signed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    /// A readable rendering of the event, perhaps cut; only of a single letter.
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl Letter {
    /// Without its body.
    pub fn brief(letter: &DeadLetter) -> Self {
        let own = |name| letter.header(name).map(str::to_owned);
        Self {
            id: letter.job_id.clone(),
            event: letter.kind.clone(),
            sender_id: own("x-sender"),
            room_id: own("x-room"),
            cause: own("x-cause"),
            kind: own("x-kind"),
            error: own("x-error"),
            first_failed_at: own("x-first-failed-at"),
            last_failed_at: own("x-last-failed-at"),
            attempts: letter.header("x-attempts-made").and_then(|count| count.parse().ok()),
            queue: own("x-original-queue"),
            key_id: own("x-key-id").filter(|id| !id.is_empty()),
            body: None,
        }
    }

    /// With its body.
    pub fn whole(letter: &DeadLetter) -> Self {
        Self { body: letter.header("x-body").map(str::to_owned), ..Self::brief(letter) }
    }
}
