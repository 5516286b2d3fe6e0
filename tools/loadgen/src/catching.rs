//! A client that has come back and is catching up: what it hears live meanwhile may stand in the answer to `sync`, too.
//!
//! Knows no socket. The invariant: what came live is counted after what the answers hold, and not again if it is
//! in them; what comes live twice is counted twice.

use std::collections::HashSet;

use crate::mark::Mark;

/// What the stock Socket.IO client keeps for its next connection.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    pub(crate) pid: Option<String>,
    pub(crate) offset: Option<String>,
    pub(crate) is_recovered: bool,
}

impl Recovery {
    /// Whether there is something to come back with.
    pub(crate) fn is_known(&self) -> bool {
        self.pid.is_some() && self.offset.is_some()
    }
}

/// What came since the client is back.
#[derive(Debug, Default)]
pub(crate) struct Catching {
    live: Vec<(Mark, u64)>,
    answered: HashSet<(u32, u32)>,
}

impl Catching {
    /// Something came live at that time, microseconds since 1970.
    pub(crate) fn hear(&mut self, mark: Mark, at: u64) {
        self.live.push((mark, at));
    }

    /// Something stands in an answer.
    pub(crate) fn learn(&mut self, mark: Mark) {
        self.answered.insert((mark.stream, mark.number));
    }

    /// It is up to date: what came live and is not known yet, as it came.
    pub(crate) fn news(self) -> impl Iterator<Item = (Mark, u64)> {
        let Self { live, mut answered } = self;
        live.into_iter().filter(move |(mark, _)| !answered.remove(&(mark.stream, mark.number)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_an_answer_is_no_news_once() {
        let mark = |number| Mark { run: 1, stream: 2, number, intended: 3 };
        let mut catching = Catching::default();
        for number in [5, 6, 5, 7] {
            catching.hear(mark(number), 10);
        }
        for number in [4, 5] {
            catching.learn(mark(number));
        }
        let news: Vec<u32> = catching.news().map(|(mark, _)| mark.number).collect();
        assert_eq!(news, [6, 5, 7]);
    }
}
