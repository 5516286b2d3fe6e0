//! Waiting longer after each failure, with jitter so that crowds spread out.

use std::time::Duration;

use rand::Rng as _;

/// Exponential back-off with full jitter in its upper half.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at about `first` and doubles up to about `most`.
    pub const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, next: first }
    }

    /// The next time to wait: between half and all of the current step.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        jittered(step)
    }

    /// Begins anew after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }

    /// Waits for the next time.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }
}

/// Between half and all of `span`.
pub fn jittered(span: Duration) -> Duration {
    span.mul_f64(rand::rng().random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_most() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(400));
        for most_ms in [100, 200, 400, 400] {
            let delay_ms = backoff.next_delay().as_millis();
            assert!((most_ms / 2..=most_ms).contains(&delay_ms), "{delay_ms} of {most_ms}");
        }
        backoff.reset();
        assert!(backoff.next_delay().as_millis() <= 100);
    }
}
