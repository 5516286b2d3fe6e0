//! The whole REST service over the embedded engine, driven as a client would, in one process.

mod auth;

mod dead_letter;
mod document;
mod login_limit;
mod member;
mod message;
mod problem;
mod room;
mod sync;
mod world;
