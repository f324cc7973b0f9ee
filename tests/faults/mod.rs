//! Servers that are killed or stalled under load: what was acknowledged stays,
//! what was refused never happened, and `UNKNOWN` means either.

mod expiry;
mod kills;
pub mod load;
// Only a program with fault points has them: `make test` builds that one.
#[cfg(feature = "fault-points")]
mod points;
mod stalled;
