//! What every arriving connection asks the store about its user, of many users at a time.
//!
//! Knows no session. On an idle gateway nobody waits; while rounds are under way, whoever asks waits for the next,
//! which asks for all of them: when thousands come back at once, a round trip serves hundreds. The invariant:
//! what is answered was read after it was asked for.

use std::collections::HashMap;
use std::sync::Arc;

use domain::UserId;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use protocol::Refusal;
use store::{Account, RoomsOf, Store, StoreError};
use tokio::sync::{mpsc, oneshot};

use crate::shared::Shared;

/// Who may wait for the next round; more wait to wait.
const WAITING: usize = 4096;
/// Users in one round. A storm of arrivals ends a third later with 64; what fails for many is tried for fewer.
const TOGETHER: usize = 256;
/// Rounds of a kind at a time, so that one that hangs does not hold up all.
const ROUNDS: usize = 2;

type Found<T> = Result<Option<T>, Refusal>;

/// A question that waits.
pub(crate) struct Asked<T> {
    user: UserId,
    answer: oneshot::Sender<Found<T>>,
}

/// Where to ask.
pub(crate) struct Lookups {
    accounts: mpsc::Sender<Asked<Account>>,
    rooms: mpsc::Sender<Asked<RoomsOf>>,
}

/// What was asked.
pub(crate) struct Questions {
    accounts: mpsc::Receiver<Asked<Account>>,
    rooms: mpsc::Receiver<Asked<RoomsOf>>,
}

impl Lookups {
    /// Both sides; what is asked is answered while [`answer`] runs.
    pub(crate) fn new() -> (Self, Questions) {
        let ((accounts, accounts_asked), (rooms, rooms_asked)) = (mpsc::channel(WAITING), mpsc::channel(WAITING));
        (Self { accounts, rooms }, Questions { accounts: accounts_asked, rooms: rooms_asked })
    }

    /// How the user's account stands, if there is one.
    pub(crate) async fn account(&self, user: UserId) -> Found<Account> {
        ask(&self.accounts, user).await
    }

    /// The user's account and rooms at one moment, if there is one.
    pub(crate) async fn rooms_of(&self, user: UserId) -> Found<RoomsOf> {
        ask(&self.rooms, user).await
    }
}

async fn ask<T>(asked: &mpsc::Sender<Asked<T>>, user: UserId) -> Found<T> {
    let (answer, answered) = oneshot::channel();
    asked.send(Asked { user, answer }).await.map_err(|_| Refusal::unavailable())?;
    answered.await.map_err(|_| Refusal::unavailable())?
}

/// Reads something of many users at once; nothing of who has no account.
trait Read<T> {
    fn read(&self, users: Vec<UserId>) -> impl Future<Output = Result<HashMap<UserId, T>, StoreError>> + Send;
}

impl Read<Account> for Store {
    async fn read(&self, users: Vec<UserId>) -> Result<HashMap<UserId, Account>, StoreError> {
        Ok(self.accounts(&users).await?.into_iter().map(|account| (account.id, account)).collect())
    }
}

impl Read<RoomsOf> for Store {
    async fn read(&self, users: Vec<UserId>) -> Result<HashMap<UserId, RoomsOf>, StoreError> {
        self.memberships_of(&users).await
    }
}

/// Answers until the service stops.
pub(crate) async fn answer(shared: Arc<Shared>, questions: Questions) {
    let Questions { accounts, rooms } = questions;
    let shutdown = shared.tasks.shutdown().clone();
    tokio::select! {
        () = serve(&shared.store, accounts) => {}
        () = serve(&shared.store, rooms) => {}
        () = shutdown.requested() => {}
    }
}

async fn serve<T: Clone>(source: &impl Read<T>, mut asked: mpsc::Receiver<Asked<T>>) {
    let mut rounds = FuturesUnordered::new();
    let mut next = Vec::new();
    loop {
        tokio::select! {
            count = asked.recv_many(&mut next, TOGETHER), if rounds.len() < ROUNDS => {
                if count == 0 {
                    return;
                }
                rounds.push(round(source, std::mem::take(&mut next)));
            }
            _ = rounds.next(), if !rounds.is_empty() => {}
        }
    }
}

/// Reads for all who asked; what fails for many is tried for fewer, down to whoever is at fault.
async fn round<T: Clone>(source: &impl Read<T>, asked: Vec<Asked<T>>) {
    let mut parts = vec![asked];
    while let Some(mut part) = parts.pop() {
        part.retain(|it| !it.answer.is_closed());
        if part.is_empty() {
            continue;
        }
        let mut users: Vec<UserId> = part.iter().map(|it| it.user).collect();
        users.sort_unstable();
        users.dedup();
        let is_one = users.len() == 1;
        let found = source.read(users).await;
        if !is_one && matches!(&found, Err(error) if !matches!(error, StoreError::Unavailable(_))) {
            let later = part.split_off(part.len() / 2);
            parts.extend([later, part]);
            continue;
        }
        let found = found.map_err(|error| error.refusal());
        for Asked { user, answer } in part {
            // Who asked may have gone meanwhile.
            let _ = answer.send(found.as_ref().map(|found| found.get(&user).cloned()).map_err(Refusal::clone));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    fn user(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    /// Knows users below 100. Its rounds end when it is let go, and with an error if they are about that one.
    struct Source {
        rounds: AtomicUsize,
        gate: Semaphore,
        fails_for: u128,
    }

    impl Read<u128> for Source {
        async fn read(&self, users: Vec<UserId>) -> Result<HashMap<UserId, u128>, StoreError> {
            self.rounds.fetch_add(1, Ordering::Relaxed);
            drop(self.gate.acquire().await);
            if users.contains(&user(self.fails_for)) {
                return Err(StoreError::TimedOut("too much".to_owned()));
            }
            let known = users.into_iter().filter(|user| user.0.as_u128() < 100);
            Ok(known.map(|user| (user, user.0.as_u128() * 2)).collect())
        }
    }

    /// Asks for these users at once; what each is told, and in how many rounds. Those end when all have asked.
    async fn asked(users: &[u128], fails_for: u128) -> (Vec<Found<u128>>, usize) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let source = Source { rounds: AtomicUsize::new(0), gate: Semaphore::new(0), fails_for };
        let all = futures_util::future::join_all(users.iter().map(|number| ask(&sender, user(*number))));
        let let_go = async { source.gate.add_permits(1) };
        let answers = tokio::select! {
            biased;
            (answers, ()) = futures_util::future::join(all, let_go) => answers,
            () = serve(&source, receiver) => panic!("it ended"),
        };
        (answers, source.rounds.into_inner())
    }

    #[tokio::test]
    async fn whoever_asks_while_rounds_are_under_way_is_asked_for_together() {
        let users: Vec<u128> = (1..=50).chain([1, 500]).collect();
        let (answers, rounds) = asked(&users, 0).await;
        let told: Vec<Option<u128>> = answers.into_iter().map(|answer| answer.expect("answered")).collect();
        let wanted: Vec<Option<u128>> = users.iter().map(|number| (*number < 100).then_some(number * 2)).collect();
        assert_eq!(told, wanted);
        assert_eq!(rounds, 1);
    }

    #[tokio::test]
    async fn what_fails_for_one_does_not_fail_for_the_others() {
        let users: Vec<u128> = (1..=50).collect();
        let (answers, rounds) = asked(&users, 17).await;
        let refused: Vec<usize> = (0..50).filter(|at| answers[*at].is_err()).collect();
        assert_eq!(refused, [16]);
        assert!(rounds < 15, "{rounds}");
    }
}
