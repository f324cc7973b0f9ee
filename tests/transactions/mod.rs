//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.

mod atomicity;
mod bounds;
mod differential;
mod order;
mod watch;
