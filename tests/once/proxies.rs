//! One token through two proxies at once.

use std::thread;
use std::time::Duration;

use crate::support::{Client, Program, Stack, Value};

/// So often all send the same.
const ROUNDS: usize = 40;
/// Clients of each proxy.
const CLIENTS: usize = 4;

fn retry(address: std::net::SocketAddr, words: &[&str]) -> Value {
    for _ in 0..100 {
        let reply = Client::connect(address).unwrap().call(words).unwrap();
        match reply.error() {
            // So many of the same are a conflict.
            Some(text) if text.starts_with("TRYAGAIN") => {}
            _ => return reply,
        }
    }
    panic!("{words:?} is always in conflict");
}

#[test]
fn one_token_sent_to_two_proxies_at_once_is_done_once() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let addresses = [stack.program.address(), second.address()];
    for round in 0..ROUNDS {
        // Keys that are there, keys that are not, and one that changes all the time.
        let key = ["n".to_owned(), format!("n{round}")][round % 2].clone();
        let token = format!("t{round}");
        let words = ["FRESHET.ONCE", &token, "INCR", &key];
        let replies: Vec<Value> = thread::scope(|scope| {
            let sent = addresses.iter().flat_map(|address| {
                let send = move || retry(*address, &words);
                (0..CLIENTS).map(move |_| scope.spawn(send))
            });
            let sent: Vec<_> = sent.collect();
            sent.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let expected = if round % 2 == 0 {
            round as i64 / 2 + 1
        } else {
            1
        };
        assert_eq!(replies, vec![Value::Integer(expected); 2 * CLIENTS]);
    }
}

#[test]
fn two_commands_that_want_the_same_token_at_once_are_one_and_an_error() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    for round in 0..ROUNDS {
        let token = format!("t{round}");
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let (first, other) = thread::scope(|scope| {
            let words = ["FRESHET.ONCE", &token, "INCR", &b];
            let address = second.address();
            let other = scope.spawn(move || retry(address, &words));
            let words = ["FRESHET.ONCE", &token, "INCR", &a];
            (
                retry(stack.program.address(), &words),
                other.join().unwrap(),
            )
        });
        let done = [&first, &other]
            .into_iter()
            .filter(|it| **it == Value::Integer(1));
        assert_eq!(done.count(), 1, "{first:?}, {other:?}");
        let mut client = stack.client().unwrap();
        assert_eq!(client.integer(&["EXISTS", &a, &b]).unwrap(), 1);
    }
}

#[test]
fn a_repeat_waits_for_the_first_that_still_runs() {
    if !cfg!(feature = "fault-points") {
        return;
    }
    let stack = Stack::start().unwrap();
    let slow = armed(&stack, "before-commit=stall:1500");
    let mut client = slow.client().unwrap();
    client.send(&["FRESHET.ONCE", "t", "INCR", "n"]).unwrap();
    slow.await_log("fault point: stall", Duration::from_secs(20))
        .unwrap();
    // The client gives up and asks again elsewhere.
    drop(client);
    let words = ["FRESHET.ONCE", "t", "INCR", "n"];
    assert_eq!(retry(stack.program.address(), &words), Value::Integer(1));
    assert_eq!(stack.client().unwrap().text(&["GET", "n"]).unwrap(), "1");
}

/// What a repeat tells is told to the cache first. Without that: the first loses its companion
/// behind its begin, a reader gets a lease and loads the old value, the first commits and stands
/// still, the repeat is answered, and the reader's fill of the old value is accepted.
#[test]
fn after_a_repeat_nobody_is_shown_anything_older() {
    if !cfg!(feature = "fault-points") {
        return;
    }
    let stack = Stack::start().unwrap();
    let mut other = stack.client().unwrap();
    other.ok(&["SET", "k", "old"]).unwrap();
    other.ok(&["GET", "k"]).unwrap();
    let slow = armed(&stack, "before-commit=stall:1500,before-apply=stall:6000");
    let reading = armed(&stack, "before-fill=stall:4000");
    let words = ["FRESHET.ONCE", "t", "SET", "k", "new"];
    let mut writer = slow.client().unwrap();
    writer.send(&words).unwrap();
    slow.await_log("fault point: stall", Duration::from_secs(20))
        .unwrap();
    let mut cache = stack.cache.client().unwrap();
    let forgotten = cache.integer(&["DEL", "\0fc{k}", "\0fh{k}"]).unwrap();
    assert!(forgotten > 0, "nothing was begun");
    let mut reader = reading.client().unwrap();
    reader.send(&["GET", "k"]).unwrap();
    reading
        .await_log("fault point: stall", Duration::from_secs(20))
        .unwrap();
    // Behind the first one's commit, before its apply and before the fill.
    assert_eq!(
        retry(stack.program.address(), &words),
        Value::Simple("OK".into())
    );
    assert_eq!(reader.read().unwrap(), Value::Bulk(b"old".to_vec()));
    let mut fresh = reading.client().unwrap();
    for client in [&mut other, &mut fresh] {
        assert_eq!(client.text(&["GET", "k"]).unwrap(), "new");
    }
    assert_eq!(writer.read().unwrap(), Value::Simple("OK".into()));
}

/// A further proxy at which these faults happen.
fn armed(stack: &Stack, faults: &str) -> Program {
    let mut program = Program::stopped(
        crate::support::stack::FRESHET,
        &stack.database,
        &stack.cache.url(),
        &[],
    )
    .unwrap();
    program.arm(faults);
    program.start_again().unwrap();
    program
}
