//! Clients for tests: the native WebSocket, REST, tokens.
//!
//! They speak plain JSON as the public contract says and share no code with the server.

mod balancer;
pub mod connection;
pub mod line;
mod person;
mod polling;
mod rest;
mod socket;
pub mod token;

pub use balancer::Balancer;
pub use connection::{Connection, Recovery};
pub use line::Line;
pub use person::Person;
pub use rest::{Answer, Method, Rest};
pub use socket::{Closed, Socket};
