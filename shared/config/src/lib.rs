//! Settings: the only reader of the environment.
//!
//! Knows the variables, their defaults and what is wrong with a value; opens nothing. The
//! invariant: a `Settings` was checked as a whole, and a secret's value never gets into a message.

pub mod defect;
mod ip_range;
mod markdown;
mod parse;
mod problem;
mod read;
mod reader;
mod secrets;
pub mod settings;
mod source;
mod summary;
pub mod variable;

pub use ip_range::IpRange;
pub use markdown::markdown;
pub use problem::Problem;
/// Text that is never shown.
pub use secrecy::{ExposeSecret, SecretString};
pub use settings::{
    Engine, Environment, HttpSettings, Limits, LogFormat, LogSettings, PresenceSettings, Role, Settings,
};
pub use source::Source;
pub use variable::Variable;
