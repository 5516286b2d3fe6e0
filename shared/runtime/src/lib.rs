//! What keeps a process alive and lets it end well: signals, owned tasks, back-off, the clock, rates, room on the disk, when logs are folded.
//!
//! The only crate that spawns tasks and the only one that reads the clock. The invariant: a task
//! that ends before the service does is noticed, logged and ends the service.

pub mod backoff;
pub mod checkpoint;
pub mod clock;
pub mod disk;
pub mod rate;
pub mod shutdown;
pub mod tasks;

pub use backoff::Backoff;
pub use clock::Clock;
pub use rate::Rate;
pub use shutdown::Shutdown;
pub use tasks::Tasks;
