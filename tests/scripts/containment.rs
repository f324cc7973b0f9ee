//! Scripts that do not end, take all memory, or fail half-way harm nobody else.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Client, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

const ENDLESS: &str = "while true do pcall(function() while true do end end) end";

/// Works on its key and others until told that the other is done; how often.
fn serve_until(client: &mut Client, mut is_over: impl FnMut() -> bool) -> u32 {
    let mut served = 0;
    while !is_over() {
        client.ok(&["INCR", "busy"]).unwrap();
        client
            .ok(&["EVAL", "return redis.call('incr',KEYS[1])", "1", "busy"])
            .unwrap();
        served += 1;
    }
    served
}

#[test]
fn endless_scripts_are_ended_while_others_are_served() {
    let settings = [("scripts.time_limit", "2s")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let address = stack.program.address();
    let bad: Vec<_> = (0..4)
        .map(|number| {
            thread::spawn(move || {
                let mut client = Client::connect(address).unwrap();
                let script = format!("redis.call('set',KEYS[1],'x') {ENDLESS}");
                client
                    .call(&["EVAL", &script, "1", &format!("k{number}")])
                    .unwrap()
            })
        })
        .collect();
    let mut client = stack.client().unwrap();
    let served = serve_until(&mut client, || bad.iter().all(|one| one.is_finished()));
    assert!(served > 10, "{served}");
    for one in bad {
        let reply = one.join().unwrap();
        let text = reply.error().unwrap();
        assert!(text.contains("ran for longer than 2s"), "{text}");
    }
    // Nothing of them was written.
    assert_eq!(
        client.integer(&["EXISTS", "k0", "k1", "k2", "k3"]).unwrap(),
        0
    );
}

#[test]
fn a_script_can_be_killed_also_when_it_has_written() {
    let stack = Stack::start().unwrap();
    let address = stack.program.address();
    let bad = thread::spawn(move || {
        let mut client = Client::connect(address).unwrap();
        let script = format!("redis.call('set',KEYS[1],'x') {ENDLESS}");
        client.call(&["EVAL", &script, "1", "k"]).unwrap()
    });
    let mut client = stack.client().unwrap();
    process::await_true("the script was killed", LIMIT, || {
        let killed = client.call(&["SCRIPT", "KILL"]).unwrap();
        killed == Value::Simple("OK".into()) && bad.is_finished() || bad.is_finished()
    })
    .unwrap();
    let reply = bad.join().unwrap();
    assert!(reply.error().unwrap().contains("SCRIPT KILL"), "{reply:?}");
    assert_eq!(client.integer(&["EXISTS", "k"]).unwrap(), 0);
    let nothing = client.call(&["SCRIPT", "KILL"]).unwrap();
    assert!(nothing.error().unwrap().starts_with("NOTBUSY"));
}

#[test]
fn a_script_that_takes_all_memory_is_ended() {
    let settings = [("scripts.memory", "8MB")];
    let mut stack = Stack::start_with(&settings, &[]).unwrap();
    let mut client = stack.client().unwrap();
    for script in [
        "local t = {} while true do t[#t+1] = string.rep('x', 1000) .. #t end",
        "local s = 'x' while true do s = s .. s end",
        "return string.rep('x', 1000000000)",
        "local s = 'x' while true do pcall(function() while true do s = s .. s end end) return 1 end",
    ] {
        let started = Instant::now();
        let reply = client.call(&["EVAL", script, "0"]).unwrap();
        let is_ended = reply.error().is_some_and(|text| text.contains("memory"));
        assert!(
            is_ended || reply == Value::Integer(1),
            "{script}: {reply:?}"
        );
        assert!(started.elapsed() < LIMIT);
        assert_eq!(client.integer(&["EVAL", "return 5", "0"]).unwrap(), 5);
    }
    stack.program.stop().unwrap();
}

#[test]
fn a_script_that_fails_keeps_what_it_did_before_as_in_redis() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let script = "redis.call('set',KEYS[1],'1') redis.call('lpush',KEYS[1],'x')";
    let reply = client.call(&["EVAL", script, "1", "half"]).unwrap();
    assert!(reply.error().unwrap().starts_with("WRONGTYPE"), "{reply:?}");
    assert_eq!(client.text(&["GET", "half"]).unwrap(), "1");
    // It is in the store, not only in the cache.
    stack.cache.client().unwrap().ok(&["FLUSHALL"]).unwrap();
    assert_eq!(client.text(&["GET", "half"]).unwrap(), "1");
}

#[test]
fn no_state_passes_from_one_script_to_another() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    for script in [
        "table.insert(string, 'left') return 1",
        "cjson.encode_sparse_array(true) return 1",
        "rawset(KEYS, 'left', 1) return 1",
    ] {
        client.call(&["EVAL", script, "0"]).unwrap();
    }
    let look = "local ok = pcall(cjson.encode, {[1]=1,[100]=2}) return {#string, tostring(KEYS.left), tostring(ok)}";
    let seen = client.ok(&["EVAL", look, "0"]).unwrap();
    let texts: Vec<String> = seen.items()[1..].iter().filter_map(Value::text).collect();
    assert_eq!(seen.items()[0], Value::Integer(0));
    assert_eq!(texts, ["nil", "false"]);
}

#[test]
fn messages_of_a_script_are_sent_once_and_only_if_it_commits() {
    let settings = [("scripts.time_limit", "500ms")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let mut listener = stack.client().unwrap();
    listener.ok(&["SUBSCRIBE", "c"]).unwrap();
    let mut client = stack.client().unwrap();
    let lost = format!("redis.call('publish','c','lost') {ENDLESS}");
    assert!(
        client
            .call(&["EVAL", &lost, "0"])
            .unwrap()
            .error()
            .is_some()
    );
    // Keys that it did not declare make it run several times.
    let sent = "redis.call('publish','c',ARGV[1]) for i = 1, 9 do redis.call('incr','u'..i) end";
    for word in ["one", "two"] {
        client.call(&["EVAL", sent, "0", word]).unwrap();
    }
    for word in ["one", "two"] {
        let message = listener.read().unwrap();
        assert_eq!(message.items()[2].text().unwrap(), word);
    }
    assert_eq!(client.integer(&["EXISTS", "u1", "u9"]).unwrap(), 2);
}
