//! How a batch is shared between the classes that wait.
//!
//! A pure rule, the same on both engines. The invariant: the more urgent class goes first, yet no
//! class that waits gets nothing (strict priority starves: with high above capacity, none of 200 low
//! events ever ran).

/// How many events of each class (high, medium, low) a batch of at most `max` takes when that many
/// wait: each lower class that waits gets at least a twentieth, at least one.
pub(crate) fn shares(waiting: [usize; 3], max: usize) -> [usize; 3] {
    let reserve = (max / 20).max(1);
    let [high, medium, low] = waiting;
    let for_low = low.min(reserve);
    let for_medium = medium.min(reserve);
    // A batch too small to share still moves the most urgent class.
    let take_high = high.min(max.saturating_sub(for_medium + for_low).max(1)).min(max);
    let left = max - take_high;
    let take_medium = medium.min(left.saturating_sub(for_low).max(1)).min(left);
    let take_low = low.min(left - take_medium);
    [take_high, take_medium, take_low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_class_goes_first_and_the_waiting_ones_get_their_share() {
        assert_eq!(shares([1000, 1000, 1000], 100), [90, 5, 5]);
        assert_eq!(shares([1000, 0, 1000], 100), [95, 0, 5]);
        assert_eq!(shares([1000, 0, 0], 100), [100, 0, 0]);
        assert_eq!(shares([10, 20, 1000], 100), [10, 20, 70]);
        assert_eq!(shares([0, 0, 3], 100), [0, 0, 3]);
    }

    #[test]
    fn small_batches_serve_the_urgent_class() {
        assert_eq!(shares([5, 5, 5], 1), [1, 0, 0]);
        assert_eq!(shares([5, 5, 5], 2), [1, 1, 0]);
        assert_eq!(shares([5, 5, 5], 3), [1, 1, 1]);
        assert_eq!(shares([0, 5, 5], 1), [0, 1, 0]);
        assert_eq!(shares([5, 5, 5], 0), [0, 0, 0]);
    }

    #[test]
    fn a_batch_is_full_when_enough_waits() {
        for max in 0..50 {
            for waiting in [[0, 1, 99], [99, 1, 1], [30, 30, 30], [1, 99, 0]] {
                let taken: usize = shares(waiting, max).iter().sum();
                assert_eq!(taken, max.min(waiting.iter().sum()), "{waiting:?} {max}");
            }
        }
    }
}
