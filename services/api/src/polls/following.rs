//! Which polls wait for which channels.
//!
//! Knows no engine: it says what is to be subscribed, and what is not needed any more. The invariant:
//! a channel that somebody waits for is never given up.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::Channel;
use tokio::sync::Notify;

/// Sweeps for which a channel without polls is kept: the next poll comes soon, and costs no
/// subscription then.
const PATIENCE: u32 = 6;
/// How many channels all polls together may wait for, some 80 bytes each.
const FOLLOWED: usize = 1_000_000;

/// One poll that waits.
pub(crate) struct Waiter {
    key: u64,
    wake: Notify,
}

impl Waiter {
    /// Returns when it was woken since the last time.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

#[derive(Default)]
struct Followed {
    waiters: HashMap<u64, Arc<Waiter>>,
    confirmed: bool,
    /// Sweeps since the last poll left.
    idle: u32,
}

/// Every channel that is subscribed, or about to be.
#[derive(Default)]
pub(super) struct Following {
    channels: HashMap<Channel, Followed>,
    next_key: u64,
    /// Channels of all polls, one by one.
    followed: usize,
}

impl Following {
    /// One more poll waits for these channels; with those whose subscription nobody has seen confirmed
    /// yet. `None` when there are too many.
    pub(super) fn enter(&mut self, channels: &[Channel]) -> Option<(Arc<Waiter>, Vec<Channel>)> {
        if self.followed + channels.len() > FOLLOWED {
            return None;
        }
        self.next_key += 1;
        let waiter = Arc::new(Waiter { key: self.next_key, wake: Notify::new() });
        let mut missing = Vec::new();
        for channel in channels {
            let followed = self.channels.entry(*channel).or_default();
            followed.idle = 0;
            self.followed += usize::from(followed.waiters.insert(waiter.key, Arc::clone(&waiter)).is_none());
            if !followed.confirmed {
                missing.push(*channel);
            }
        }
        Some((waiter, missing))
    }

    /// These are subscribed. One that was given up meanwhile stays given up.
    pub(super) fn confirm(&mut self, channels: &[Channel]) {
        for channel in channels {
            if let Some(followed) = self.channels.get_mut(channel) {
                followed.confirmed = true;
            }
        }
    }

    /// The poll waits no longer.
    pub(super) fn leave(&mut self, waiter: &Waiter, channels: &[Channel]) {
        for channel in channels {
            if let Some(followed) = self.channels.get_mut(channel) {
                self.followed -= usize::from(followed.waiters.remove(&waiter.key).is_some());
            }
        }
    }

    /// Something came on a channel.
    pub(super) fn wake(&self, channel: Channel) {
        if let Some(followed) = self.channels.get(&channel) {
            followed.waiters.values().for_each(|waiter| waiter.wake.notify_one());
        }
    }

    /// Anything may have come.
    pub(super) fn wake_all(&self) {
        let waiters = self.channels.values().flat_map(|followed| followed.waiters.values());
        waiters.for_each(|waiter| waiter.wake.notify_one());
    }

    /// Forgets channels that nobody waited for in a while; `gone` is told of them.
    pub(super) fn sweep(&mut self, gone: impl Fn(&[Channel])) {
        let mut given_up = Vec::new();
        self.channels.retain(|channel, followed| {
            followed.idle = if followed.waiters.is_empty() { followed.idle + 1 } else { 0 };
            let keep = followed.idle <= PATIENCE;
            if !keep {
                given_up.push(*channel);
            }
            keep
        });
        if !given_up.is_empty() {
            gone(&given_up);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use domain::RoomId;
    use futures_util::FutureExt as _;

    use super::*;

    fn room() -> Channel {
        Channel::Room(RoomId::generate())
    }

    #[test]
    fn a_poll_is_woken_by_its_channels_and_no_others() {
        let mut following = Following::default();
        let (mine, other) = (room(), room());
        let (waiter, missing) = following.enter(&[mine]).expect("place");
        assert_eq!(missing, [mine]);
        following.enter(&[other]).expect("place");
        following.wake(other);
        assert!(waiter.woken().now_or_never().is_none());
        following.wake(mine);
        following.wake(mine);
        assert!(waiter.woken().now_or_never().is_some(), "also when nobody waited at that moment");
        assert!(waiter.woken().now_or_never().is_none(), "once");
        following.wake_all();
        assert!(waiter.woken().now_or_never().is_some());
        following.leave(&waiter, &[mine]);
        following.wake(mine);
        assert!(waiter.woken().now_or_never().is_none());
    }

    #[test]
    fn a_channel_is_kept_while_somebody_waits_and_a_while_longer() {
        let mut following = Following::default();
        let channel = room();
        let (waiter, _) = following.enter(&[channel]).expect("place");
        following.confirm(&[channel]);
        let gone = RefCell::new(Vec::new());
        let sweep =
            |following: &mut Following| following.sweep(|channels| gone.borrow_mut().extend_from_slice(channels));
        for _ in 0..3 * PATIENCE {
            sweep(&mut following);
        }
        following.leave(&waiter, &[channel]);
        for _ in 0..PATIENCE {
            sweep(&mut following);
        }
        assert!(gone.borrow().is_empty());
        let (waiter, missing) = following.enter(&[channel]).expect("place");
        assert!(missing.is_empty(), "still subscribed");
        following.leave(&waiter, &[channel]);
        for _ in 0..=PATIENCE {
            sweep(&mut following);
        }
        assert_eq!(*gone.borrow(), [channel]);
        let (_, missing) = following.enter(&[channel]).expect("place");
        assert_eq!(missing, [channel], "to be subscribed anew");
    }

    #[test]
    fn what_polls_follow_is_bounded_and_given_back() {
        let mut following = Following::default();
        let channels: Vec<Channel> = (0..1000).map(|_| room()).collect();
        let waiters: Vec<_> = (0..1000).map(|_| following.enter(&channels).expect("place").0).collect();
        assert!(following.enter(&channels[..1]).is_none());
        following.leave(&waiters[0], &channels);
        following.leave(&waiters[0], &channels);
        assert_eq!(following.followed, FOLLOWED - 1000);
        assert!(following.enter(&channels).is_some());
    }
}
