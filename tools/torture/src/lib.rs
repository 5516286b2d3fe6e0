//! Torture: kills, pauses, cuts and restarts a whole system under load, and checks from recorded
//! histories what its clients were promised (`docs/GUARANTEES.md`).
//!
//! Stands outside: it speaks the public protocol, signals to processes, and what an operator could
//! type. The invariant: a seed reproduces people and faults of a run; only the machine's timing differs.

pub mod check;
pub mod device;
pub mod fault;
pub mod history;
pub mod plan;
pub mod quiet;
pub mod report;
pub mod run;
pub mod stage;
pub mod steward;
pub mod truth;
pub mod view;
pub mod world;

pub use report::Report;
pub use run::{Spec, run};
pub use stage::Shape;
pub use world::Scale;
