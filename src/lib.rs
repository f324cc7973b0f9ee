//! Freshet: a Redis-protocol proxy that commits every write to PostgreSQL
//! before the cache shows it.
//!
//! The modules, from the socket down; each may use those below it, as
//! `tests/tidy.rs` checks.
#![doc = include_str!("ARCHITECTURE.md")]

pub mod cli;
pub mod dev;
pub mod server;

pub mod admin;
pub mod net;

pub mod client;

pub mod flow;

pub mod advise;
pub mod replica;

pub mod moving;

pub mod pubsub;

pub mod reconcile;

pub mod coherence;

pub mod cache;
pub mod store;
pub mod stream;

pub mod script;

pub mod engine;

pub mod acl;
pub mod routing;

pub mod command;

pub mod resp;

pub mod model;

pub mod clock;
pub mod config;
pub mod error;
pub mod fault;
pub mod progress;
pub mod telemetry;
pub mod tls;
