//! The handlers over real engines: what is applied, told, cached and read back.

mod presence;
mod told;
mod world;

mod bounds;
