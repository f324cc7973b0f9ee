//! Integration tests against the real program, a real PostgreSQL and a real Redis.

#![cfg(test)]

mod commands;
mod support;
