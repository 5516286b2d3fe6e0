//! Passwords: Argon2id (RFC 9106), off the async threads, a few at a time.
//!
//! Knows no accounts. The invariant: a check costs the same whether or not there is somebody to
//! check against, and never more than a bounded number of checks wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many hashes are computed at once: each takes a core and `MEMORY_KIB` for tens of milliseconds.
const CONCURRENT: usize = 2;
/// How many may wait for their turn.
const WAITING: usize = 128;
/// How long one waits for its turn.
const WAIT_LIMIT: Duration = Duration::from_secs(5);

/// OWASP's first recommendation for Argon2id with little memory: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Checked where there is no account, so that the answer takes as long as with one. Random
/// bytes where the hash would be, under the parameters above: no password leads to it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$k14UbFYCqHBiWlbZE9OPqw$nqnsHp2pZV6/nQHsjkKa1//q/Bx6Lh7+nMasDWyV5F0";

static TURN: Semaphore = Semaphore::const_new(CONCURRENT);
static IN_LINE: AtomicUsize = AtomicUsize::new(0);

/// Why a password could not be hashed or checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already, or the wait took too long: try again later.
    #[error("too many passwords are being checked")]
    Busy,
    /// The hash could not be computed, for lack of memory.
    #[error("the password could not be hashed")]
    Failed,
}

/// Hashes a password for the store, as a PHC string with a random salt.
pub async fn hash(password: String) -> Result<String, PasswordError> {
    in_turn(move || hasher().hash_password(password.as_bytes()).map(|hash| hash.to_string()))
        .await?
        .map_err(|_| PasswordError::Failed)
}

/// True when `password` is what `stored` was made from. Without `stored` (no such account, or one
/// without a password) it takes as long and is never true.
pub async fn verify(password: String, stored: Option<String>) -> Result<bool, PasswordError> {
    in_turn(move || {
        let known = stored.as_deref().and_then(|stored| PasswordHash::new(stored).ok());
        let matches = |hash: &PasswordHash| hasher().verify_password(password.as_bytes(), hash).is_ok();
        let somebody = known.is_some();
        let hash = known.unwrap_or_else(|| PasswordHash::new(NOBODY).expect("the constant is a PHC string"));
        matches(&hash) && somebody
    })
    .await
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the constants are within Argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Runs `work` on a blocking thread once it is its turn.
async fn in_turn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
    let permit = turn(&TURN, &IN_LINE, WAIT_LIMIT).await?;
    // The permit goes along: a caller that gives up does not let a third hash start.
    let task = move || {
        let result = work();
        drop(permit);
        result
    };
    runtime::tasks::blocking(task).await.map_err(|_| PasswordError::Failed)
}

async fn turn(
    turns: &'static Semaphore,
    in_line: &'static AtomicUsize,
    limit: Duration,
) -> Result<SemaphorePermit<'static>, PasswordError> {
    struct Place(&'static AtomicUsize);
    impl Drop for Place {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let before = in_line.fetch_add(1, Ordering::Relaxed);
    let _place = Place(in_line);
    if before >= WAITING {
        return Err(PasswordError::Busy);
    }
    match tokio::time::timeout(limit, turns.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(PasswordError::Busy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_matches_its_own_hash_only() {
        let stored = hash("correct horse".to_owned()).await.expect("hashed");
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_eq!(verify("correct horse".to_owned(), Some(stored.clone())).await, Ok(true));
        assert_eq!(verify("battery staple".to_owned(), Some(stored.clone())).await, Ok(false));
        assert_eq!(verify(String::new(), Some(stored)).await, Ok(false));
    }

    #[tokio::test]
    async fn equal_passwords_have_different_hashes() {
        let (one, other) = (hash("same".to_owned()).await, hash("same".to_owned()).await);
        assert_ne!(one, other);
    }

    #[tokio::test]
    async fn nobody_has_no_password_and_a_broken_hash_matches_nothing() {
        assert_eq!(verify("x".to_owned(), None).await, Ok(false));
        assert_eq!(verify("x".to_owned(), Some("plain".to_owned())).await, Ok(false));
    }

    #[test]
    fn checking_nobody_costs_what_checking_somebody_costs() {
        let ours = hasher().hash_password(b"x").expect("hashed").to_string();
        let costs = |phc: &str| phc.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(costs(NOBODY), costs(&ours));
        let length = |phc: &str| phc.rsplit('$').next().map(str::len);
        assert_eq!(length(NOBODY), length(&ours));
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_bounded_in_time_and_in_length() {
        static NO_TURN: Semaphore = Semaphore::const_new(0);
        static LINE: AtomicUsize = AtomicUsize::new(0);
        let first = turn(&NO_TURN, &LINE, Duration::from_secs(1)).await;
        assert_eq!(first.err(), Some(PasswordError::Busy), "waited too long");
        assert_eq!(LINE.load(Ordering::Relaxed), 0, "and left the line");
        LINE.store(WAITING, Ordering::Relaxed);
        let late = turn(&NO_TURN, &LINE, Duration::MAX).await;
        assert_eq!(late.err(), Some(PasswordError::Busy), "the line is full");
    }
}
