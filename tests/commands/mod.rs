//! What commands answer, with a plain Redis as the judge.

mod comparison;
mod differential;
mod episode;
mod expiry;
mod generator;
mod pair;
