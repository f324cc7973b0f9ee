//! Nobody sees half of a unit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::{Client, Stack, Value, seed};

const READERS: usize = 4;
/// Between two flushes. The cache is in use again after a few milliseconds.
const FLUSH_PAUSE: Duration = Duration::from_millis(40);

fn time() -> Duration {
    seed::seconds("FRESHET_RACE_SECONDS", 3)
}

/// Runs writers, readers and a disturber until the time is over; each in a loop.
fn race(stack: &Stack, writer: fn(&mut Client, u64), reader: fn(&mut Client), flush: bool) {
    let over = AtomicBool::new(false);
    let running = || !over.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = stack.client().unwrap();
            for round in 0.. {
                if !running() {
                    break;
                }
                writer(&mut client, round);
            }
        });
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = stack.client().unwrap();
                    while running() {
                        reader(&mut client);
                    }
                })
            })
            .collect();
        let mut cache = stack.cache.client().unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < time() && !readers.iter().any(thread::ScopedJoinHandle::is_finished)
        {
            if flush {
                cache.ok(&["FLUSHALL"]).unwrap();
            }
            thread::sleep(FLUSH_PAUSE);
        }
        over.store(true, Ordering::Relaxed);
    });
}

fn set_all(client: &mut Client, round: u64) {
    let n = round.to_string();
    client.ok(&["MSET", "a", &n, "{t}b", &n, "c", &n]).unwrap();
}

fn all_are_equal(client: &mut Client) {
    let reply = client.ok(&["MGET", "a", "{t}b", "c"]).unwrap();
    let items = reply.items();
    assert!(
        items.len() == 3 && items[0] == items[1] && items[1] == items[2],
        "half of an MSET: {reply:?}"
    );
}

#[test]
fn mset_is_seen_whole() {
    let stack = Stack::start().unwrap();
    race(&stack, set_all, all_are_equal, false);
}

#[test]
fn mset_is_seen_whole_while_the_cache_is_flushed() {
    let stack = Stack::start().unwrap();
    race(&stack, set_all, all_are_equal, true);
}

/// Reads one after the other never go back, either.
fn one_after_the_other_does_not_go_back(client: &mut Client) {
    let mut number = |key| match client.ok(&["GET", key]).unwrap() {
        Value::Null => 0,
        value => value.text().unwrap().parse::<u64>().unwrap(),
    };
    let (first, second, third, again) = (number("a"), number("{t}b"), number("c"), number("a"));
    assert!(
        first <= second && second <= third && third <= again,
        "went back: {first} {second} {third} {again}"
    );
}

#[test]
fn keys_of_one_mset_are_never_seen_new_and_then_old() {
    let stack = Stack::start().unwrap();
    race(&stack, set_all, one_after_the_other_does_not_go_back, false);
}

#[test]
fn keys_of_one_mset_are_never_seen_new_and_then_old_while_the_cache_is_flushed() {
    let stack = Stack::start().unwrap();
    race(&stack, set_all, one_after_the_other_does_not_go_back, true);
}

fn move_to_and_fro(client: &mut Client, round: u64) {
    let (from, to) = if round.is_multiple_of(2) {
        ("here", "there")
    } else {
        ("there", "here")
    };
    client.ok(&["RENAME", from, to]).unwrap();
}

fn exactly_one_is_there(client: &mut Client) {
    assert_eq!(client.integer(&["EXISTS", "here", "there"]).unwrap(), 1);
}

#[test]
fn renamed_key_is_always_in_one_place_while_the_cache_is_flushed() {
    let stack = Stack::start().unwrap();
    stack.client().unwrap().ok(&["SET", "here", "x"]).unwrap();
    race(&stack, move_to_and_fro, exactly_one_is_there, true);
}
