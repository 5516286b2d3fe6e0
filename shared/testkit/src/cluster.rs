//! The product's own programs as child processes, wired to real services.
//!
//! Knows environment variables and HTTP addresses, as an operator does, and no code of the programs.

mod binaries;
mod launch;
mod links;
mod node;
mod spec;
mod system;

pub use binaries::{binary, target_dir};
pub use launch::NodeSpec;
pub use links::Service;
pub use node::Node;
pub use spec::SystemSpec;
pub use system::{Removal, SECRET, System, hmac_key, panic_in};
