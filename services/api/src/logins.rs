//! How often a password may be guessed: at one account from one address, from one address, and at
//! one account.
//!
//! Only failures count, so that a crowd behind one address may log in; a right password does not
//! help either while the budget is used up. Knows no HTTP and reads no clock. The invariant: in the
//! long run no key fails more often than its rate, because guesses made at once are a debt; each
//! process counts for itself.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use domain::rate::{ArrivalUs, Rate};
use telemetry::network;

/// `Rate` counts by the second; told a time that runs sixty times slower, it counts by the minute.
const SLOWER: u64 = 60;
/// After so many failures, keys whose budget is full again are forgotten. A failure costs a password
/// hash, so between two sweeps the map stays small.
const SWEEP_EVERY: u64 = 1024;

/// How much more an address may fail than at one account alone, and an account than from one address.
const WIDER: u32 = 10;
/// Nobody waits longer for what was done at once.
const LONGEST_DEBT_US: u64 = 3_600_000_000 / SLOWER;
/// Passwords of one address that are checked or wait for it at one time.
const AT_ONCE: u32 = 64;

/// An address, an account, or both.
type Key = (Option<IpAddr>, Option<Box<str>>);

/// Failed logins of late.
pub(crate) struct Logins {
    rate: Rate,
    failures: DashMap<Key, ArrivalUs>,
    charged: AtomicU64,
    at_once: Arc<DashMap<IpAddr, u32>>,
}

/// A place among the checks of an address; given back when dropped.
pub(crate) struct Place(Arc<DashMap<IpAddr, u32>>, IpAddr);

impl Logins {
    /// `per_minute` failures at one account from one address, at once or spread; zero: no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        let rate = Rate { per_second: per_minute, burst: per_minute };
        Self { rate, failures: DashMap::new(), charged: AtomicU64::new(0), at_once: Arc::default() }
    }

    /// A place for one password of that address; `None` while it has too many, so that it cannot
    /// keep all others from being served.
    pub(crate) fn place(&self, address: IpAddr) -> Option<Place> {
        let network = network(address);
        let mut held = self.at_once.entry(network).or_insert(0);
        if *held >= AT_ONCE {
            return None;
        }
        *held += 1;
        Some(Place(Arc::clone(&self.at_once), network))
    }

    /// Whether another attempt may be made now; `Err` holds the milliseconds to wait.
    pub(crate) fn check(&self, address: IpAddr, email: &str, now_us: u64) -> Result<(), u64> {
        let now_us = now_us / SLOWER;
        let wait = |(key, rate): (Key, Rate)| {
            let state = self.failures.get(&key).map_or(0, |state| *state);
            rate.take(state, now_us).err()
        };
        let worst = self.keys(address, email).into_iter().filter_map(wait).max();
        worst.map_or(Ok(()), |wait_ms| Err(wait_ms * SLOWER))
    }

    /// Counts a failed attempt.
    pub(crate) fn failed(&self, address: IpAddr, email: &str, now_us: u64) {
        if self.rate.per_second == 0 {
            return;
        }
        let now_us = now_us / SLOWER;
        for (key, rate) in self.keys(address, email) {
            let mut state = self.failures.entry(key).or_insert(0);
            *state = rate.owe(*state, now_us).min(now_us + LONGEST_DEBT_US);
        }
        if self.charged.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.failures.retain(|_, state| *state > now_us);
        }
    }

    fn keys(&self, address: IpAddr, email: &str) -> [(Key, Rate); 3] {
        let network = network(address);
        let per_second = self.rate.per_second.saturating_mul(WIDER);
        let wider = Rate { per_second, burst: per_second };
        [
            ((Some(network), Some(email.into())), self.rate),
            ((Some(network), None), wider),
            ((None, Some(email.into())), wider),
        ]
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.remove_if_mut(&self.1, |_, held| {
            *held -= 1;
            *held == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_US: u64 = 60_000_000;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn after_its_failures_an_address_waits() {
        let logins = Logins::new(3);
        let (here, there) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..3 {
            assert_eq!(logins.check(here, "ann@example.com", MINUTE_US), Ok(()));
            logins.failed(here, "ann@example.com", MINUTE_US);
        }
        let wait_ms = logins.check(here, "ann@example.com", MINUTE_US).expect_err("used up");
        assert!((19_000..=21_000).contains(&wait_ms), "{wait_ms}");
        assert_eq!(logins.check(here, "bob@example.com", MINUTE_US), Ok(()), "but at another account");
        assert_eq!(logins.check(there, "ann@example.com", MINUTE_US), Ok(()), "or from elsewhere");
        let later_us = MINUTE_US + wait_ms * 1000;
        assert_eq!(logins.check(here, "ann@example.com", later_us), Ok(()));
    }

    #[test]
    fn many_accounts_from_one_address_and_many_addresses_at_one_account_have_a_limit_too() {
        let logins = Logins::new(3);
        for n in 0..30 {
            logins.failed(ip("192.0.2.1"), &format!("{n}@example.com"), MINUTE_US);
            logins.failed(ip(&format!("198.51.100.{n}")), "ann@example.com", MINUTE_US);
        }
        assert!(logins.check(ip("192.0.2.1"), "new@example.com", MINUTE_US).is_err());
        assert!(logins.check(ip("203.0.113.1"), "ann@example.com", MINUTE_US).is_err());
        assert!(logins.check(ip("203.0.113.1"), "new@example.com", MINUTE_US).is_ok());
    }

    #[test]
    fn guesses_made_at_once_are_a_debt() {
        let logins = Logins::new(3);
        for _ in 0..60 {
            logins.failed(ip("192.0.2.1"), "ann@example.com", MINUTE_US);
        }
        let wait_ms = logins.check(ip("192.0.2.1"), "ann@example.com", MINUTE_US).expect_err("in debt");
        assert!((19 * 60_000..=20 * 60_000).contains(&wait_ms), "{wait_ms}");
    }

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let logins = Logins::new(3);
        let held: Vec<_> = (0..AT_ONCE).map(|_| logins.place(ip("192.0.2.1"))).collect();
        assert!(held.iter().all(Option::is_some) && logins.place(ip("192.0.2.1")).is_none());
        assert!(logins.place(ip("192.0.2.2")).is_some());
        drop(held);
        assert!(logins.at_once.is_empty() && logins.place(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn successes_cost_nothing_and_zero_means_no_limit() {
        let logins = Logins::new(1);
        assert!((0..100).all(|_| logins.check(ip("192.0.2.1"), "ann@example.com", 1).is_ok()));
        let unlimited = Logins::new(0);
        for _ in 0..100 {
            unlimited.failed(ip("192.0.2.1"), "ann@example.com", 1);
        }
        assert_eq!(unlimited.check(ip("192.0.2.1"), "ann@example.com", 1), Ok(()));
        assert!(unlimited.failures.is_empty());
    }

    #[test]
    fn a_whole_ipv6_network_counts_as_one_address() {
        let logins = Logins::new(1);
        logins.failed(ip("2001:db8::1"), "ann@example.com", MINUTE_US);
        assert!(logins.check(ip("2001:db8::2"), "ann@example.com", MINUTE_US).is_err());
        assert!(logins.check(ip("2001:db8:0:1::1"), "ann@example.com", MINUTE_US).is_ok());
    }

    #[test]
    fn old_failures_are_forgotten() {
        let logins = Logins::new(60);
        for n in 0..SWEEP_EVERY as u32 {
            logins.failed(IpAddr::from(n.to_be_bytes()), "ann@example.com", u64::from(n) * MINUTE_US);
        }
        assert!(logins.failures.len() <= 6, "{}", logins.failures.len());
    }
}
