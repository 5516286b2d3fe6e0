//! What a message of the generator says: who sent it as which number, and when it was meant to be sent.
//!
//! It stands in the text itself and so passes every server and every dialect unchanged. The invariant: a mark
//! that was written is read again wherever it stands in a frame.

use memchr::memmem::Finder;

/// Bytes of the shortest text.
pub(crate) const SHORTEST: usize = HEAD.len() + 8 + 8 + 8 + 16;
const HEAD: &str = "lg~";

/// A stream's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The generator that sent it, drawn at its start.
    pub(crate) run: u32,
    /// One sender in one room.
    pub(crate) stream: u32,
    /// From 1, without a gap.
    pub(crate) number: u32,
    /// When it was meant to be sent, microseconds since 1970.
    pub(crate) intended: u64,
}

impl Mark {
    /// The text, `bytes` long (at least [`SHORTEST`]).
    pub(crate) fn text(self, bytes: usize) -> String {
        let mut text = format!("{HEAD}{:08x}{:08x}{:08x}{:016x}", self.run, self.stream, self.number, self.intended);
        text.extend(std::iter::repeat_n('.', bytes.saturating_sub(text.len())));
        text
    }
}

/// Finds marks; made once.
pub(crate) struct Marks {
    finder: Finder<'static>,
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self { finder: Finder::new(HEAD) }
    }

    /// All marks in a frame, such as a page of history.
    pub(crate) fn all<'a>(&'a self, frame: &'a [u8]) -> impl Iterator<Item = Mark> + 'a {
        self.finder.find_iter(frame).filter_map(|at| read(&frame[at + HEAD.len()..]))
    }
}

fn read(bytes: &[u8]) -> Option<Mark> {
    let part = |start: usize| Some(hexadecimal(bytes.get(start..start + 8)?)? as u32);
    let intended = hexadecimal(bytes.get(24..40)?)?;
    Some(Mark { run: part(0)?, stream: part(8)?, number: part(16)?, intended })
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_again_wherever_it_stands() {
        let mark = Mark { run: 9, stream: 7, number: u32::MAX, intended: 1_234_567_890_123 };
        let other = Mark { number: 8, ..mark };
        let frame = format!("{{\"a\":\"lg~no\",\"content\":\"{}\",\"b\":\"{}\"}}", mark.text(100), other.text(0));
        let marks = Marks::new();
        assert_eq!(marks.all(frame.as_bytes()).collect::<Vec<_>>(), [mark, other]);
        assert_eq!(marks.all(b"lg~0000").next(), None);
    }

    #[test]
    fn a_text_is_as_long_as_was_asked() {
        let mark = Mark { run: 9, stream: 1, number: 2, intended: 3 };
        assert_eq!(mark.text(100).len(), 100);
        assert_eq!(mark.text(0).len(), SHORTEST);
    }
}
