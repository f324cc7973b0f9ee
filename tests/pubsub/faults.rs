//! The cache goes away, a subscriber does not read, many subscribe at once.

use std::time::Duration;

use crate::support::client::encode;
use crate::support::{Client, Stack, Value, process};

const LIMIT: Duration = Duration::from_secs(20);

fn texts(value: &Value) -> Vec<String> {
    value.items().iter().filter_map(Value::text).collect()
}

/// Publishes until the one subscriber is reached again.
fn publish_until_heard(publisher: &mut Client, channel: &str, message: &str) {
    process::await_true("a message is heard", LIMIT, || {
        let reply = publisher.call(&["PUBLISH", channel, message]).unwrap();
        reply == Value::Integer(1)
    })
    .unwrap();
}

#[test]
fn subscriptions_are_made_anew_when_the_cache_comes_back() {
    let mut stack = Stack::start().unwrap();
    let mut channel = stack.client().unwrap();
    let mut pattern = stack.client().unwrap();
    let mut shard = stack.client().unwrap();
    channel.ok(&["SUBSCRIBE", "news"]).unwrap();
    pattern.ok(&["PSUBSCRIBE", "w*"]).unwrap();
    shard.ok(&["SSUBSCRIBE", "slot"]).unwrap();
    let mut publisher = stack.client().unwrap();
    for _ in 0..2 {
        stack.cache.kill().unwrap();
        stack.cache.start_again().unwrap();
        publish_until_heard(&mut publisher, "news", "a");
        assert_eq!(texts(&channel.read().unwrap()), ["message", "news", "a"]);
        publish_until_heard(&mut publisher, "weather", "b");
        let heard = texts(&pattern.read().unwrap());
        assert_eq!(heard, ["pmessage", "w*", "weather", "b"]);
        assert_eq!(publisher.integer(&["SPUBLISH", "slot", "c"]).unwrap(), 1);
        assert_eq!(texts(&shard.read().unwrap()), ["smessage", "slot", "c"]);
    }
    // Who subscribed and left while it was away is not subscribed for.
    stack.cache.kill().unwrap();
    drop(channel);
    stack.cache.start_again().unwrap();
    publish_until_heard(&mut publisher, "weather", "d");
    let mut cache = stack.cache.client().unwrap();
    let channels = cache.ok(&["PUBSUB", "CHANNELS"]).unwrap();
    assert_eq!(channels, Value::Array(Vec::new()));
}

#[test]
fn without_a_cache_messages_are_refused_and_nothing_is_subscribed() {
    let mut stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    stack.cache.kill().unwrap();
    let reply = client.call(&["PUBLISH", "a", "b"]).unwrap();
    let error = reply.error().unwrap_or_default();
    assert!(
        error.starts_with("TRYAGAIN") || error.starts_with("UNKNOWN"),
        "{reply:?}"
    );
    let reply = client.call(&["SUBSCRIBE", "a"]).unwrap();
    assert!(
        reply.error().is_some_and(|e| e.starts_with("TRYAGAIN")),
        "{reply:?}"
    );
    // Not subscribed, so everything may be asked for.
    client.ok(&["SET", "k", "v"]).unwrap();
    stack.cache.start_again().unwrap();
    client.ok(&["SUBSCRIBE", "a"]).unwrap();
    let mut publisher = stack.client().unwrap();
    assert_eq!(publisher.integer(&["PUBLISH", "a", "b"]).unwrap(), 1);
}

#[test]
fn subscriber_that_does_not_read_is_cut_off_and_disturbs_nobody() {
    let settings = [("limits.output_buffer", "1MB")];
    let stack = Stack::start_with(&settings, &[]).unwrap();
    let mut slow = stack.client().unwrap();
    let mut other = stack.client().unwrap();
    slow.ok(&["SUBSCRIBE", "news"]).unwrap();
    other.ok(&["SUBSCRIBE", "news"]).unwrap();
    let mut publisher = stack.client().unwrap();
    let message = "x".repeat(100_000);
    // More than sockets and buffers take.
    for number in 0..300 {
        let heard = publisher.integer(&["PUBLISH", "news", &message]).unwrap();
        assert!((1..=2).contains(&heard), "{heard} at {number}");
        assert_eq!(texts(&other.read().unwrap())[2].len(), 100_000);
    }
    process::await_true("the slow one is cut off", LIMIT, || {
        let clients = publisher.text(&["CLIENT", "LIST"]).unwrap();
        clients.lines().count() == 2
    })
    .unwrap();
    assert_eq!(publisher.integer(&["PUBLISH", "news", "x"]).unwrap(), 1);
    assert!(slow.read_to_close().unwrap().len() < 20_000_000);
}

#[test]
fn after_a_confirmation_no_message_is_lost() {
    let stack = Stack::start().unwrap();
    let mut cache = stack.cache.client().unwrap();
    let mut other = stack.client().unwrap();
    for round in 0..200 {
        let mut client = stack.client().unwrap();
        client.ok(&["SUBSCRIBE", "news"]).unwrap();
        // By another connection of Redis itself, so past Freshet's own order.
        let heard = cache.integer(&["PUBLISH", "news", "x"]).unwrap();
        assert_eq!(heard, 1, "round {round}");
        assert_eq!(texts(&client.read().unwrap()), ["message", "news", "x"]);
        if round % 2 == 0 {
            client.ok(&["UNSUBSCRIBE", "news"]).unwrap();
        }
        drop(client);
        // The name is left and taken again while messages are under way.
        other.ok(&["PING"]).unwrap();
    }
}

#[test]
fn many_subscribers_get_every_message_in_order() {
    let stack = Stack::start().unwrap();
    let mut clients: Vec<Client> = (0..200).map(|_| stack.client().unwrap()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let own = format!("own:{index}");
        client.send(&["SUBSCRIBE", "all", &own]).unwrap();
    }
    for client in &mut clients {
        client.read().unwrap();
        client.read().unwrap();
    }
    let mut publisher = stack.client().unwrap();
    let requests: Vec<u8> = (0..100)
        .flat_map(|n| encode(&["PUBLISH", "all", &n.to_string()]))
        .collect();
    publisher.send_raw(&requests).unwrap();
    for _ in 0..100 {
        assert_eq!(publisher.read().unwrap(), Value::Integer(200));
    }
    for client in &mut clients {
        for n in 0..100 {
            let heard = texts(&client.read().unwrap());
            assert_eq!(heard, ["message", "all", &n.to_string()]);
        }
    }
    assert_eq!(publisher.integer(&["PUBLISH", "own:7", "x"]).unwrap(), 1);
    drop(clients);
    process::await_true("nothing is subscribed to any more", LIMIT, || {
        let channels = publisher.ok(&["PUBSUB", "CHANNELS"]).unwrap();
        channels == Value::Array(Vec::new())
    })
    .unwrap();
}
