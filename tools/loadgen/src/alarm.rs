//! Sleeps to the tenth of a millisecond.
//!
//! The runtime's own timer counts whole milliseconds and rounds up: what is due would be sent one late, and every
//! latency would look as much longer. Where the system has no such alarm, the runtime's is used.

use std::time::Duration;

#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;

#[cfg(target_os = "linux")]
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
#[cfg(target_os = "linux")]
use tokio::io::unix::AsyncFd;

/// An alarm for one task.
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<AsyncFd<OwnedFd>>,
}

impl Alarm {
    /// Inside a runtime.
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            timer: timer().ok(),
        }
    }

    /// Sleeps for that long; no time at all is a moment, so that others have their turn.
    pub(crate) async fn sleep(&self, pause: Duration) {
        #[cfg(target_os = "linux")]
        if let Some(timer) = &self.timer
            && ring(timer, pause).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(target_os = "linux")]
#[allow(deprecated, reason = "its successor needs unsafe code; it is sound for a descriptor that is owned")]
fn timer() -> std::io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    AsyncFd::new(rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?)
}

#[cfg(target_os = "linux")]
async fn ring(timer: &AsyncFd<OwnedFd>, pause: Duration) -> std::io::Result<()> {
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Nothing at all would put it off for ever.
    let pause = pause.max(Duration::from_micros(1));
    let once = Timespec { tv_sec: pause.as_secs().cast_signed(), tv_nsec: pause.subsec_nanos().into() };
    let when = Itimerspec { it_interval: none, it_value: once };
    rustix::time::timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &when)?;
    loop {
        let mut ready = timer.readable().await?;
        if let Ok(read) = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?)) {
            return read.map(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn it_rings_within_the_millisecond_and_never_early() {
        let alarm = Alarm::new();
        let (began, pause) = (Instant::now(), Duration::from_micros(200));
        let mut shortest = Duration::MAX;
        for _ in 0..50 {
            let began = Instant::now();
            alarm.sleep(pause).await;
            shortest = shortest.min(began.elapsed());
        }
        assert!(shortest >= pause, "{shortest:?}");
        assert!(shortest < Duration::from_millis(1), "{shortest:?}");
        alarm.sleep(Duration::ZERO).await;
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
