//! What one recipient saw of one stream: which numbers came, came twice, came late, and which are missing.
//!
//! The invariant: memory is bounded by the number of holes, not by the number of messages.

/// Numbers from 1 of which some came.
#[derive(Debug, Default, Clone)]
pub(crate) struct Seen {
    highest: u32,
    holes: Vec<u32>,
    /// Came before.
    pub(crate) doubled: u32,
    /// Came after a higher one.
    pub(crate) overtaken: u32,
}

/// What a number was.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum News {
    /// It came for the first time.
    New,
    /// It had come before.
    Doubled,
}

impl Seen {
    /// Notes a number that came.
    pub(crate) fn note(&mut self, number: u32) -> News {
        if number > self.highest {
            self.holes.extend(self.highest + 1..number);
            self.highest = number;
            return News::New;
        }
        if let Ok(at) = self.holes.binary_search(&number) {
            self.holes.remove(at);
            self.overtaken += 1;
            News::New
        } else {
            self.doubled += 1;
            News::Doubled
        }
    }

    /// Of the numbers up to `last`, those that did not come.
    pub(crate) fn missing(&self, last: u32) -> impl Iterator<Item = u32> + '_ {
        self.holes.iter().copied().chain(self.highest + 1..=last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_doubled_or_late_is_told_apart() {
        let mut seen = Seen::default();
        for number in [1, 2, 5, 4, 5, 1, 7] {
            seen.note(number);
        }
        assert_eq!((seen.doubled, seen.overtaken), (2, 1));
        assert_eq!(seen.missing(9).collect::<Vec<_>>(), [3, 6, 8, 9]);
        assert_eq!(seen.note(3), News::New);
        assert_eq!(seen.note(3), News::Doubled);
    }
}
