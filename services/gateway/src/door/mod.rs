//! Who may come in, how many and how fast, and what they bring along.
//!
//! Knows no session. The invariant: whoever is sent away costs next to nothing and learns when to come
//! back.

pub(crate) mod admission;
pub(crate) mod failures;
pub(crate) mod offered;
pub(crate) mod openings;
