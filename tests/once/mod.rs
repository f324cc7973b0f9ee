//! `FRESHET.ONCE`: a command that is sent again is not done again.

mod commands;
mod faults;
mod proxies;
