//! Who may do what: users, their rules, and the judgement of a call.
//!
//! As Redis 7.0 has it
//! (<https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>).
//! Nothing here does I/O or reads a clock.

mod catalogue;
mod file;
mod password;
mod selector;
mod user;

pub use catalogue::{CATEGORIES, category_commands};
pub use file::{join_selectors, parse_file, write_file};
pub use password::Password;
pub use selector::{Denied, Mistake};
pub use user::User;
