//! Clients that wait: who is served, when, and that nothing is lost on the way.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Program, Stack, Value, process};

/// Until all of `count` calls wait.
fn await_blocked(program: &Program, count: usize) {
    let mut client = program.client().unwrap();
    let line = format!("blocked_clients:{count}\r\n");
    process::await_true("clients wait", Duration::from_secs(10), || {
        let info = client.text(&["INFO", "clients"]).unwrap();
        info.contains(&line)
    })
    .unwrap();
}

/// A connection on which `command` waits.
fn waiting(program: &Program, command: &[&str], count: usize) -> Client {
    let mut client = program.client().unwrap();
    client.send(command).unwrap();
    await_blocked(program, count);
    client
}

fn texts(value: &Value) -> Vec<String> {
    let items = value.items().iter();
    items.map(|item| item.text().unwrap()).collect()
}

#[test]
fn who_came_first_is_served_first() {
    let stack = Stack::start().unwrap();
    let mut queue: Vec<Client> = (1..=4)
        .map(|count| waiting(&stack.program, &["BLPOP", "q", "0"], count))
        .collect();
    let mut pusher = stack.client().unwrap();
    assert_eq!(pusher.integer(&["RPUSH", "q", "1", "2", "3"]).unwrap(), 3);
    for (index, client) in queue.iter_mut().take(3).enumerate() {
        let expected = ["q".to_owned(), (index + 1).to_string()];
        assert_eq!(texts(&client.read().unwrap()), expected);
    }
    await_blocked(&stack.program, 1);
    pusher.ok(&["LPUSH", "q", "x"]).unwrap();
    assert_eq!(texts(&queue[3].read().unwrap()), ["q", "x"]);
    assert_eq!(pusher.integer(&["EXISTS", "q"]).unwrap(), 0);
}

#[test]
fn timeouts_are_exact_and_refused_as_by_redis() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for command in [
        &["BLPOP", "a", "b", "0.3"][..],
        &["BLMOVE", "a", "b", "LEFT", "RIGHT", "0.3"],
        &["BLMPOP", "0.3", "2", "a", "b", "RIGHT", "COUNT", "2"],
    ] {
        let start = Instant::now();
        assert_eq!(client.call(command).unwrap(), Value::Null, "{command:?}");
        let took = start.elapsed();
        let expected = Duration::from_millis(300)..Duration::from_millis(800);
        assert!(expected.contains(&took), "{command:?} took {took:?}");
    }
    for (command, error) in [
        (&["BLPOP", "a", "-1"][..], "ERR timeout is negative"),
        (
            &["BRPOP", "a", "x"],
            "ERR timeout is not a float or out of range",
        ),
        (
            &["BLMOVE", "a", "b", "UP", "LEFT", "-1"],
            "ERR syntax error",
        ),
    ] {
        let reply = client.call(command).unwrap();
        assert_eq!(reply.error(), Some(error));
    }
    client.ok(&["SET", "string", "1"]).unwrap();
    let reply = client.call(&["BLPOP", "string", "0"]).unwrap();
    assert!(reply.error().unwrap().starts_with("WRONGTYPE"));
}

/// Redis goes through the streams one by one: its type, then the id for it.
#[test]
fn a_waiting_read_tells_of_types_and_ids_in_their_order() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "string", "x"]).unwrap();
    for (keys, ids, error) in [
        (["string", "none"], ["(-", "0"], "WRONGTYPE"),
        (["none", "string"], ["(-", "0"], "ERR Invalid stream ID"),
        (["none", "string"], ["(-", "$"], "ERR Invalid stream ID"),
        (["none", "string"], ["$", "(-"], "WRONGTYPE"),
        (["none", "none"], [">", "0"], "ERR The > ID"),
    ] {
        let command = [&["XREAD", "BLOCK", "0", "STREAMS"][..], &keys, &ids].concat();
        let reply = client.call(&command).unwrap();
        let text = reply.error().unwrap_or_default();
        assert!(text.starts_with(error), "{command:?}: {reply:?}");
    }
}

#[test]
fn nothing_is_taken_for_a_client_that_has_gone() {
    let stack = Stack::start().unwrap();
    let gone = waiting(&stack.program, &["BLPOP", "q", "0"], 1);
    let mut stays = waiting(&stack.program, &["BRPOP", "other", "q", "0"], 2);
    drop(gone);
    await_blocked(&stack.program, 1);
    let mut client = stack.client().unwrap();
    client.ok(&["RPUSH", "q", "a", "b"]).unwrap();
    assert_eq!(texts(&stays.read().unwrap()), ["q", "b"]);
    assert_eq!(
        texts(&client.ok(&["LRANGE", "q", "0", "-1"]).unwrap()),
        ["a"]
    );
}

#[test]
fn what_is_sent_behind_a_waiting_command_is_done_after_it() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let commands = [
        vec!["SET", "before", "1"],
        vec!["BLPOP", "q", "0"],
        vec!["APPEND", "before", "2"],
        vec!["GET", "before"],
    ];
    client.send_all(&commands).unwrap();
    // The reply before it comes at once.
    assert_eq!(client.read().unwrap().text().unwrap(), "OK");
    await_blocked(&stack.program, 1);
    let mut other = stack.client().unwrap();
    assert_eq!(other.text(&["GET", "before"]).unwrap(), "1");
    other.ok(&["RPUSH", "q", "x"]).unwrap();
    assert_eq!(texts(&client.read().unwrap()), ["q", "x"]);
    assert_eq!(client.read().unwrap(), Value::Integer(2));
    assert_eq!(client.read().unwrap().text().unwrap(), "12");
}

#[test]
fn a_waiting_client_is_unblocked_by_another() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let id = client.integer(&["CLIENT", "ID"]).unwrap().to_string();
    let mut other = stack.client().unwrap();
    let unblock = |other: &mut Client, how: &[&str]| {
        let command = [&["CLIENT", "UNBLOCK", &id], how].concat();
        other.integer(&command).unwrap()
    };
    assert_eq!(unblock(&mut other, &[]), 0);
    for how in [&[][..], &["TIMEOUT"], &["ERROR"]] {
        client.send(&["BLPOP", "q", "0"]).unwrap();
        await_blocked(&stack.program, 1);
        assert_eq!(unblock(&mut other, how), 1);
        let reply = client.read().unwrap();
        if how == ["ERROR"] {
            let text = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
            assert_eq!(reply.error(), Some(text));
        } else {
            assert_eq!(reply, Value::Null);
        }
    }
    assert_eq!(unblock(&mut other, &[]), 0);
}

#[test]
fn a_push_through_another_proxy_and_a_moved_item_wake_too() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let mut mover = waiting(
        &stack.program,
        &["BLMOVE", "from", "to", "LEFT", "RIGHT", "0"],
        1,
    );
    let mut popper = waiting(&stack.program, &["BLPOP", "to", "0"], 2);
    let start = Instant::now();
    second
        .client()
        .unwrap()
        .ok(&["RPUSH", "from", "x"])
        .unwrap();
    assert_eq!(mover.read().unwrap().text().unwrap(), "x");
    assert_eq!(texts(&popper.read().unwrap()), ["to", "x"]);
    assert!(start.elapsed() < Duration::from_secs(4));
}

const CONSUMERS: usize = 40;
const ITEMS: usize = 600;

#[test]
fn every_item_goes_to_one_client_once() {
    let stack = Stack::start().unwrap();
    let popped: Mutex<Vec<String>> = Mutex::default();
    thread::scope(|scope| {
        for consumer in 0..CONSUMERS {
            let (program, popped) = (&stack.program, &popped);
            scope.spawn(move || {
                let mut client = program.client().unwrap();
                let keys = [format!("q{}", consumer % 3), format!("q{}", consumer % 2)];
                loop {
                    let command = ["BLPOP", &keys[0], &keys[1], "0"];
                    let reply = texts(&client.ok(&command).unwrap());
                    if reply[1] == "end" {
                        return;
                    }
                    popped.lock().unwrap().push(reply[1].clone());
                }
            });
        }
        let mut pusher = stack.client().unwrap();
        for item in 0..ITEMS {
            let key = format!("q{}", item % 3);
            pusher.ok(&["RPUSH", &key, &item.to_string()]).unwrap();
        }
        while popped.lock().unwrap().len() < ITEMS {
            thread::sleep(Duration::from_millis(20));
        }
        // Enough for each of them at every key.
        for key in ["q0", "q1", "q2"] {
            let ends = ["RPUSH", key].into_iter().chain(["end"; CONSUMERS]);
            pusher.ok(&ends.collect::<Vec<_>>()).unwrap();
        }
    });
    let popped = popped.into_inner().unwrap();
    let distinct: BTreeSet<&String> = popped.iter().collect();
    assert_eq!((popped.len(), distinct.len()), (ITEMS, ITEMS));
}

#[test]
fn sort_reads_the_keys_that_its_patterns_name() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["RPUSH", "l", "3", "1", "2"]).unwrap();
    client
        .ok(&["MSET", "w_1", "30", "w_2", "20", "w_3", "10"])
        .unwrap();
    client.ok(&["HSET", "o_1", "name", "one"]).unwrap();
    let sorted = client.ok(&["SORT", "l", "BY", "w_*", "GET", "#"]).unwrap();
    assert_eq!(texts(&sorted), ["3", "2", "1"]);
    let named = client
        .ok(&[
            "SORT_RO",
            "l",
            "DESC",
            "LIMIT",
            "2",
            "1",
            "GET",
            "o_*->name",
        ])
        .unwrap();
    assert_eq!(texts(&named), ["one"]);
    let command = ["SORT", "l", "BY", "w_*", "GET", "w_*", "STORE", "to"];
    assert_eq!(client.integer(&command).unwrap(), 3);
    stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    let stored = client.ok(&["LRANGE", "to", "0", "-1"]).unwrap();
    assert_eq!(texts(&stored), ["10", "20", "30"]);
}

/// As a read: the cache answers, but for keys that only patterns name.
#[test]
fn sort_that_only_reads_is_answered_as_a_read() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["RPUSH", "l", "3", "1", "2"]).unwrap();
    client
        .ok(&["MSET", "w_1", "30", "w_2", "20", "w_3", "10"])
        .unwrap();
    let mut cache = stack.cache.client().unwrap();
    let hits = |cache: &mut Client| {
        let info = cache.text(&["INFO", "commandstats"]).unwrap();
        info.contains("cmdstat_sort_ro:")
    };
    let by_weight = ["SORT_RO", "l", "BY", "w_*"];
    assert_eq!(texts(&client.ok(&by_weight).unwrap()), ["3", "2", "1"]);
    // A key that the cache has lost counts all the same.
    cache.ok(&["DEL", "w_3"]).unwrap();
    assert_eq!(texts(&client.ok(&by_weight).unwrap()), ["3", "2", "1"]);
    assert!(!hits(&mut cache));
    for command in [
        &["SORT_RO", "l", "DESC"][..],
        &["SORT_RO", "l", "GET", "#", "DESC"],
    ] {
        assert_eq!(texts(&client.ok(command).unwrap()), ["3", "2", "1"]);
    }
    assert!(hits(&mut cache));
    cache.ok(&["DEL", "l"]).unwrap();
    assert_eq!(
        texts(&client.ok(&["SORT_RO", "l"]).unwrap()),
        ["1", "2", "3"]
    );
    let block = [
        vec!["MULTI"],
        vec!["SET", "w_3", "40"],
        by_weight.to_vec(),
        vec!["EXEC"],
    ];
    let replies = client.pipeline(&block).unwrap();
    assert_eq!(texts(&replies[3].items()[1]), ["2", "1", "3"]);
}

#[test]
fn a_group_or_stream_that_goes_ends_the_waiting() {
    let stack = Stack::start().unwrap();
    let mut other = stack.client().unwrap();
    let read = [
        "XREADGROUP",
        "GROUP",
        "g",
        "c",
        "BLOCK",
        "0",
        "STREAMS",
        "s",
        ">",
    ];
    let gone = "UNBLOCKED the stream key no longer exists";
    let without = "NOGROUP the consumer group this client was blocked on no longer exists";
    for (command, error) in [
        (&["XGROUP", "DESTROY", "s", "g"][..], without),
        (&["DEL", "s"], gone),
        (&["SET", "s", "1"], gone),
        (&["FLUSHALL"], gone),
    ] {
        other.ok(&["DEL", "s"]).unwrap();
        other
            .ok(&["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"])
            .unwrap();
        let mut waiter = waiting(&stack.program, &read, 1);
        other.ok(command).unwrap();
        assert_eq!(waiter.read().unwrap().error(), Some(error), "{command:?}");
    }
}

#[test]
fn within_multi_nobody_waits() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let lines = [
        "MULTI",
        "BLPOP k 0",
        "BLMOVE a b LEFT RIGHT 0",
        "BLMPOP 0 1 k LEFT",
        "BZPOPMIN k 0",
        "BZMPOP 0 1 k MIN",
        "XREAD BLOCK 0 STREAMS s $",
        "BRPOPLPUSH a b 0",
    ];
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        client.ok(&words).unwrap();
    }
    let reply = client.call_with_bytes(&["EXEC"]).unwrap();
    let expected = b"*7\r\n*-1\r\n$-1\r\n*-1\r\n*-1\r\n*-1\r\n*-1\r\n$-1\r\n";
    assert_eq!(reply, expected, "{}", reply.escape_ascii());
}

#[test]
fn reads_that_find_and_miss_their_key_are_counted() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "a", "1"]).unwrap();
    for command in [&["GET", "a"][..], &["GET", "b"], &["MGET", "a", "b", "a"]] {
        client.call(command).unwrap();
    }
    let info = client.text(&["INFO", "stats"]).unwrap();
    assert!(
        info.contains("keyspace_hits:3\r\nkeyspace_misses:2\r\n"),
        "{info}"
    );
}
