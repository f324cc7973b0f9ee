//! What clients are told without asking: messages, notifications, invalidations.

mod differential;
mod expiry;
mod faults;
mod pause;
mod proxies;
