//! The ladder that an event climbs when its own processing fails.

use std::time::Duration;

/// A step of the ladder: a retry queue and how long events wait in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// The end of the retry queue's name: `chat.events.retry.1s`.
    pub name: &'static str,
    /// How long an event waits there.
    pub delay: Duration,
}

/// The steps in the order they are climbed.
pub const LADDER: [Step; 3] = [
    Step { name: "1s", delay: Duration::from_secs(1) },
    Step { name: "5s", delay: Duration::from_secs(5) },
    Step { name: "25s", delay: Duration::from_secs(25) },
];

/// Where an event goes that has now failed `failures` times (at least once); `None`: dead letter.
pub fn next_step(failures: u32) -> Option<Step> {
    LADDER.get(failures.checked_sub(1)? as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_retries_and_then_a_dead_letter() {
        let names: Vec<_> = (1..=4).map(|n| next_step(n).map(|step| step.name)).collect();
        assert_eq!(names, [Some("1s"), Some("5s"), Some("25s"), None]);
    }
}
