//! What a message may be: its type, content, client id and reactions.

use crate::{Invalid, limits};

/// What a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    /// Words.
    Text,
    /// A picture.
    Image,
    /// A document.
    File,
    /// A film.
    Video,
    /// A recording.
    Audio,
}

impl MessageType {
    const ALL: [Self; 5] = [Self::Text, Self::Image, Self::File, Self::Video, Self::Audio];

    /// The type as the protocol and the store write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Image => "IMAGE",
            Self::File => "FILE",
            Self::Video => "VIDEO",
            Self::Audio => "AUDIO",
        }
    }

    /// Reads a type from outside; absent means text.
    pub fn parse(text: Option<&str>) -> Result<Self, Invalid> {
        let Some(text) = text else { return Ok(Self::Text) };
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| Invalid::new("type", "must be TEXT, IMAGE, FILE, VIDEO or AUDIO"))
    }
}

/// Content may be anything that a person can read, within its size; it is kept byte for byte.
///
/// Refused: nothing but white space (unless something is attached), control characters other than
/// line feed, carriage return and tab, and the two permanent non-characters that break databases.
pub fn check_content(content: &str, has_attachments: bool) -> Result<(), Invalid> {
    if content.len() > limits::CONTENT_BYTES {
        return Err(Invalid::too_large("content", limits::CONTENT_BYTES));
    }
    if !has_attachments && content.trim().is_empty() {
        return Err(Invalid::new("content", "must not be empty"));
    }
    check_text("content", content, true)
}

/// Refuses control characters; line breaks and tabs pass when `multiline`.
pub fn check_text(field: &'static str, text: &str, multiline: bool) -> Result<(), Invalid> {
    let bad = |c: char| c.is_control() && !(multiline && matches!(c, '\n' | '\r' | '\t'));
    match text.chars().find(|c| bad(*c)) {
        Some(c) => Err(Invalid::new(field, format!("holds the control character U+{:04X}", c as u32))),
        None => Ok(()),
    }
}

/// A client's own name for a message: 1 to 64 characters without control characters.
pub fn check_client_msg_id(text: &str) -> Result<(), Invalid> {
    check_client_name("clientMsgId", text)
}

/// A client's own name for something it asks for: 1 to 64 characters without control characters.
pub fn check_client_name(field: &'static str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "is required"));
    }
    if text.chars().count() > limits::CLIENT_MSG_ID_CHARS {
        return Err(Invalid::new(field, "must have at most 64 characters"));
    }
    check_text(field, text, false)
}

/// A reaction: a short run of characters without white space or control characters.
pub fn check_emoji(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new("emoji", "is required"));
    }
    if text.len() > limits::EMOJI_BYTES || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(Invalid::new("emoji", "must be one emoji or a short name without spaces"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("hello")]
    #[case("line one\nline two\ttabbed\r\n")]
    #[case("<script>alert(1)</script> '; DROP TABLE messages; --")]
    #[case("👩‍👩‍👧‍👦 עברית")]
    fn readable_content_passes(#[case] content: &str) {
        assert_eq!(check_content(content, false), Ok(()));
    }

    #[rstest]
    #[case("")]
    #[case(" \n\t ")]
    #[case("nul\0")]
    #[case("bell\u{7}")]
    #[case("next line\u{85}")]
    fn unreadable_content_is_refused(#[case] content: &str) {
        let refusal = check_content(content, false).expect_err("refused");
        assert_eq!((refusal.field, refusal.too_large), ("content", false));
    }

    #[test]
    fn content_over_its_limit_is_too_large() {
        assert!(check_content(&"x".repeat(limits::CONTENT_BYTES), false).is_ok());
        assert!(check_content(&"x".repeat(limits::CONTENT_BYTES + 1), false).expect_err("refused").too_large);
    }

    #[test]
    fn an_attachment_needs_no_words() {
        assert!(check_content("", true).is_ok());
    }

    #[test]
    fn types_are_the_five_of_the_protocol() {
        assert_eq!(MessageType::parse(None), Ok(MessageType::Text));
        assert_eq!(MessageType::parse(Some("IMAGE")), Ok(MessageType::Image));
        assert!(MessageType::parse(Some("text")).is_err());
    }

    #[test]
    fn client_names_are_1_to_64_characters() {
        assert!(check_client_msg_id(&"é".repeat(64)).is_ok());
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert!(check_client_msg_id(bad).is_err());
        }
    }
}
