//! The product's own programs as child processes, wired to real services.
//!
//! Knows environment variables and HTTP addresses, as an operator does, and no code of the programs.

mod binaries;
mod node;
mod system;

pub use binaries::{binary, target_dir};
pub use node::{Node, NodeSpec};
pub use system::{SECRET, System, SystemSpec, hmac_key};
