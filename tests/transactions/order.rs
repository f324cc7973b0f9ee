//! What a block may hold beside commands over named keys, and in which order it runs.

use crate::support::{Client, Stack, Value};

fn block(client: &mut Client, lines: &[&str]) -> Vec<Value> {
    client.ok(&["MULTI"]).unwrap();
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(client.text(&words).unwrap(), "QUEUED", "{line}");
    }
    client.ok(&["EXEC"]).unwrap().items().to_vec()
}

fn texts(values: &[Value]) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Integer(n) => n.to_string(),
        Value::Error(text) => text.clone(),
        Value::Null => "nil".to_owned(),
        other => other.text().unwrap_or_else(|| format!("{other:?}")),
    };
    values.iter().map(text).collect()
}

#[test]
fn a_flush_divides_a_block() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let replies = block(
        &mut client,
        &[
            "SET a 1",
            "INCR a",
            "FLUSHDB",
            "GET a",
            "SET b 1",
            "SWAPDB 0 4",
            "GET b",
            "SELECT 4",
            "GET b",
        ],
    );
    let expected = ["OK", "2", "OK", "nil", "OK", "OK", "nil", "OK", "1"];
    assert_eq!(texts(&replies), expected);
    assert_eq!(client.text(&["GET", "b"]).unwrap(), "1");
}

#[test]
fn lists_of_keys_see_all_of_the_block_or_nothing() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let replies = block(
        &mut client,
        &["DBSIZE", "SET a 1", "DBSIZE", "SET b 1", "DBSIZE"],
    );
    assert_eq!(texts(&replies), ["0", "OK", "2", "OK", "2"]);
    let replies = block(
        &mut client,
        &["GET a", "DBSIZE", "SELECT 3", "DBSIZE", "RANDOMKEY"],
    );
    assert_eq!(texts(&replies), ["1", "2", "OK", "0", "nil"]);
}

#[test]
fn a_block_whose_watched_key_changed_does_nothing_at_all() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    client.ok(&["WATCH", "key"]).unwrap();
    client.ok(&["SET", "key", "1"]).unwrap();
    client.ok(&["MULTI"]).unwrap();
    for line in ["SELECT 5", "CLIENT SETNAME late", "FLUSHALL", "SET key 2"] {
        client.ok(&line.split(' ').collect::<Vec<_>>()).unwrap();
    }
    assert_eq!(client.ok(&["EXEC"]).unwrap(), Value::Null);
    assert_eq!(client.text(&["GET", "key"]).unwrap(), "1");
    assert_eq!(client.ok(&["CLIENT", "GETNAME"]).unwrap(), Value::Null);
}

#[test]
fn commands_of_the_connection_run_in_their_place() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    let replies = block(
        &mut client,
        &[
            "CLIENT SETNAME me",
            "SET a 1",
            "CLIENT GETNAME",
            "TTL a",
            "PING",
            "CLIENT INFO",
        ],
    );
    assert_eq!(texts(&replies[..5]), ["OK", "OK", "me", "-1", "PONG"]);
    assert!(texts(&replies)[5].contains("name=me"), "{replies:?}");
    let mut other = stack.client().unwrap();
    client.ok(&["MULTI"]).unwrap();
    client.ok(&["PING"]).unwrap();
    let list = other.text(&["CLIENT", "LIST"]).unwrap();
    assert!(
        list.contains("flags=x") && list.contains("multi=1 "),
        "{list}"
    );
}

#[test]
fn commands_are_counted_when_they_run() {
    let stack = Stack::start().unwrap();
    let mut client = stack.client().unwrap();
    block(&mut client, &["SET a x", "INCR a"]);
    let stats = client.text(&["INFO", "commandstats"]).unwrap();
    assert!(stats.contains("cmdstat_set:calls=1,"), "{stats}");
    let incr = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_incr:"))
        .unwrap();
    assert!(
        incr.contains("calls=1,") && incr.contains("failed_calls=1"),
        "{incr}"
    );
}
