//! Store and cache: what a client was told stays true.

mod atomicity;
mod blocking;
mod collections;
mod cost;
mod durability;
mod eviction;
mod load_limit;
mod order;
mod outage;
mod scans;
mod waiting_model;
mod waiting_scale;
