//! Short runs of the torture, and that it notices what it must notice.

mod defects;
mod short;
