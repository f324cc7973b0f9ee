//! A proxy that stands still while the cache is lost: nobody knows what it would still show.

use std::time::Duration;

use crate::support::stack::FRESHET;
use crate::support::{Program, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn proxy_that_stands_still_keeps_others_waiting_no_longer_than_it_may_use_hits() {
    let settings = [
        ("fence.reads_without_database", "1s"),
        ("fence.renewal", "300ms"),
    ];
    let mut stack = Stack::start_with(&settings, &[]).unwrap();
    let still = Program::start(FRESHET, &stack.database, &stack.cache.url(), &settings).unwrap();
    let mut client = stack.client().unwrap();
    let mut its_client = still.client().unwrap();
    client.ok(&["SET", "key", "old"]).unwrap();
    assert_eq!(its_client.text(&["GET", "key"]).unwrap(), "old");
    still.signal("STOP").unwrap();
    stack.cache.kill().unwrap();
    process::await_true("the other proxy takes writes", LIMIT, || {
        client.call(&["SET", "key", "new"]).unwrap() == Value::Simple("OK".into())
    })
    .unwrap();
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "new");
    still.signal("CONT").unwrap();
    process::await_true("it answers again", LIMIT, || {
        let answer = its_client.call(&["GET", "key"]).unwrap();
        assert_ne!(answer.text().as_deref(), Some("old"));
        answer.error().is_none()
    })
    .unwrap();
}
