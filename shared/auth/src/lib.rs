//! Who somebody is: access tokens, passwords, refresh tokens.
//!
//! Knows no store and no transport: it turns secrets into proofs and proofs into claims, and the
//! time comes in as an argument. The invariant: nothing here is ever logged, and no value that an
//! unknown caller can choose makes a check cheaper or dearer than it is for a known one.

pub mod password;
pub mod refresh;
pub mod token;

pub use password::PasswordError;
pub use token::{Claims, TokenError, Tokens};
