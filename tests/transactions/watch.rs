//! WATCH is judged by versions in the store.

use std::thread;
use std::time::Duration;

use crate::support::{Client, Program, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs a block of one INCR on `mark`; whether it was carried out.
fn exec(client: &mut Client) -> bool {
    client.ok(&["MULTI"]).unwrap();
    client.ok(&["INCR", "mark"]).unwrap();
    match client.ok(&["EXEC"]).unwrap() {
        Value::Null => false,
        Value::Array(items) => {
            assert!(matches!(items[..], [Value::Integer(_)]), "{items:?}");
            true
        }
        other => panic!("{other:?}"),
    }
}

/// Adds one to `counter`, optimistically; how often it had to try again.
fn add_one(client: &mut Client) -> u32 {
    for retries in 0.. {
        client.ok(&["WATCH", "counter"]).unwrap();
        let before = client.ok(&["GET", "counter"]).unwrap();
        let before: u64 = before.text().map_or(0, |text| text.parse().unwrap());
        let after = (before + 1).to_string();
        client.ok(&["MULTI"]).unwrap();
        client.ok(&["SET", "counter", &after]).unwrap();
        client.ok(&["SET", "copy", &after]).unwrap();
        if client.ok(&["EXEC"]).unwrap() != Value::Null {
            return retries;
        }
    }
    unreachable!()
}

fn count_up(programs: &[&Program], clients: usize, rounds: usize, disturb: impl FnOnce()) {
    let retries: u32 = thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|index| {
                let mut client = programs[index % programs.len()].client().unwrap();
                scope.spawn(move || (0..rounds).map(|_| add_one(&mut client)).sum::<u32>())
            })
            .collect();
        disturb();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    });
    let sum = (clients * rounds).to_string();
    for program in programs {
        let mut client = program.client().unwrap();
        assert_eq!(client.text(&["GET", "counter"]).unwrap(), sum);
        assert_eq!(client.text(&["GET", "copy"]).unwrap(), sum);
    }
    println!("{sum} additions, {retries} tried again");
}

#[test]
fn optimistic_counters_add_up() {
    let mut stack = Stack::start().unwrap();
    count_up(&[&stack.program], 20, 25, || {});
    stack.program.stop_quietly().unwrap();
}

#[test]
fn optimistic_counters_add_up_through_two_proxies() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    count_up(&[&stack.program, &second], 10, 30, || {});
}

#[test]
fn optimistic_counters_add_up_while_the_cache_is_killed() {
    let mut stack = Stack::start().unwrap();
    let Stack { program, cache, .. } = &mut stack;
    count_up(&[program], 10, 60, || {
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(150));
            cache.kill().unwrap();
            thread::sleep(Duration::from_millis(150));
            cache.start_again().unwrap();
        }
    });
}

#[test]
fn optimistic_counters_add_up_while_the_cache_is_flushed() {
    let stack = Stack::start().unwrap();
    let mut cache = stack.cache.client().unwrap();
    count_up(&[&stack.program], 10, 40, || {
        for _ in 0..20 {
            cache.ok(&["FLUSHALL"]).unwrap();
            thread::sleep(Duration::from_millis(40));
        }
    });
}

/// Each change, made by `other`, of a key that is watched makes EXEC do nothing.
fn are_noticed(client: &mut Client, other: &mut Client, changes: &[&[&str]]) {
    for change in changes {
        client.ok(&["DEL", "moved"]).unwrap();
        client.ok(&["MSET", "key", "same", "other", "x"]).unwrap();
        other.ok(&["SELECT", "3"]).unwrap();
        other.ok(&["DEL", "key"]).unwrap();
        other.ok(&["SELECT", "0"]).unwrap();
        client.ok(&["WATCH", "key"]).unwrap();
        other.ok(change).unwrap();
        assert!(!exec(client), "{change:?} went unnoticed");
        assert!(exec(client), "the watch was not forgotten");
    }
}

#[test]
fn writes_of_any_kind_through_any_proxy_are_noticed() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let mut client = stack.client().unwrap();
    for mut other in [stack.client().unwrap(), second.client().unwrap()] {
        let changes: &[&[&str]] = &[
            &["SET", "key", "same"],
            &["DEL", "key"],
            &["EXPIRE", "key", "1000"],
            &["APPEND", "key", "x"],
            &["RENAME", "key", "moved"],
            &["COPY", "other", "key", "REPLACE"],
            &["MOVE", "key", "3"],
        ];
        are_noticed(&mut client, &mut other, changes);
    }
}

#[test]
fn flushes_and_swaps_are_noticed() {
    let stack = Stack::start().unwrap();
    let (mut client, mut other) = (stack.client().unwrap(), stack.client().unwrap());
    let changes: &[&[&str]] = &[&["FLUSHDB"], &["FLUSHALL"], &["SWAPDB", "0", "1"]];
    are_noticed(&mut client, &mut other, changes);
}

#[test]
fn what_changes_nothing_disturbs_no_watch() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let mut other = stack.client().unwrap();
    client.ok(&["SET", "key", "x"]).unwrap();
    for calm in [
        &["GET", "key"][..],
        &["INCR", "key"],
        &["SET", "key", "y", "NX"],
        &["DEL", "absent"],
        &["PERSIST", "key"],
        &["SET", "elsewhere", "1"],
    ] {
        client.ok(&["WATCH", "key", "absent"]).unwrap();
        other.call(calm).unwrap();
        assert!(exec(&mut client), "{calm:?}");
    }
    // A flush is a change of the keys that are there.
    client.ok(&["WATCH", "absent"]).unwrap();
    other.ok(&["FLUSHALL"]).unwrap();
    assert!(exec(&mut client));
}

#[test]
fn an_absent_key_that_came_and_went_has_changed() {
    let stack = Stack::start().unwrap();
    let (mut client, mut other) = (stack.client().unwrap(), stack.client().unwrap());
    client.ok(&["WATCH", "key"]).unwrap();
    other.ok(&["SET", "key", "1"]).unwrap();
    other.ok(&["DEL", "key"]).unwrap();
    assert!(!exec(&mut client));
}

/// Sets a key that ends by itself, and watches it while it is there: on a busy machine that needs a longer life.
fn watch_before_its_end(client: &mut Client, key: &str) {
    for life_ms in (0..8).map(|doubled| 60 << doubled) {
        client.ok(&["UNWATCH"]).unwrap();
        client
            .ok(&["SET", key, "x", "PX", &life_ms.to_string()])
            .unwrap();
        client.ok(&["WATCH", key]).unwrap();
        if client.integer(&["EXISTS", key]).unwrap() == 1 {
            return;
        }
    }
    panic!("the key always ends before it is watched");
}

#[test]
fn a_key_that_expires_has_changed() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    watch_before_its_end(&mut client, "key");
    process::await_true("the key ends", LIMIT, || {
        client.integer(&["EXISTS", "key"]).unwrap() == 0
    })
    .unwrap();
    assert!(!exec(&mut client));
    // Now it is not there when it is watched.
    client.ok(&["WATCH", "key"]).unwrap();
    assert!(exec(&mut client));
}

#[test]
fn own_writes_before_multi_count() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["WATCH", "key"]).unwrap();
    client.ok(&["SET", "key", "1"]).unwrap();
    assert!(!exec(&mut client));
}

#[test]
fn a_watched_key_is_that_of_its_database() {
    let stack = Stack::start().unwrap();
    let (mut client, mut other) = (stack.client().unwrap(), stack.client().unwrap());
    client.ok(&["SELECT", "2"]).unwrap();
    client.ok(&["WATCH", "key"]).unwrap();
    client.ok(&["SELECT", "0"]).unwrap();
    other.ok(&["SET", "key", "1"]).unwrap();
    assert!(exec(&mut client));
    client.ok(&["SELECT", "2"]).unwrap();
    client.ok(&["WATCH", "key"]).unwrap();
    client.ok(&["SELECT", "0"]).unwrap();
    other.ok(&["SELECT", "2"]).unwrap();
    other.ok(&["SET", "key", "1"]).unwrap();
    assert!(!exec(&mut client));
}

/// Each sees the other's key absent, and creates its own: one of them must see that it is late.
#[test]
fn two_proxies_that_watch_each_others_absent_keys_do_not_both_succeed() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    for round in 0..60 {
        let names = [format!("left{round}"), format!("right{round}")];
        let both_watch = std::sync::Barrier::new(2);
        let done: Vec<bool> = thread::scope(|scope| {
            let workers = [(0, &stack.program), (1, &second)].map(|(index, program)| {
                let (own, other) = (&names[index], &names[1 - index]);
                let mut client = program.client().unwrap();
                let both_watch = &both_watch;
                scope.spawn(move || {
                    client.ok(&["WATCH", other]).unwrap();
                    both_watch.wait();
                    client.ok(&["MULTI"]).unwrap();
                    client.ok(&["SET", own, "1"]).unwrap();
                    client.ok(&["EXEC"]).unwrap() != Value::Null
                })
            });
            workers.map(|worker| worker.join().unwrap()).into()
        });
        assert!(done != [true, true], "round {round}: both");
    }
}
