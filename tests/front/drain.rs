//! The end of the program.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::encode;
use crate::support::{Client, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn sigterm_finishes_what_was_accepted_and_exits_with_0() {
    let mut stack = Stack::start().unwrap();
    let address = stack.program.address();
    let counts: Vec<AtomicU64> = (0..10).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for (number, count) in counts.iter().enumerate() {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                let key = format!("counter:{number}");
                // A reply is an acknowledgement, or the connection is closed.
                while let Ok(reply) = client.call(&["INCR", &key]) {
                    match reply {
                        Value::Integer(value) => count.store(value as u64, Ordering::Relaxed),
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
        process::await_true("all clients work", LIMIT, || {
            counts
                .iter()
                .all(|count| count.load(Ordering::Relaxed) > 20)
        })
        .unwrap();
        stack.program.stop_quietly().unwrap();
    });
    stack.program.start_again().unwrap();
    let mut client = stack.client().unwrap();
    for (number, count) in counts.iter().enumerate() {
        let value = client.text(&["GET", &format!("counter:{number}")]).unwrap();
        // What was accepted was finished, and its reply sent.
        assert_eq!(value, count.load(Ordering::Relaxed).to_string());
    }
}

#[test]
fn pipeline_that_has_arrived_is_answered_before_the_end() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let count = 3000;
    client
        .send_raw(&encode(&["INCR", "counter"]).repeat(count))
        .unwrap();
    client.read().unwrap();
    stack.program.signal("TERM").unwrap();
    let mut answered = 1;
    while let Ok(reply) = client.read() {
        answered += 1;
        assert_eq!(reply, Value::Integer(answered));
    }
    assert!(stack.program.await_exit(LIMIT).unwrap().success());
    stack.program.start_again().unwrap();
    let stored = stack.client().unwrap().text(&["GET", "counter"]).unwrap();
    assert_eq!(stored, answered.to_string());
}

#[test]
fn start_and_stop_again_keeps_everything_and_says_nothing_bad() {
    let mut stack = Stack::start().unwrap();
    stack
        .client()
        .unwrap()
        .ok(&["SET", "key", "value"])
        .unwrap();
    for _ in 0..3 {
        stack.program.stop_quietly().unwrap();
        stack.program.start_again().unwrap();
        let mut client = stack.client().unwrap();
        assert_eq!(client.text(&["GET", "key"]).unwrap(), "value");
    }
}
