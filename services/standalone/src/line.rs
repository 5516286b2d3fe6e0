//! The lines that `seed` prints and `import` takes: one user or one room as JSON.
//!
//! Pure: knows no file and no store. The invariant: a line that was read is well-formed by itself;
//! whether its members exist, others check.

use domain::room::{RoomKind, check_title};
use domain::user::{check_name, check_password, normalise_email};
use domain::{RoomId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

/// A user, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserLine {
    pub(crate) id: UserId,
    /// Normalised.
    pub(crate) email: Option<String>,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) password: Option<String>,
}

/// A room, checked; the first member is the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoomLine {
    pub(crate) id: RoomId,
    pub(crate) kind: RoomKind,
    pub(crate) title: Option<String>,
    pub(crate) members: Vec<UserId>,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    User(UserLine),
    Room(RoomLine),
}

#[derive(Deserialize)]
#[serde(expecting = "an object")]
struct RawLine {
    user: Option<RawUser>,
    room: Option<RawRoom>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawUser {
    id: String,
    email: Option<String>,
    first_name: Option<String>,
    last_name: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "an object")]
struct RawRoom {
    id: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    title: Option<String>,
    member_ids: Vec<String>,
}

impl Line {
    /// Reads a line; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let raw: RawLine = serde_json::from_str(text).map_err(|error| in_plain_words(&error))?;
        match (raw.user, raw.room) {
            (Some(user), None) => UserLine::check(user).map(Self::User),
            (None, Some(room)) => RoomLine::check(room).map(Self::Room),
            _ => Err("must hold either \"user\" or \"room\"".to_owned()),
        }
    }
}

/// Without the words of the reader's own language.
fn in_plain_words(error: &serde_json::Error) -> String {
    let (text, column) = (error.to_string(), error.column());
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    let what = match what.strip_prefix("invalid type: ").and_then(|types| types.split_once(", expected ")) {
        Some((found, wanted)) => format!("{} is needed there, not {}", kind(wanted), kind(found).replace('`', "")),
        None if error.is_eof() => "ends in the middle of an object".to_owned(),
        None if error.is_syntax() => format!("is not JSON ({what})"),
        None => what.replace('`', "\""),
    };
    format!("{what}, column {column} of that line")
}

fn kind(name: &str) -> &str {
    match name {
        "map" => "an object",
        "sequence" | "a sequence" => "a list",
        other => other,
    }
}

impl UserLine {
    fn check(raw: RawUser) -> Result<Self, String> {
        let id = UserId::parse("id", &raw.id).map_err(told)?;
        let email = raw.email.as_deref().map(normalise_email).transpose().map_err(told)?;
        let first_name = name("firstName", raw.first_name, || local_part(email.as_deref()))?;
        let last_name = name("lastName", raw.last_name, String::new)?;
        if let Some(password) = &raw.password {
            check_password(password).map_err(told)?;
        }
        Ok(Self { id, email, first_name, last_name, password: raw.password })
    }

    /// The line that `import` would take, without password.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "user": { "id": self.id, "email": self.email } })
    }
}

impl RoomLine {
    fn check(raw: RawRoom) -> Result<Self, String> {
        let id = RoomId::parse("id", &raw.id).map_err(told)?;
        let kind = raw.kind.as_deref().map_or(Ok(RoomKind::Group), RoomKind::parse).map_err(told)?;
        if let Some(title) = &raw.title {
            check_title(title).map_err(told)?;
        }
        let members: Result<Vec<UserId>, _> = raw.member_ids.iter().map(|id| UserId::parse("memberIds", id)).collect();
        let room = Self { id, kind, title: raw.title, members: members.map_err(told)? };
        room.check_members()?;
        Ok(room)
    }

    fn check_members(&self) -> Result<(), String> {
        let mut sorted = self.members.clone();
        sorted.sort_unstable();
        if let Some([twice, _]) = sorted.array_windows().find(|[one, next]| one == next) {
            return Err(format!("memberIds: {twice} is there twice"));
        }
        match (self.kind, self.members.as_slice()) {
            (_, []) => Err("memberIds: at least one is needed".to_owned()),
            (RoomKind::Group, _) => Ok(()),
            (RoomKind::Direct, [one, other]) => {
                let id = RoomId::direct(*one, *other);
                if self.id == id { Ok(()) } else { Err(format!("id: a direct room of these two must be {id}")) }
            }
            (RoomKind::Direct, _) => Err("memberIds: a direct room has exactly two".to_owned()),
        }
    }

    /// The line that `import` would take.
    pub(crate) fn to_json(&self) -> Value {
        json!({ "room": { "id": self.id, "memberIds": self.members } })
    }
}

fn name(field: &'static str, given: Option<String>, otherwise: impl Fn() -> String) -> Result<String, String> {
    match given {
        Some(name) => check_name(field, &name).map(|()| name).map_err(told),
        None => Ok(otherwise()),
    }
}

fn local_part(email: Option<&str>) -> String {
    let local = email.and_then(|email| email.split('@').next()).unwrap_or("User");
    local.chars().take(domain::limits::NAME_CHARS).collect()
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn told(invalid: domain::Invalid) -> String {
    invalid.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "00000000-0000-0000-0000-00000000000a";
    const BOB: &str = "00000000-0000-0000-0000-00000000000b";

    #[test]
    fn users_need_only_an_id() {
        let line = Line::parse(&format!(r#"{{"user":{{"id":"{ANN}"}}}}"#)).expect("enough");
        assert!(matches!(line, Line::User(user) if user.email.is_none() && user.first_name == "User"));
    }

    #[test]
    fn addresses_are_normalised_and_name_their_owner() {
        let text = format!(r#"{{"user":{{"id":"{ANN}","email":" Ann@Example.com","password":"secret12"}}}}"#);
        let Line::User(user) = Line::parse(&text).expect("fine") else { panic!("a user") };
        assert_eq!(user.email.as_deref(), Some("ann@example.com"));
        assert_eq!((user.first_name.as_str(), user.password.as_deref()), ("ann", Some("secret12")));
    }

    #[test]
    fn what_is_printed_can_be_read_again() {
        let line = RoomLine {
            id: RoomId::seeded("p", 1),
            kind: RoomKind::Group,
            title: None,
            members: vec![UserId::seeded("p", 1), UserId::seeded("p", 2)],
        };
        assert_eq!(Line::parse(&line.to_json().to_string()), Ok(Line::Room(line)));
    }

    #[test]
    fn a_direct_room_has_the_one_id_of_its_two_members() {
        let (ann, bob) = (ANN.parse().expect("an id"), BOB.parse().expect("an id"));
        let room = |id: RoomId| {
            Line::parse(&format!(r#"{{"room":{{"id":"{id}","type":"direct","memberIds":["{ANN}","{BOB}"]}}}}"#))
        };
        assert!(room(RoomId::direct(ann, bob)).is_ok());
        assert!(room(RoomId::generate()).expect_err("another id").contains("must be"));
    }

    #[test]
    fn bad_lines_say_what_is_wrong() {
        for (line, reason) in [
            ("", "ends in the middle"),
            ("hello", "is not JSON (expected value), column 1 of that line"),
            ("{}", "either"),
            (r#"{"user":7}"#, "an object is needed there, not integer 7, column 9 of that line"),
            (r#"{"user":{}}"#, "missing field \"id\", column 10 of that line"),
            (r#"{"user":{"id":{}}}"#, "a string is needed there, not an object"),
            (r#"{"room":{"id":"x","memberIds":"x"}}"#, "a list is needed there, not string"),
            (r#"{"user":{"id":"7"}}"#, "must be a UUID"),
            (r#"{"user":{"id":"00000000-0000-0000-0000-00000000000a","email":"x"}}"#, "must be an e-mail address"),
            (r#"{"user":{"id":"00000000-0000-0000-0000-00000000000a","password":"short"}}"#, "8 to 256"),
            (r#"{"room":{"id":"00000000-0000-0000-0000-00000000000a","memberIds":[]}}"#, "at least one"),
            (
                r#"{"room":{"id":"00000000-0000-0000-0000-00000000000a","memberIds":["x"]}}"#,
                "memberIds: must be a UUID",
            ),
            (
                r#"{"room":{"id":"00000000-0000-0000-0000-00000000000a","memberIds":["00000000-0000-0000-0000-00000000000a","00000000-0000-0000-0000-00000000000a"]}}"#,
                "twice",
            ),
        ] {
            let error = Line::parse(line).expect_err(line);
            assert!(error.contains(reason) && !error.contains("Raw"), "{line}: {error}");
        }
    }
}
