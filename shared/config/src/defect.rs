//! Deliberate defects, for tests that must see themselves fail.
//!
//! The invariant: without the feature `defects` none can be switched on, and asking costs nothing.

/// Something that a program can be made to do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defect {
    /// The processor aborts when the content of a message is `poison`.
    AbortOnPoison,
    /// QUEUED is said before the broker has the event.
    AckBeforeConfirm,
    /// The database takes the same message twice (Postgres).
    NoUniqueKey,
    /// Clients are told before the commit.
    PublishBeforeCommit,
    /// A gateway goes on where a delivery of a room is missing.
    IgnoreGaps,
}

/// Whether the program was built with defects and `TEST_DEFECT` names this one.
#[cfg(feature = "defects")]
pub fn is_on(defect: Defect) -> bool {
    static NAMED: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    let named = NAMED.get_or_init(|| std::env::var("TEST_DEFECT").unwrap_or_default());
    named.split(',').any(|name| name == format!("{defect:?}"))
}

/// No program has any.
#[cfg(not(feature = "defects"))]
pub const fn is_on(_: Defect) -> bool {
    false
}
