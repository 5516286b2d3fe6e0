//! A gateway over the embedded engine, seen from outside: real sockets on a port of their own.

mod bad_input;
mod follow;
mod house;
mod life;
mod native;
mod slow;
mod socketio;
mod storm;
mod typing;
