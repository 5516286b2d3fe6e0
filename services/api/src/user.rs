//! The standing of accounts, remembered for a second so that a busy client costs no query each time.
//!
//! The invariant: nothing is believed longer than [`BELIEVED_US`]; strangers are never remembered.

use dashmap::DashMap;
use domain::UserId;
use store::user::Account;
use store::{Store, StoreError};

/// How long an account's standing is believed, microseconds: a block works within a second.
const BELIEVED_US: u64 = 1_000_000;
/// Accounts remembered at most.
const MOST: usize = 10_000;

/// Recently seen accounts and until when each is believed (microseconds, monotonic).
#[derive(Default)]
pub(crate) struct Accounts {
    seen: DashMap<UserId, (Account, u64)>,
}

impl Accounts {
    /// The account, at most a second old.
    pub(crate) async fn look_up(
        &self,
        store: &Store,
        user: UserId,
        now_us: u64,
    ) -> Result<Option<Account>, StoreError> {
        if let Some(account) = self.remembered(user, now_us) {
            return Ok(Some(account));
        }
        let account = store.account(user).await?;
        if let Some(account) = &account {
            self.remember(user, *account, now_us);
        }
        Ok(account)
    }

    /// Asks the store the next time.
    pub(crate) fn forget(&self, user: UserId) {
        self.seen.remove(&user);
    }

    fn remembered(&self, user: UserId, now_us: u64) -> Option<Account> {
        self.seen.get(&user).filter(|entry| now_us < entry.1).map(|entry| entry.0)
    }

    fn remember(&self, user: UserId, account: Account, now_us: u64) {
        if self.seen.len() >= MOST {
            self.seen.retain(|_, (_, until_us)| now_us < *until_us);
        }
        // Full of accounts seen within the last second: those are asked for again, no harm done.
        if self.seen.len() < MOST {
            self.seen.insert(user, (account, now_us + BELIEVED_US));
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::Timestamp;
    use uuid::Uuid;

    use super::*;

    fn account(n: u128) -> Account {
        let (id, tokens_valid_after) = (UserId(Uuid::from_u128(n)), Timestamp::default());
        Account { id, blocked: false, tokens_valid_after, membership: domain::Membership::ZERO, is_admin: false }
    }

    #[test]
    fn an_account_is_believed_for_a_second() {
        let accounts = Accounts::default();
        let user = account(1).id;
        accounts.remember(user, account(1), 0);
        assert!(accounts.remembered(user, BELIEVED_US - 1).is_some());
        assert!(accounts.remembered(user, BELIEVED_US).is_none());
        accounts.forget(user);
        assert!(accounts.remembered(user, 0).is_none());
    }

    #[test]
    fn memory_is_bounded_and_frees_itself() {
        let accounts = Accounts::default();
        for n in 0..MOST as u128 + 10 {
            accounts.remember(account(n).id, account(n), 0);
        }
        assert_eq!(accounts.seen.len(), MOST);
        accounts.remember(account(u128::MAX).id, account(u128::MAX), BELIEVED_US);
        assert_eq!(accounts.seen.len(), 1);
    }
}
