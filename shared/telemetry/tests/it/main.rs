//! The HTTP server and its health routes, from outside.

mod health;
mod http;
mod support;
