//! What can go wrong in the store, by kinds: wait, somebody was first, it has gone, never try again.
//!
//! It knows the databases' error codes and no table. The invariant: an error about the connection
//! or the server's state is always transient, an error about the data never is.

use protocol::Refusal;
use sqlx::error::ErrorKind;
use sqlx::migrate::MigrateError;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No connection, no answer in time, the server is stopping, or somebody must mend it first (a
    /// missing table or right, a damaged file; logged as an error): the same call may work later.
    /// A write that ends so may or may not have been stored.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A statement, or its wait for a lock, took too long: either the database is slow, or there is
    /// something about just these rows. As transient as `Unavailable`.
    #[error("the database was too slow: {0}")]
    TimedOut(String),
    /// Somebody stored it before; says what: `email`, `message`, `job`, `memberIds`, ….
    #[error("{0} is taken or changed meanwhile")]
    Conflict(&'static str),
    /// What was asked for has been removed for its age.
    #[error("it is not kept any more")]
    TooOld,
    /// The data itself, or a fault of ours: trying again changes nothing.
    #[error("the database refused: {0}")]
    Rejected(String),
}

impl StoreError {
    /// What a caller is told when a read for it failed like this.
    pub fn refusal(&self) -> Refusal {
        if self.is_transient() {
            return Refusal::unavailable();
        }
        if *self == Self::TooOld {
            return Refusal::too_old();
        }
        tracing::error!(error = %self, "the store rejected a read");
        Refusal::internal()
    }

    /// True when the database and not the data was at fault.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TimedOut(_))
    }

    pub(crate) fn timed_out() -> Self {
        Self::TimedOut("no answer in time".to_owned())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                if is_late(&code) {
                    Self::TimedOut(describe(&code, database.message()))
                } else if is_transient_code(&code) {
                    Self::Unavailable(describe(&code, database.message()))
                } else if needs_an_operator(&code, database.message()) {
                    tracing::error!(%code, what = database.message(), "the database cannot be worked with as it is");
                    Self::Unavailable(describe(&code, database.message()))
                } else if database.kind() == ErrorKind::UniqueViolation {
                    Self::Conflict("key")
                } else {
                    Self::Rejected(describe(&code, database.message()))
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => Self::Unavailable(error.to_string()),
            // The text of a configuration error can hold parts of the address, password included.
            sqlx::Error::Configuration(_) => Self::Rejected("the database address is malformed".to_owned()),
            _ => Self::Rejected(error.to_string()),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) => inner.into(),
            other => Self::Rejected(other.to_string()),
        }
    }
}

/// A row that does not say what it must: somebody else wrote it.
pub(crate) fn damaged(what: &str) -> StoreError {
    StoreError::Rejected(format!("{what} in the database is damaged"))
}

/// A message of a database holds names and numbers of columns; values stand in its details, which
/// are left out.
fn describe(code: &str, message: &str) -> String {
    format!("{message} ({code})")
}

/// True for faults of the server that stay until somebody mends them: a right that is missing, a table
/// or column that is (a migration did not run), a file that is damaged or may only be read. No event
/// is to blame, so none may become a dead letter for it.
fn needs_an_operator(code: &str, message: &str) -> bool {
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => match number & 0xff {
            // READONLY, CORRUPT, NOTADB
            8 | 11 | 26 => true,
            // ERROR is the code of every fault in a statement; only the text tells which.
            1 => message.starts_with("no such table") || message.starts_with("no such column"),
            _ => false,
        },
        // insufficient privilege; undefined table, column, function, schema; internal error, damaged data
        _ => matches!(code, "42501" | "42P01" | "42703" | "42883" | "3F000") || code.starts_with("XX"),
    }
}

/// True when a Postgres server gave a statement up for the time it took (query canceled) or waited for
/// a lock (lock not available). A `SQLite` file that is busy is busy for everybody.
fn is_late(code: &str) -> bool {
    matches!(code, "57014" | "55P03")
}

/// True for states of the server that pass. Postgres codes have five characters
/// (appendix A of its manual), `SQLite` codes are numbers whose low byte is the primary code.
fn is_transient_code(code: &str) -> bool {
    match code.parse::<u32>() {
        Ok(number) if code.len() < 5 => {
            // BUSY, LOCKED, NOMEM, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL
            matches!(number & 0xff, 5 | 6 | 7 | 9 | 10 | 13 | 14 | 15)
        }
        _ => is_transient_sqlstate(code),
    }
}

fn is_transient_sqlstate(code: &str) -> bool {
    match code.get(..2) {
        // connection, insufficient resources, operator intervention (shutdown, cancel, idle session), system error
        Some("08" | "53" | "57" | "58") => true,
        // serialization failure, deadlock; idle in transaction; lock not available; read-only after a fail-over
        _ => matches!(code, "40001" | "40P01" | "25P03" | "55P03" | "25006" | "28P01" | "28000"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_the_server_are_transient() {
        for code in ["57P01", "57P03", "57014", "40001", "40P01", "53300", "08006", "55P03", "57P05"] {
            assert!(is_transient_code(code), "postgres {code}");
        }
        for code in ["5", "517", "6", "10", "778", "13", "14"] {
            assert!(is_transient_code(code), "sqlite {code}");
        }
    }

    #[test]
    fn what_an_operator_must_mend_is_no_fault_of_the_data() {
        for code in ["42501", "42P01", "42703", "XX000", "XX001", "8", "1032", "11", "267", "26"] {
            assert!(needs_an_operator(code, "whatever"), "{code}");
        }
        assert!(needs_an_operator("1", "no such table: refused_jobs"));
        for code in ["1", "13", "10", "53100", "57P01"] {
            assert!(!needs_an_operator(code, "whatever"), "{code}");
        }
    }

    #[test]
    fn faults_of_the_data_are_not() {
        for code in ["23505", "22021", "22P02", "23502", "1", "19", "2067", "1555", "25"] {
            assert!(!is_transient_code(code) && !needs_an_operator(code, "whatever"), "{code}");
        }
    }

    #[test]
    fn a_pool_without_a_free_connection_is_transient() {
        assert!(StoreError::from(sqlx::Error::PoolTimedOut).is_transient());
        assert!(!StoreError::from(sqlx::Error::RowNotFound).is_transient());
    }
}
