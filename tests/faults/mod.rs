//! Servers that are killed or stalled under load: what was acknowledged stays,
//! what was refused never happened, and `UNKNOWN` means either.

mod kills;
mod load;
