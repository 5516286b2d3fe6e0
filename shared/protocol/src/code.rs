//! The closed set of public codes: why something was refused, why a connection was closed.

use std::fmt;

/// Why a request was refused. The names are part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The data of a known event is malformed.
    InvalidPayload,
    /// No such event.
    UnknownEvent,
    /// No token, or one that is expired, malformed or not ours.
    Unauthenticated,
    /// A member lacks the right.
    Forbidden,
    /// Unknown, or something a stranger may not know of.
    NotFound,
    /// Taken already, or changed meanwhile.
    Conflict,
    /// From before what is kept.
    TooOld,
    /// Content over its limit.
    TooLarge,
    /// Too many requests of one user or address.
    RateLimited,
    /// The system as a whole has too much to do.
    Overloaded,
    /// A dependency does not answer; the request may or may not have been carried out.
    Unavailable,
    /// Our fault.
    Internal,
}

impl Code {
    /// Every code.
    pub const ALL: [Self; 12] = [
        Self::InvalidPayload,
        Self::UnknownEvent,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::Conflict,
        Self::TooOld,
        Self::TooLarge,
        Self::RateLimited,
        Self::Overloaded,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The code as the protocol writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidPayload => "INVALID_PAYLOAD",
            Self::UnknownEvent => "UNKNOWN_EVENT",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::TooOld => "TOO_OLD",
            Self::TooLarge => "TOO_LARGE",
            Self::RateLimited => "RATE_LIMITED",
            Self::Overloaded => "OVERLOADED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The code of that name, as it is stored with an outcome.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == text)
    }

    /// The HTTP status of the same refusal by REST (RFC 9110).
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidPayload | Self::UnknownEvent => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooOld => 410,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Overloaded | Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a connection is closed. The numbers are WebSocket close codes (RFC 6455 section 7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// The server closes in good order.
    Normal,
    /// A text frame was not UTF-8.
    InvalidUtf8,
    /// Not JSON, no string `event`, too deep, wrong kind of frame.
    BadFrame,
    /// No token in time, a bad one, or one that expired.
    Unauthenticated,
    /// Blocked, or signed out everywhere.
    Forbidden,
    /// No pong.
    PongTimeout,
    /// Another connection of the same device took its place.
    Replaced,
    /// A frame over its limit.
    FrameTooLarge,
    /// The client went on after being told to slow down.
    Flooding,
    /// The server is about to stop or cannot serve now.
    Draining,
    /// The client reads too slowly; it may resume.
    TooSlow,
}

impl CloseCode {
    /// Every close code.
    pub const ALL: [Self; 11] = [
        Self::Normal,
        Self::InvalidUtf8,
        Self::BadFrame,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::PongTimeout,
        Self::Replaced,
        Self::FrameTooLarge,
        Self::Flooding,
        Self::Draining,
        Self::TooSlow,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::InvalidUtf8 => 1007,
            Self::BadFrame => 4400,
            Self::Unauthenticated => 4401,
            Self::Forbidden => 4403,
            Self::PongTimeout => 4408,
            Self::Replaced => 4409,
            Self::FrameTooLarge => 4413,
            Self::Flooding => 4429,
            Self::Draining => 4503,
            Self::TooSlow => 4508,
        }
    }

    /// The short reason sent with the close frame, and the code in Socket.IO's `error` event.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Normal => "NORMAL",
            Self::InvalidUtf8 => "INVALID_UTF8",
            Self::BadFrame => "BAD_FRAME",
            Self::Unauthenticated => "UNAUTHENTICATED",
            Self::Forbidden => "FORBIDDEN",
            Self::PongTimeout => "PONG_TIMEOUT",
            Self::Replaced => "REPLACED",
            Self::FrameTooLarge => "TOO_LARGE",
            Self::Flooding => "RATE_LIMITED",
            Self::Draining => "UNAVAILABLE",
            Self::TooSlow => "TOO_SLOW",
        }
    }

    /// True when a Socket.IO client must not come back by itself: its namespace is disconnected
    /// instead of the transport being closed.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Unauthenticated | Self::Forbidden | Self::Replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_by_their_names() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(code));
        }
    }

    #[test]
    fn close_codes_are_distinct() {
        let mut numbers: Vec<_> = CloseCode::ALL.iter().map(|code| code.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), CloseCode::ALL.len());
    }
}
