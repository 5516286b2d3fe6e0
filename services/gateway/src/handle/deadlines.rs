//! When something is due on one connection: its token, its pings, its expiry.
//!
//! Pure: time comes in as milliseconds of a clock that never goes back. The invariant: each deadline
//! is reported once.

/// How often a connection is pinged.
pub(crate) const PING_EVERY_MS: u64 = 25_000;
/// How long the answer to a ping may take.
pub(crate) const PONG_WITHIN_MS: u64 = 20_000;
/// How long before the token's expiry the client is told.
pub(crate) const WARN_AHEAD_MS: u64 = 60_000;

const NEVER: u64 = u64::MAX;

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// Ask whether the client is still there.
    Ping,
    /// The client did not say who it is in time.
    NotAuthenticated,
    /// The client did not answer a ping.
    NoPong,
    /// The token is about to expire.
    Expiring,
    /// The token has expired.
    Expired,
}

/// The deadlines of one connection.
#[derive(Debug, Clone)]
#[allow(clippy::struct_field_names, reason = "units stand last in names")]
pub(crate) struct Deadlines {
    authenticate_by_ms: u64,
    ping_at_ms: u64,
    pong_by_ms: u64,
    warn_at_ms: u64,
    expires_at_ms: u64,
}

impl Deadlines {
    /// A connection made at `now_ms` that has so long to say who it is.
    pub(crate) const fn new(now_ms: u64, authenticate_within_ms: u64) -> Self {
        Self {
            authenticate_by_ms: now_ms + authenticate_within_ms,
            ping_at_ms: now_ms + PING_EVERY_MS,
            pong_by_ms: NEVER,
            warn_at_ms: NEVER,
            expires_at_ms: NEVER,
        }
    }

    /// The client has until then to say who it is.
    pub(crate) fn authenticate_by(&mut self, at_ms: u64) {
        self.authenticate_by_ms = at_ms;
    }

    /// The client said who it is.
    pub(crate) fn authenticated(&mut self) {
        self.authenticate_by_ms = NEVER;
    }

    /// The client's token is good until then.
    pub(crate) fn expires_at(&mut self, at_ms: u64) {
        self.expires_at_ms = at_ms;
        self.warn_at_ms = at_ms.saturating_sub(WARN_AHEAD_MS);
    }

    /// The client gave a sign of life.
    pub(crate) fn heard(&mut self) {
        self.pong_by_ms = NEVER;
    }

    /// The next thing that is due at `now_ms`; ask again until `None`.
    pub(crate) fn due(&mut self, now_ms: u64) -> Option<Due> {
        let passed = |at: &mut u64| {
            let due = *at <= now_ms;
            if due {
                *at = NEVER;
            }
            due
        };
        if passed(&mut self.authenticate_by_ms) {
            return Some(Due::NotAuthenticated);
        }
        if passed(&mut self.expires_at_ms) {
            return Some(Due::Expired);
        }
        if passed(&mut self.warn_at_ms) {
            return Some(Due::Expiring);
        }
        if passed(&mut self.pong_by_ms) {
            return Some(Due::NoPong);
        }
        if self.ping_at_ms <= now_ms {
            self.ping_at_ms = now_ms + PING_EVERY_MS;
            self.pong_by_ms = now_ms + PONG_WITHIN_MS;
            return Some(Due::Ping);
        }
        None
    }

    /// When to look again.
    pub(crate) fn next_ms(&self) -> u64 {
        [self.authenticate_by_ms, self.ping_at_ms, self.pong_by_ms, self.warn_at_ms, self.expires_at_ms]
            .into_iter()
            .fold(NEVER, u64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authenticated() -> Deadlines {
        let mut deadlines = Deadlines::new(0, 5_000);
        deadlines.authenticated();
        deadlines
    }

    #[test]
    fn who_does_not_say_who_it_is_within_the_time_is_reported_once() {
        let mut deadlines = Deadlines::new(0, 5_000);
        assert_eq!(deadlines.next_ms(), 5_000);
        assert_eq!(deadlines.due(4_999), None);
        assert_eq!(deadlines.due(5_000), Some(Due::NotAuthenticated));
        assert_eq!(deadlines.due(5_001), None);
    }

    #[test]
    fn a_ping_that_is_answered_leads_to_the_next_ping() {
        let mut deadlines = authenticated();
        assert_eq!(deadlines.due(25_000), Some(Due::Ping));
        deadlines.heard();
        assert_eq!(deadlines.due(49_999), None);
        assert_eq!(deadlines.due(50_000), Some(Due::Ping));
    }

    #[test]
    fn a_ping_without_an_answer_ends_the_connection_after_twenty_seconds() {
        let mut deadlines = authenticated();
        assert_eq!(deadlines.due(25_000), Some(Due::Ping));
        assert_eq!(deadlines.next_ms(), 45_000);
        assert_eq!(deadlines.due(44_999), None);
        assert_eq!(deadlines.due(45_000), Some(Due::NoPong));
    }

    #[test]
    fn expiry_is_told_a_minute_ahead_and_a_new_token_moves_it() {
        let mut deadlines = authenticated();
        deadlines.expires_at(65_000);
        assert_eq!(deadlines.due(5_000), Some(Due::Expiring));
        deadlines.expires_at(165_000);
        assert_eq!(deadlines.due(5_001), None);
        deadlines.expires_at(10_000);
        assert_eq!(deadlines.due(10_000), Some(Due::Expired));
    }
}
