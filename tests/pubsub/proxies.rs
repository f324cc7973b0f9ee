//! Several proxies on one cache: messages, counts and invalidations across them.

use std::time::Duration;

use crate::support::{Client, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().filter_map(Value::text).collect()
}

/// The keys of the next invalidation; none: all of them.
fn invalidated(client: &mut Client) -> Vec<String> {
    let push = client.read().unwrap();
    assert_eq!(push.items()[0].text().unwrap(), "invalidate", "{push:?}");
    texts(&push.items()[1])
}

fn tracking(stack: &Stack, options: &[&str]) -> Client {
    let mut client = stack.client().unwrap();
    client.ok(&["HELLO", "3"]).unwrap();
    let command = [&["CLIENT", "TRACKING", "ON"], options].concat();
    client.ok(&command).unwrap();
    client
}

#[test]
fn messages_reach_clients_of_all_proxies() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let mut here = stack.client().unwrap();
    let mut there = second.client().unwrap();
    here.ok(&["SUBSCRIBE", "news"]).unwrap();
    there.ok(&["PSUBSCRIBE", "n*"]).unwrap();
    let mut publisher = second.client().unwrap();
    assert_eq!(publisher.integer(&["PUBLISH", "news", "x"]).unwrap(), 2);
    assert_eq!(texts(&here.read().unwrap()), ["message", "news", "x"]);
    assert_eq!(
        texts(&there.read().unwrap()),
        ["pmessage", "n*", "news", "x"]
    );
    // Two clients of this proxy count as two, those of another as one.
    let mut more = stack.client().unwrap();
    more.ok(&["SUBSCRIBE", "news"]).unwrap();
    assert_eq!(publisher.integer(&["PUBLISH", "news", "y"]).unwrap(), 2);
    let mut publisher = stack.client().unwrap();
    assert_eq!(publisher.integer(&["PUBLISH", "news", "z"]).unwrap(), 3);
    let channels = publisher.ok(&["PUBSUB", "CHANNELS"]).unwrap();
    assert_eq!(texts(&channels), ["news"]);
    let shards = publisher.ok(&["PUBSUB", "SHARDCHANNELS"]).unwrap();
    assert_eq!(shards, Value::Array(Vec::new()));
}

#[test]
fn copies_are_invalidated_by_writes_through_any_proxy() {
    let stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let mut writer = second.client().unwrap();
    writer.ok(&["SET", "a", "1"]).unwrap();
    let mut reader = tracking(&stack, &[]);
    let mut broadcast = tracking(&stack, &["BCAST", "PREFIX", "u:"]);
    for round in 0..100 {
        let (value, key) = (round.to_string(), format!("u:{round}"));
        reader.ok(&["GET", "a"]).unwrap();
        writer.ok(&["SET", "a", &value]).unwrap();
        assert_eq!(invalidated(&mut reader), ["a"]);
        assert_eq!(reader.text(&["GET", "a"]).unwrap(), value);
        writer.ok(&["SET", "a", &value]).unwrap();
        assert_eq!(invalidated(&mut reader), ["a"]);
        writer.ok(&["SET", &key, "x"]).unwrap();
        assert_eq!(invalidated(&mut broadcast), [key]);
    }
    reader.ok(&["GET", "a"]).unwrap();
    writer.ok(&["FLUSHALL"]).unwrap();
    assert_eq!(invalidated(&mut reader), Vec::<String>::new());
    assert_eq!(invalidated(&mut broadcast), Vec::<String>::new());
    // Nobody tracks, and then somebody does again.
    drop((reader, broadcast));
    process::await_true("nobody tracks", LIMIT, || {
        let info = stack.client().unwrap().text(&["INFO"]).unwrap();
        info.contains("tracking_clients:0")
    })
    .unwrap();
    for value in 0..20 {
        writer.ok(&["SET", "a", &value.to_string()]).unwrap();
    }
    let mut reader = tracking(&stack, &[]);
    reader.ok(&["GET", "a"]).unwrap();
    writer.ok(&["SET", "a", "last"]).unwrap();
    assert_eq!(invalidated(&mut reader), ["a"]);
}

#[test]
fn a_lost_connection_invalidates_everything() {
    let mut stack = Stack::start().unwrap();
    let second = stack.second_program().unwrap();
    let mut reader = tracking(&stack, &[]);
    let mut writer = second.client().unwrap();
    writer.ok(&["SET", "a", "1"]).unwrap();
    reader.ok(&["GET", "a"]).unwrap();
    stack.cache.kill().unwrap();
    // What the first write told may come late, and is no harm.
    while !invalidated(&mut reader).is_empty() {}
    stack.cache.start_again().unwrap();
    // Once more when changes of others are heard of again.
    assert_eq!(invalidated(&mut reader), Vec::<String>::new());
    // The writer's proxy may be connected again later, and then tells that anything may have changed.
    process::await_true("a change is heard of", LIMIT, || {
        let mut reader = tracking(&stack, &[]);
        reader.call(&["GET", "a"]).unwrap().error().is_none()
            && writer.call(&["SET", "a", "2"]).unwrap().error().is_none()
            && invalidated(&mut reader) == ["a"]
    })
    .unwrap();
}

#[test]
fn a_proxy_that_vanishes_invalidates_everything() {
    let stack = Stack::start().unwrap();
    let mut second = stack.second_program().unwrap();
    let mut reader = tracking(&stack, &[]);
    reader.ok(&["GET", "a"]).unwrap();
    // The number of proxies is looked at every second.
    std::thread::sleep(Duration::from_millis(2500));
    second.kill().unwrap();
    assert_eq!(invalidated(&mut reader), Vec::<String>::new());
}

#[test]
fn notifications_are_told_by_the_proxy_that_wrote() {
    let settings = [("notifications.keyspace_events", "KEA")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let second = stack.second_program().unwrap();
    let mut listener = second.client().unwrap();
    listener.ok(&["PSUBSCRIBE", "__keyevent@*"]).unwrap();
    let mut silent = second.client().unwrap();
    silent.ok(&["SET", "other", "x"]).unwrap();
    let mut client = stack.client().unwrap();
    let classes = client.ok(&["CONFIG", "GET", "notify-*"]).unwrap();
    assert_eq!(texts(&classes), ["notify-keyspace-events", "AKE"]);
    client.ok(&["SELECT", "5"]).unwrap();
    for n in 0..50 {
        client.ok(&["SET", &format!("k{n}"), "x"]).unwrap();
    }
    for n in 0..50 {
        let heard = texts(&listener.read().unwrap());
        assert_eq!(heard[2..], ["__keyevent@5__:set", &format!("k{n}")]);
    }
}
