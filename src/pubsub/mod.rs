//! What clients are told without asking: messages of channels, notifications
//! of keys, and invalidations for caches in clients.
//!
//! One connection to the backing Redis serves all clients of this proxy: it
//! subscribes to what they want, and publishes what they and the proxy send.
//! Requests, replies and messages pass it in one order, so that the clients
//! of a proxy see their own subscriptions and messages in the order made.
//!
//! Messages live in Redis only. Those that are published while Redis, or the
//! connection to it, is gone are lost, as with Redis itself; subscriptions
//! are then made anew.

mod broker;
mod frames;
mod mailbox;
mod news;
mod subscriptions;
mod topics;
mod tracking;
mod upstream;

pub use broker::{Broker, Task, Unreached};
pub use mailbox::{Bell, Listens, Mailbox};
pub use subscriptions::Subscriptions;
pub use topics::Space;
pub use tracking::{Mode, Options, OwnChanges, Tracking, TrackingSizes};
