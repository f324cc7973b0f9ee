//! What SQL writes, by the functions of the schema `freshet` or by hand, and when the cache shows it.

mod by_hand;
mod examples;
mod faults;
mod functions;
mod hearing;
mod race;

use std::time::Duration;

use crate::support::{Client, Program, process};

const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `client` is shown `value` for `key` (none: that it is absent).
fn await_value(client: &mut Client, key: &str, value: Option<&str>) {
    let mut last = None;
    let shown = process::await_true("the value is shown", LIMIT, || {
        last = client.ok(&["GET", key]).unwrap().text();
        last.as_deref() == value
    });
    shown.unwrap_or_else(|error| panic!("{key} is {last:?}, not {value:?}: {error}"));
}

/// Whether it is this proxy that tells the cache of what SQL changes.
fn tells(program: &Program) -> bool {
    program.metric("freshet_cdc_turn").unwrap() == 1.0
}

fn await_turn(program: &Program) {
    process::await_true("it is this proxy's turn", LIMIT, || tells(program)).unwrap();
}
