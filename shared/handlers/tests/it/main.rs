//! The handlers over real engines: what is applied, told, cached and read back.

mod catching_up;
mod kept;
mod missed;
mod overtaken;
mod presence;
mod read;
mod told;
mod world;

mod bounds;
