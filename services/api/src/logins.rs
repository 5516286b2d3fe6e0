//! How often a password may be guessed: per account and address, and per address.
//!
//! Only failures count, so that a crowd behind one address may log in; a right password does not
//! help either while the budget is used up. Knows no HTTP and reads no clock. The invariant: over
//! any minute an address fails at most twice its rate, plus the few checks that run at once; each
//! process counts for itself.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use domain::rate::{ArrivalUs, Rate};

/// `Rate` counts by the second; told a time that runs sixty times slower, it counts by the minute.
const SLOWER: u64 = 60;
/// After so many failures, keys whose budget is full again are forgotten. A failure costs a password
/// hash, so between two sweeps the map stays small.
const SWEEP_EVERY: u64 = 1024;

/// Who guesses: an address, and perhaps at which account.
type Key = (IpAddr, Option<Box<str>>);

/// Failed logins of late.
pub(crate) struct Logins {
    rate: Rate,
    failures: DashMap<Key, ArrivalUs>,
    charged: AtomicU64,
}

impl Logins {
    /// `per_minute` failures for each key, at once or spread; zero: no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        let rate = Rate { per_second: per_minute, burst: per_minute };
        Self { rate, failures: DashMap::new(), charged: AtomicU64::new(0) }
    }

    /// Whether another attempt may be made now; `Err` holds the milliseconds to wait.
    pub(crate) fn check(&self, address: IpAddr, email: &str, now_us: u64) -> Result<(), u64> {
        let now_us = now_us / SLOWER;
        let worst = keys(address, email)
            .into_iter()
            .filter_map(|key| {
                let state = self.failures.get(&key).map_or(0, |state| *state);
                self.rate.take(state, now_us).err()
            })
            .max();
        worst.map_or(Ok(()), |wait_ms| Err(wait_ms * SLOWER))
    }

    /// Counts a failed attempt.
    pub(crate) fn failed(&self, address: IpAddr, email: &str, now_us: u64) {
        if self.rate.per_second == 0 {
            return;
        }
        let now_us = now_us / SLOWER;
        for key in keys(address, email) {
            let mut state = self.failures.entry(key).or_insert(0);
            // Over the rate already (attempts that ran at once): the debt does not grow further.
            *state = self.rate.take(*state, now_us).unwrap_or(*state);
        }
        if self.charged.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            self.failures.retain(|_, state| *state > now_us);
        }
    }
}

fn keys(address: IpAddr, email: &str) -> [Key; 2] {
    let network = network(address);
    [(network, Some(email.into())), (network, None)]
}

/// What one attacker holds: an IPv4 address, or a whole IPv6 /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
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
        assert!(logins.check(here, "bob@example.com", MINUTE_US).is_err(), "other accounts from there too");
        assert_eq!(logins.check(there, "ann@example.com", MINUTE_US), Ok(()), "but not from elsewhere");
        let later_us = MINUTE_US + wait_ms * 1000;
        assert_eq!(logins.check(here, "ann@example.com", later_us), Ok(()));
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
        assert!(logins.check(ip("2001:db8::2"), "bob@example.com", MINUTE_US).is_err());
        assert!(logins.check(ip("2001:db8:0:1::1"), "bob@example.com", MINUTE_US).is_ok());
    }

    #[test]
    fn old_failures_are_forgotten() {
        let logins = Logins::new(60);
        for n in 0..SWEEP_EVERY as u32 {
            logins.failed(IpAddr::from(n.to_be_bytes()), "ann@example.com", u64::from(n) * MINUTE_US);
        }
        assert!(logins.failures.len() <= 4, "{}", logins.failures.len());
    }
}
