//! What a message costs, counted: the hot paths of the product with fixed inputs, one function each.
//!
//! Nothing of the product is rewritten here: [`paths`] calls what services call. The invariant: what
//! a path does is the same each time, however busy the machine is and whatever the time.

pub mod baseline;
pub mod callgrind;
pub mod check;
pub mod data;
pub mod paths;
pub mod pipe;
pub mod sessions;
pub mod work;

pub use paths::Path;
pub use work::Work;
