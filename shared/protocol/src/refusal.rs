//! A refusal: the one shape in which every entrance says no.

use domain::Invalid;

use crate::{Code, wire};

/// Why something was refused, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The public code.
    pub code: Code,
    /// Words for a client developer; never detail of the inside.
    pub message: String,
    /// The field at fault, with `INVALID_PAYLOAD` and `TOO_LARGE`.
    pub field: Option<String>,
    /// How long to wait before trying again, milliseconds.
    pub retry_after_ms: Option<u64>,
    /// The client's own name for what was refused.
    pub client_msg_id: Option<String>,
}

impl Refusal {
    /// A refusal with a code and words.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, retry_after_ms: None, client_msg_id: None }
    }

    /// A malformed field.
    pub fn invalid(field: impl Into<String>, reason: impl AsRef<str>) -> Self {
        let field = field.into();
        let message = format!("{field} {}", reason.as_ref());
        Self { field: Some(field), ..Self::new(Code::InvalidPayload, message) }
    }

    /// An event nobody here knows.
    pub fn unknown_event(event: &str) -> Self {
        let shown: String = event.chars().filter(|c| !c.is_control()).take(64).collect();
        Self::new(Code::UnknownEvent, format!("there is no event {shown:?}"))
    }

    /// No token, or a bad one.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Code::Unauthenticated, message)
    }

    /// A right that a member lacks.
    pub fn forbidden() -> Self {
        Self::new(Code::Forbidden, "you may not do this here")
    }

    /// Something unknown, or not to be known.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// What came since is not kept any more: whoever wants to go on loads the state anew.
    pub fn too_old() -> Self {
        Self::new(Code::TooOld, "what came since then is not kept any more: load the state anew")
    }

    /// Over the rate.
    pub fn rate_limited(retry_after_ms: u64) -> Self {
        Self::new(Code::RateLimited, "too many requests").after(retry_after_ms)
    }

    /// The whole system has too much to do.
    pub fn overloaded(retry_after_ms: u64) -> Self {
        Self::new(Code::Overloaded, "the server has too much to do").after(retry_after_ms)
    }

    /// A dependency does not answer. What was asked may still be carried out: the client resends
    /// the same `clientMsgId`.
    pub fn unavailable() -> Self {
        Self::new(Code::Unavailable, "the service is not available at the moment").after(1000)
    }

    /// Our fault; the log has the detail under the request id.
    pub fn internal() -> Self {
        Self::new(Code::Internal, "something went wrong on our side")
    }

    /// The same, with a hint when to try again.
    #[must_use]
    pub fn after(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// The same, naming what the client called it.
    #[must_use]
    pub fn of(mut self, client_msg_id: &str) -> Self {
        if !client_msg_id.is_empty() && client_msg_id.len() <= 4 * domain::limits::CLIENT_MSG_ID_CHARS {
            self.client_msg_id = Some(client_msg_id.to_owned());
        }
        self
    }
}

impl From<Invalid> for Refusal {
    fn from(invalid: Invalid) -> Self {
        let code = if invalid.too_large { Code::TooLarge } else { Code::InvalidPayload };
        Self { code, ..Self::invalid(invalid.field, invalid.reason) }
    }
}

impl From<Refusal> for wire::Refusal {
    fn from(refusal: Refusal) -> Self {
        Self {
            status: "REJECTED".to_owned(),
            code: refusal.code.as_str().to_owned(),
            message: refusal.message,
            field: refusal.field,
            retry_after_ms: refusal.retry_after_ms.map(|ms| ms as i64),
            client_msg_id: refusal.client_msg_id,
            close_code: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_one_json_shape() {
        let wire = wire::Refusal::from(Refusal::rate_limited(250).of("m1"));
        let json = serde_json::to_string(&wire).expect("plain data");
        assert_eq!(
            json,
            r#"{"status":"REJECTED","code":"RATE_LIMITED","message":"too many requests","retryAfterMs":250,"clientMsgId":"m1"}"#
        );
    }

    #[test]
    fn too_large_content_has_its_own_code() {
        assert_eq!(Refusal::from(Invalid::too_large("content", 1)).code, Code::TooLarge);
        assert_eq!(Refusal::from(Invalid::new("content", "is required")).code, Code::InvalidPayload);
    }
}
