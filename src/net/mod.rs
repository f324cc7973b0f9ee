//! Sockets: accepting clients, reading their requests, writing their replies.
//!
//! One task serves one connection: it reads, decodes all complete requests,
//! runs them in order, and writes the replies. It reads nothing while it works,
//! so a client that sends faster than it is served is held up by its own socket.

mod connection;
mod listener;
mod socket;
mod tls;
mod unsent;
mod workbench;

pub use listener::{BindError, Listener};
