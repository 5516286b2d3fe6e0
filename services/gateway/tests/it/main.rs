//! A gateway over the embedded engine, seen from outside: real sockets on a port of their own.

mod bad_input;
mod beacon;
mod codec;
mod entering;
mod follow;
mod forged;
mod house;
mod idle;
mod life;
mod member;
mod native;
mod poller;
mod polling;
mod presence;
mod recovery;
mod rights;
mod silent;
mod sleeper;
mod slow;
mod socketio;
mod storm;
mod typing;
