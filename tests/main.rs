//! Integration tests against the real program, a real PostgreSQL and a real Redis.

#![cfg(test)]

mod clients;
mod coherence;
mod commands;
mod faults;
mod front;
#[allow(dead_code, reason = "shared with the engine's own differential test")]
mod patterns;
mod pubsub;
mod routes;
#[allow(dead_code)] // The benchmark uses the rest of it.
mod support;
mod transactions;
