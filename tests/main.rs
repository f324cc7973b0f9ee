//! Integration tests against the real program, a real PostgreSQL and a real Redis.

#![cfg(test)]

mod applications;
mod cdc;
mod clients;
mod coherence;
mod commands;
mod failover;
mod faults;
mod front;
mod moving;
mod once;
#[allow(dead_code, reason = "shared with the engine's own differential test")]
mod patterns;
mod pubsub;
mod replicas;
mod routes;
mod scripts;
#[allow(dead_code)] // The benchmark uses the rest of it.
mod support;
mod torture;
mod transactions;
