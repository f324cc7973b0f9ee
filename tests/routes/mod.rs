//! Keys under `[[route]]`.

mod advise;
mod cache_only;
mod eventual;
mod guide;
mod mapped;
mod reload;
mod write_behind;

use std::time::Duration;

use crate::support::{Client, Program, Stack, Value};

const LIMIT: Duration = Duration::from_secs(20);

/// Puts these routes into force, behind those that it has.
fn add_routes(program: &Program, text: &str) {
    program.append_to_configuration(text).unwrap();
    program.signal("HUP").unwrap();
    program.await_log("routes in force", LIMIT).unwrap();
}

fn stack_with(routes: &str) -> Stack {
    let stack = Stack::start().unwrap();
    add_routes(&stack.program, routes);
    stack
}

/// Both reply to each of these lines byte for byte the same.
fn assert_same_replies(ours: &mut Client, theirs: &mut Client, lines: &[&str], protocol: &str) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let expected = theirs.call_with_bytes(&words).unwrap();
        let found = ours.call_with_bytes(&words).unwrap();
        assert_eq!(
            found.escape_ascii().to_string(),
            expected.escape_ascii().to_string(),
            "{line}, RESP{protocol}"
        );
    }
}

fn call(client: &mut Client, line: &str) -> Value {
    let words: Vec<&str> = line.split(' ').collect();
    client.call(&words).unwrap()
}

fn error(client: &mut Client, line: &str) -> String {
    let reply = call(client, line);
    reply
        .error()
        .unwrap_or_else(|| panic!("{line}: {reply:?}"))
        .to_owned()
}

fn text(client: &mut Client, line: &str) -> String {
    let reply = call(client, line);
    reply.text().unwrap_or_else(|| panic!("{line}: {reply:?}"))
}
