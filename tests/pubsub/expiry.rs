//! What is told when a key's end has passed: events, invalidations, and the end
//! of waiting for a stream.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::{Client, Redis, Sql, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().filter_map(Value::text).collect()
}

/// Freshet and a plain Redis, both telling of all classes of events.
struct Pair {
    _stack: Stack,
    _judge: Redis,
    ours: Client,
    our_listener: Client,
    theirs: Client,
    their_listener: Client,
}

impl Pair {
    fn start() -> Self {
        let stack = Stack::start().unwrap();
        let judge = Redis::start().unwrap();
        let mut pair = Self {
            ours: stack.client().unwrap(),
            our_listener: stack.client().unwrap(),
            theirs: judge.client().unwrap(),
            their_listener: judge.client().unwrap(),
            _stack: stack,
            _judge: judge,
        };
        for (client, listener) in [
            (&mut pair.ours, &mut pair.our_listener),
            (&mut pair.theirs, &mut pair.their_listener),
        ] {
            let classes = ["CONFIG", "SET", "notify-keyspace-events", "KEAn"];
            client.ok(&classes).unwrap();
            listener.ok(&["PSUBSCRIBE", "__key*__:*"]).unwrap();
        }
        pair
    }

    /// Runs `lines` on both, and compares what they tell until a key is told to have ended.
    fn compare_to_end(&mut self, lines: &[&str]) {
        let told: Vec<Vec<Vec<String>>> = [
            (&mut self.theirs, &mut self.their_listener),
            (&mut self.ours, &mut self.our_listener),
        ]
        .into_iter()
        .map(|(client, listener)| {
            for line in lines {
                let words: Vec<&str> = line.split(' ').collect();
                client.ok(&words).unwrap();
            }
            until_ended(listener)
        })
        .collect();
        assert_eq!(told[1], told[0], "{lines:?}");
    }
}

/// All messages up to the event that tells of an end.
fn until_ended(listener: &mut Client) -> Vec<Vec<String>> {
    let mut told = Vec::new();
    loop {
        let message = texts(&listener.read().unwrap());
        let is_end = message[2].ends_with(":expired");
        told.push(message);
        if is_end {
            return told;
        }
    }
}

/// The keys of the next invalidation that a client in RESP3 gets.
fn invalidated(client: &mut Client) -> Vec<String> {
    let push = client.read().unwrap();
    assert_eq!(push.items()[0].text().unwrap(), "invalidate", "{push:?}");
    texts(&push.items()[1])
}

#[test]
fn the_end_of_a_key_is_told_as_by_redis() {
    let mut pair = Pair::start();
    for lines in [
        &["SET a 1 PX 40"][..],
        &["SET a 1", "PEXPIRE a 40"],
        &["HSET h f v", "PEXPIRE h 40"],
        &["RPUSH l 1 2", "PEXPIRE l 40"],
        &["SADD s 1 2", "PEXPIRE s 40"],
        &["ZADD z 1 a", "PEXPIRE z 40"],
        &["XADD x 1-1 f v", "PEXPIRE x 40"],
        &["SELECT 3", "SET a 1 PX 40"],
        &["MULTI", "SET m 1", "PEXPIRE m 40", "EXEC"],
        &["SET b 1 PX 100000", "SET b 2 PX 40"],
    ] {
        pair.compare_to_end(lines);
    }
}

#[test]
fn who_writes_a_key_whose_end_has_passed_finds_it_told_of_before() {
    let mut pair = Pair::start();
    for (name, line) in [
        ("a", "SET a 2"),
        ("b", "APPEND b x"),
        ("c", "RPUSH c x"),
        ("d", "MSET d 1 other 2"),
        ("e", "SET e 5 PX 100000"),
    ] {
        let mut told = Vec::new();
        for (client, listener) in [
            (&mut pair.theirs, &mut pair.their_listener),
            (&mut pair.ours, &mut pair.our_listener),
        ] {
            // By then, it is gone: told of already, or else by the command itself.
            client.ok(&["SET", name, "1", "PX", "1"]).unwrap();
            process::await_true("the key ends", LIMIT, || {
                client.integer(&["PTTL", name]).unwrap() == -2
            })
            .unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            client.ok(&words).unwrap();
            client.ok(&["SETEX", "last", "100", "1"]).unwrap();
            client.ok(&["DEL", "last", "other"]).unwrap();
            let mut messages = Vec::new();
            loop {
                let message = texts(&listener.read().unwrap());
                let is_last = message[2] == "__keyevent@0__:del" && message[3] == "last";
                messages.push(message);
                if is_last {
                    break;
                }
            }
            if line.contains("other") {
                messages.push(texts(&listener.read().unwrap()));
                messages.push(texts(&listener.read().unwrap()));
            }
            told.push(messages);
        }
        assert_eq!(told[1], told[0], "{line}");
        let ended = told[1].iter().filter(|m| m[2].ends_with(":expired"));
        assert_eq!(ended.count(), 1, "{line}");
    }
}

#[test]
fn of_several_proxies_one_tells_of_each_end() {
    let settings = [("notifications.keyspace_events", "Ex")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let second = stack.second_program().unwrap();
    let mut listener = second.client().unwrap();
    listener
        .ok(&["PSUBSCRIBE", "__keyevent@*:expired"])
        .unwrap();
    let mut clients = [stack.client().unwrap(), second.client().unwrap()];
    for n in 0..300 {
        let (key, end) = (format!("k{n}"), (20 + n % 50).to_string());
        clients[n % 2].ok(&["SET", &key, "x", "PX", &end]).unwrap();
    }
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    let mut count = |listener: &mut Client| {
        let key = texts(&listener.read().unwrap()).remove(3);
        *told.entry(key.clone()).or_default() += 1;
        key
    };
    for _ in 0..300 {
        count(&mut listener);
    }
    // Told twice, one would come before these.
    for client in &mut clients {
        client.ok(&["SET", "last", "x", "PX", "1"]).unwrap();
        assert_eq!(count(&mut listener), "last");
    }
    assert_eq!(told.remove("last"), Some(2));
    assert_eq!(told.len(), 300);
    assert!(told.values().all(|&times| times == 1), "{told:?}");
}

#[test]
fn what_the_cache_loses_has_not_ended() {
    let settings = [("notifications.keyspace_events", "Exe")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let mut listener = stack.client().unwrap();
    listener.ok(&["PSUBSCRIBE", "__keyevent@*"]).unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["SET", "a", "1"]).unwrap();
    client.ok(&["SET", "b", "1", "PX", "1000000"]).unwrap();
    let mut cache = stack.cache.client().unwrap();
    assert_eq!(cache.integer(&["DEL", "a", "b"]).unwrap(), 2);
    assert_eq!(client.text(&["GET", "a"]).unwrap(), "1");
    assert_eq!(client.text(&["GET", "b"]).unwrap(), "1");
    cache.ok(&["FLUSHALL"]).unwrap();
    client.ok(&["SET", "last", "x", "PX", "1"]).unwrap();
    let message = texts(&listener.read().unwrap());
    assert_eq!(message[2..], ["__keyevent@0__:expired", "last"]);
}

/// The reply to `GET key`, of a client that may be told of invalidations before it.
fn get(client: &mut Client, key: &str) -> Value {
    client.send(&["GET", key]).unwrap();
    loop {
        let value = client.read().unwrap();
        if value.items().is_empty() {
            return value;
        }
    }
}

/// Writes a key through `writer` that ends soon, but not before `reader` has read it.
fn read_before_its_end(writer: &mut Client, reader: &mut Client) -> String {
    for end in ["200", "2000", "5000", "15000"] {
        let key = format!("a{end}");
        writer.ok(&["SET", &key, "1", "PX", end]).unwrap();
        if get(reader, &key) != Value::Null {
            return key;
        }
    }
    panic!("all keys end before they are read");
}

#[test]
fn copies_of_a_key_that_ends_are_invalidated() {
    let stack = Stack::start().unwrap();
    // Through the same proxy: word of a write through another may come behind the read.
    let mut writer = stack.client().unwrap();
    for _ in 0..3 {
        let mut reader = stack.client().unwrap();
        reader.ok(&["HELLO", "3"]).unwrap();
        reader.ok(&["CLIENT", "TRACKING", "ON"]).unwrap();
        let key = read_before_its_end(&mut writer, &mut reader);
        // One that was read too late is told of, too.
        while invalidated(&mut reader) != [key.as_str()] {}
        assert_eq!(get(&mut reader, &key), Value::Null);
    }
}

#[test]
fn invalidations_of_keys_that_end_are_redirected_and_broadcast() {
    let stack = Stack::start().unwrap();
    let mut target = stack.client().unwrap();
    let id = target.integer(&["CLIENT", "ID"]).unwrap().to_string();
    target.ok(&["SUBSCRIBE", "__redis__:invalidate"]).unwrap();
    let mut reader = stack.client().unwrap();
    let redirect = ["CLIENT", "TRACKING", "ON", "REDIRECT", &id];
    reader.ok(&redirect).unwrap();
    let mut writer = stack.client().unwrap();
    let key = read_before_its_end(&mut writer, &mut reader);
    loop {
        let message = target.read().unwrap();
        assert_eq!(texts(&message)[..2], ["message", "__redis__:invalidate"]);
        if texts(&message.items()[2]) == [key.as_str()] {
            break;
        }
    }
    let mut broadcast = stack.client().unwrap();
    broadcast.ok(&["HELLO", "3"]).unwrap();
    let options = ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "b"];
    broadcast.ok(&options).unwrap();
    writer.ok(&["SET", "b", "1", "PX", "50"]).unwrap();
    // Of the write, and of the end.
    assert_eq!(invalidated(&mut broadcast), ["b"]);
    assert_eq!(invalidated(&mut broadcast), ["b"]);
    assert_eq!(reader.call(&["GET", "b"]).unwrap(), Value::Null);
}

#[test]
fn waiting_for_a_group_of_a_stream_that_ends_is_over_as_in_redis() {
    let stack = Stack::start().unwrap();
    let judge = Redis::start().unwrap();
    let told = [stack.client(), judge.client()].map(|client| {
        let mut client = client.unwrap();
        let create = ["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"];
        client.ok(&create).unwrap();
        client.ok(&["PEXPIRE", "s", "2000"]).unwrap();
        let wait = "XREADGROUP GROUP g c BLOCK 0 STREAMS s >";
        client.send(&wait.split(' ').collect::<Vec<_>>()).unwrap();
        client.read().unwrap()
    });
    let error = "UNBLOCKED the stream key no longer exists";
    assert_eq!(told[1].error(), Some(error));
    assert_eq!(told[0], told[1]);
}

const INDEX: &str = "CREATE INDEX keys_end ON freshet.keys (expires_ms)
    WHERE kind IS NOT NULL AND expires_ms IS NOT NULL";

/// Whether the index on ends is there and complete.
fn is_indexed(sql: &Sql) -> bool {
    let valid = "SELECT EXISTS (SELECT FROM pg_index
        WHERE indexrelid = to_regclass('freshet.keys_end') AND indisvalid)";
    sql.query(valid, &[]).unwrap()[0].get(0)
}

/// Until a statement that begins so waits for a lock in this test's database.
fn await_locked(sql: &Sql, statement: &str) {
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND ltrim(query, E' \\n') LIKE $1 || '%')";
    process::await_true("a statement waits", LIMIT, || {
        sql.query(waits, &[&statement]).unwrap()[0].get(0)
    })
    .unwrap();
}

fn listener(stack: &Stack) -> (Client, Client) {
    let mut client = stack.client().unwrap();
    let classes = ["CONFIG", "SET", "notify-keyspace-events", "Ex"];
    client.ok(&classes).unwrap();
    let mut listener = stack.client().unwrap();
    listener.ok(&["PSUBSCRIBE", "__keyevent@*"]).unwrap();
    (client, listener)
}

#[test]
fn an_index_that_was_left_unfinished_is_made_anew() {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    sql.execute(INDEX).unwrap();
    let spoil = "UPDATE pg_index SET indisvalid = false
        WHERE indexrelid = 'freshet.keys_end'::regclass";
    sql.execute(spoil).unwrap();
    assert!(!is_indexed(&sql));
    let (mut client, mut listener) = listener(&stack);
    client.ok(&["SET", "a", "1", "PX", "1"]).unwrap();
    until_ended(&mut listener);
    assert!(is_indexed(&sql));
}

#[test]
fn a_flush_and_the_making_of_the_index_do_not_fail_each_other() {
    let stack = Stack::start().unwrap();
    let sql = stack.sql().unwrap();
    let holder = stack.sql().unwrap();
    holder
        .execute("BEGIN; LOCK TABLE freshet.keys IN ROW EXCLUSIVE MODE")
        .unwrap();
    let (mut client, mut listener) = listener(&stack);
    await_locked(&sql, "CREATE INDEX");
    client.send(&["FLUSHALL"]).unwrap();
    await_locked(&sql, "UPDATE freshet.purge");
    holder.execute("COMMIT").unwrap();
    assert_eq!(client.read().unwrap().text().unwrap(), "OK");
    client.ok(&["SET", "a", "1", "PX", "1"]).unwrap();
    until_ended(&mut listener);
    assert!(is_indexed(&sql));
}
