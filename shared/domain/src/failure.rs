//! Why an event's own processing fails: the closed set of causes, and what follows from each.
//!
//! Pure. The invariant: every cause belongs to exactly one kind, and the kind alone decides whether
//! the event is tried again. An outage is none of these: it is nobody's failure.

use std::fmt;

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Trying again may help: the event climbs the ladder of [`crate::retry`].
    Retry,
    /// Trying again cannot help: a dead letter at once.
    Never,
    /// A fault of ours: a dead letter at once, and an error in the log that should wake somebody.
    Bug,
}

impl FailureKind {
    /// As dead letters and documents say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Never => "never",
            Self::Bug => "bug",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why an event failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Body or properties are not what was signed.
    BadSignature,
    /// Signed with a key that is not known.
    UnknownKey,
    /// Signed by us, but not an event this version can read.
    Undecodable,
    /// Accepted longer ago than is known what was done.
    TooOld,
    /// The store refuses the data.
    StoreRejected,
    /// The message it points at is not stored yet.
    TargetMissing,
    /// Its own transaction never ends in time, though everything answers.
    TimedOut,
    /// Processing it panics.
    Panic,
    /// Processing it came to no outcome.
    NoOutcome,
    /// Whoever processes it dies.
    Crashes,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 10] = [
        Self::BadSignature,
        Self::UnknownKey,
        Self::Undecodable,
        Self::TooOld,
        Self::StoreRejected,
        Self::TargetMissing,
        Self::TimedOut,
        Self::Panic,
        Self::NoOutcome,
        Self::Crashes,
    ];

    /// The one table: the label in metrics and headers, the kind, what an operator does.
    const fn row(self) -> (&'static str, FailureKind, &'static str) {
        match self {
            Self::BadSignature => (
                "bad_signature",
                FailureKind::Never,
                "if a key was changed under its old id: give the new one another id, add the old one again under its \
                 own (`HMAC_KEYS=k2:NEW,k1:OLD`), and replay it. If not: find out who else may publish to the \
                 broker, and drop it",
            ),
            Self::UnknownKey => (
                "unknown_key",
                FailureKind::Never,
                "add its key (`keyId`, `x-key-id`) to `HMAC_KEYS` again and replay it; if it is none of yours, drop it",
            ),
            Self::Undecodable => (
                "undecodable",
                FailureKind::Never,
                "a newer version sent it: bring the processors up to date, then replay it",
            ),
            Self::TooOld => (
                "too_old",
                FailureKind::Never,
                "nothing can be done: it was accepted longer ago than receipts are kept (see [What is removed](#what-is-removed)), and nobody knows any more whether it was applied; drop it",
            ),
            Self::StoreRejected => {
                ("store_rejected", FailureKind::Retry, "read `x-error`, mend what the database refuses, then replay it")
            }
            Self::TargetMissing => (
                "target_missing",
                FailureKind::Retry,
                "nothing: at the end of the ladder its sender is told; a dead letter of it means that this took too long",
            ),
            Self::TimedOut => (
                "timed_out",
                FailureKind::Retry,
                "look for what holds its room's rows or makes its statement slow, then replay it",
            ),
            Self::Panic => {
                ("panic", FailureKind::Bug, "report it with the log's error; replay it with a mended version")
            }
            Self::NoOutcome => {
                ("no_outcome", FailureKind::Bug, "report it with the log's error; replay it with a mended version")
            }
            Self::Crashes => (
                "crashes",
                FailureKind::Bug,
                "report it with what the processors last logged; replay it only with a mended version",
            ),
        }
    }

    /// The label in metrics and in a dead letter's header `x-cause`.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// What follows from it.
    pub const fn kind(self) -> FailureKind {
        self.row().1
    }

    /// What an operator does about dead letters of it.
    pub const fn remedy(self) -> &'static str {
        self.row().2
    }

    /// The cause of that label.
    pub fn parse(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == label)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_label_of_its_own() {
        for cause in Cause::ALL {
            assert_eq!(Cause::parse(cause.as_str()), Some(cause));
            assert!(!cause.remedy().is_empty());
        }
        assert_eq!(Cause::parse("dance"), None);
    }

    #[test]
    fn what_nobody_can_believe_is_never_tried_again_and_what_may_pass_is() {
        let of_kind = |kind| Cause::ALL.into_iter().filter(|cause| cause.kind() == kind).collect::<Vec<_>>();
        let never = [Cause::BadSignature, Cause::UnknownKey, Cause::Undecodable, Cause::TooOld];
        assert_eq!(of_kind(FailureKind::Never), never);
        assert_eq!(of_kind(FailureKind::Retry), [Cause::StoreRejected, Cause::TargetMissing, Cause::TimedOut]);
        assert_eq!(of_kind(FailureKind::Bug), [Cause::Panic, Cause::NoOutcome, Cause::Crashes]);
    }
}
