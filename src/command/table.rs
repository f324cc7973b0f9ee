//! The command table: data, readable without knowing Rust.

use super::Command;

/// Every command that Freshet knows, served or not.
pub const TABLE: &[Command] = &[];

/// The row of the command called `name`, in any case of letters.
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    TABLE
        .iter()
        .find(|c| c.name.as_bytes().eq_ignore_ascii_case(name))
}
