//! Geo commands: places on Earth as scores of a sorted set.

mod cell;
mod place;
mod query;
mod search;
mod shape;

use super::dispatch::Family;
use super::first_key::{elements, whole};

pub(super) const COMMANDS: &[Family] = &[
    Family::new("GEOADD", place::needs, place::geoadd),
    Family::new("GEODIST", place::needs_of_two, place::geodist),
    Family::new("GEOHASH", elements, place::geohash),
    Family::new("GEOPOS", elements, place::geopos),
    Family::new("GEOSEARCH", whole, search::geosearch),
    Family::new(
        "GEOSEARCHSTORE",
        search::needs_of_store,
        search::geosearchstore,
    ),
    Family::new("GEORADIUS", search::needs_of_radius, search::georadius),
    Family::new("GEORADIUS_RO", whole, search::georadius_ro),
    Family::new(
        "GEORADIUSBYMEMBER",
        search::needs_of_radius,
        search::georadiusbymember,
    ),
    Family::new("GEORADIUSBYMEMBER_RO", whole, search::georadiusbymember_ro),
];
